"""Where an answer ends: at an end-of-sequence token, or at the next role marker."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from transformers import GenerationConfig, PreTrainedTokenizerBase

from clha_core.tokenization import response_frame

ROLE_MARKERS = ("\n\nHuman:", "\n\nAssistant:")
INCOMPLETE = "\ufffd"  # what bytes decode to that are no whole character


@dataclass(frozen=True)
class Generation:
    """One answer."""

    text: str  # stripped, without the role marker that ended it and without special tokens
    finished: bool  # ended by an end-of-sequence token or a role marker, not by the length limit
    tokens: int  # generated tokens, those of the ending included


class Endings:
    """Says of tokens generated so far whether they are a whole answer, and makes an answer of them.

    Own code, because transformers' stop_strings also match text that begins in the prompt, which ends with a
    role marker itself.

    Args:
        tokenizer: of the policy.
        eos_ids: every token that ends an answer.
        markers: texts that end an answer; it is cut before the first.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, eos_ids: Sequence[int], markers: Sequence[str]) -> None:
        self.tokenizer = tokenizer
        self.eos_ids = frozenset(eos_ids)
        self.markers = markers
        # A token that contributes text has at least one byte, so a marker that ends in the newest token lies
        # within this many tokens. Looking at no more keeps the cost of a step constant.
        self.tail = max((len(marker.encode()) for marker in markers), default=0)
        self._last_characters = {marker[-1] for marker in markers}
        self._can_end_marker = cache(self._has_last_character)  # few different tokens come, and most cannot

    def reached(self, generated: Sequence[int]) -> bool:
        """Whether the newest of the generated tokens ends the answer."""
        newest = generated[-1]
        if newest in self.eos_ids:
            return True
        if not self._can_end_marker(newest):
            return False
        text = self._decode(generated[-self.tail :])
        return any(marker in text for marker in self.markers)

    def generation(self, generated: Sequence[int], *, finished: bool) -> Generation:
        """The answer that generated tokens are, those of the ending included."""
        return Generation(before_marker(self._decode(generated), self.markers).strip(), finished, len(generated))

    def _has_last_character(self, token: int) -> bool:
        text = self._decode([token])
        return INCOMPLETE in text or not self._last_characters.isdisjoint(text)

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))


def before_marker(text: str, markers: Sequence[str]) -> str:
    """The text up to the first marker."""
    return text[: min((at for marker in markers if (at := text.find(marker)) >= 0), default=len(text))]


def end_token_ids(config: GenerationConfig | None, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Every id that ends an answer: chat models list more in their generation config than the tokenizer knows.

    What ends a turn of the tokenizer's chat template is what a policy was trained to end in, listed or not.
    """
    configured = config.eos_token_id if config else None
    ids = [*(configured if isinstance(configured, list) else [configured]), tokenizer.eos_token_id]
    if tokenizer.chat_template is not None:
        ids.append(response_frame(tokenizer, "chat_template")[1])
    return sorted({token for token in ids if token is not None})
