"""From turns to token ids: a prompt and a response are encoded once, apart, so that the boundary is exact.

Nothing is decoded and encoded again: a policy is trained on a prompt's ids as generation gives them to it, also where a
tokenizer would merge the two ends if it saw them together. A sequence has one BOS where the tokenizer (or its chat
template) puts one, and one end token behind each complete response. That is the EOS; in the format chat_template it is
what the template itself puts behind an assistant turn, should that be another token (ChatML's <|im_end|>, say), because
a chat goes on from there. Too long a prompt loses its oldest turns (chat_template) or tokens; too long a response loses
its end, and then has no end token, because it did not end there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from transformers import PreTrainedTokenizerBase

from clha_core.errors import UserError

PromptFormat = Literal["hh", "chat_template"]
Turn = Mapping[str, str]

HH_MARKERS = {"user": "\n\nHuman: ", "assistant": "\n\nAssistant: ", "system": ""}
HH_GENERATION_PROMPT = "\n\nAssistant:"
SPACES = ("\u2581", "\u0120")  # a space in the tokens of SentencePiece and of byte-level BPE


@dataclass(frozen=True)
class EncodedRow:
    """One prompt with its candidates; `truncated_*` say what did not fit."""

    prompt_ids: list[int]
    response_ids: list[list[int]]
    truncated_prompt: bool
    truncated_responses: int


@dataclass(frozen=True)
class Framing:
    """What a tokenizer puts around texts. To find it out takes longer than to encode a row: do it once for many."""

    bos: list[int]
    adds_space: bool
    between: str
    end: int | None


def hh_prompt(turns: Sequence[Turn]) -> str:
    """The text of a prompt in HH's plain format, up to and with the marker that the response follows."""
    return "".join(HH_MARKERS[turn["role"]] + turn["content"] for turn in turns) + HH_GENERATION_PROMPT


def adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer itself puts a BOS in front of a text."""
    ids = tokenizer("a")["input_ids"]
    return tokenizer.bos_token_id is not None and len(ids) > 1 and ids[0] == tokenizer.bos_token_id


def adds_space(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer itself puts a space in front of a text (SentencePiece models such as LLaMA's)."""
    return tokenizer.tokenize("x")[0].startswith(SPACES)


def plain_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of text that people wrote: what looks like a special token in it is text too."""
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


def chat_text(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn], *, add_generation_prompt: bool) -> str:
    """Turns in the tokenizer's own chat format.

    Raises:
        UserError: the tokenizer has none.
    """
    if tokenizer.chat_template is None:
        raise UserError("the tokenizer has no chat template: choose another prompt_format or text_format (hh, say).")
    messages = [dict(turn) for turn in turns]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt))


def framing_of(tokenizer: PreTrainedTokenizerBase, prompt_format: PromptFormat) -> Framing:
    """The framing of all rows in a format.

    Raises:
        UserError: `prompt_format` is chat_template and the tokenizer has none.
    """
    bos = [tokenizer.bos_token_id] if adds_bos(tokenizer) else []
    return Framing(bos, adds_space(tokenizer), *response_frame(tokenizer, prompt_format))


def following_ids(tokenizer: PreTrainedTokenizerBase, text: str, *, space_is_added: bool) -> list[int]:
    """Token ids of text that follows other text: no space comes in between that is not in it.

    Args:
        space_is_added: adds_space(tokenizer).
    """
    if not space_is_added:
        return plain_ids(tokenizer, text)
    if text.startswith(" ") and not text.startswith("  "):  # some add no space to a text that has one
        return plain_ids(tokenizer, text[1:])
    before, both = plain_ids(tokenizer, "\n"), plain_ids(tokenizer, "\n" + text)
    return both[len(before) :] if both[: len(before)] == before else plain_ids(tokenizer, text)


def response_frame(tokenizer: PreTrainedTokenizerBase, prompt_format: PromptFormat) -> tuple[str, int | None]:
    """The white space between a prompt and a response, and the token that ends a complete response.

    In a chat template the end is the first special token behind an assistant turn, or the EOS where there is none.

    Raises:
        UserError: `prompt_format` is chat_template and the tokenizer has none.
    """
    if prompt_format == "hh":
        return " ", tokenizer.eos_token_id
    question, answer = {"role": "user", "content": "question"}, "answer"
    asked = chat_text(tokenizer, [question], add_generation_prompt=True)
    turns = [question, {"role": "assistant", "content": answer}]
    before, _, behind = chat_text(tokenizer, turns, add_generation_prompt=False).rpartition(answer)
    between = before.removeprefix(asked)
    special = {token for token, added in tokenizer.added_tokens_decoder.items() if added.content.strip()}
    behind_ids = tokenizer(behind, add_special_tokens=False)["input_ids"]
    end = next((token for token in behind_ids if token in special), tokenizer.eos_token_id)
    return between if between.isspace() else "", end


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase,
    turns: Sequence[Turn],
    prompt_format: PromptFormat,
    max_prompt_length: int,
    framing: Framing | None = None,
) -> tuple[list[int], bool]:
    """Token ids of a prompt, at most `max_prompt_length` of them, and whether it was truncated (from the left).

    A chat loses its oldest turns, but not its system message; if its last turn alone does not fit, it loses tokens.

    Args:
        framing: of the tokenizer; None to find it out.

    Raises:
        UserError: `prompt_format` is chat_template and the tokenizer has none.
    """
    if prompt_format == "chat_template":
        whole = ids = _chat_ids(tokenizer, turns)
        while len(ids) > max_prompt_length and (shorter := _without_oldest(turns)) is not None:
            turns = shorter
            ids = _chat_ids(tokenizer, turns)
        truncated = len(ids) < len(whole)
        bos = ids[:1] if ids and ids[0] == tokenizer.bos_token_id else []
    else:
        bos = (framing or framing_of(tokenizer, prompt_format)).bos
        ids = bos + plain_ids(tokenizer, hh_prompt(turns))
        truncated = False
    if len(ids) <= max_prompt_length:
        return ids, truncated
    return bos + ids[len(ids) - max_prompt_length + len(bos) :], True


def _chat_ids(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn]) -> list[int]:
    text = chat_text(tokenizer, turns, add_generation_prompt=True)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def _without_oldest(turns: Sequence[Turn]) -> Sequence[Turn] | None:
    """The same from the second user turn on, behind the system message; None where there is no such turn."""
    system = [turn for turn in turns[:1] if turn["role"] == "system"]
    users = [at for at, turn in enumerate(turns) if turn["role"] == "user"]
    return [*system, *turns[users[1] :]] if len(users) > 1 else None


def encode_response(
    tokenizer: PreTrainedTokenizerBase, response: str, framing: Framing, max_length: int
) -> tuple[list[int], bool]:
    """Token ids of a response with its end, at most `max_length`, and whether it was truncated (from the right).

    Args:
        tokenizer, response: of the policy.
        framing: of the tokenizer.
        max_length: in tokens.

    Raises:
        UserError: the framing has no end.
    """
    if framing.end is None:
        raise UserError("the tokenizer has no EOS token: a policy could not learn where a response ends.")
    text = framing.between + response
    ids = [*following_ids(tokenizer, text, space_is_added=framing.adds_space), framing.end]
    return ids[:max_length], len(ids) > max_length


def encode_row(
    tokenizer: PreTrainedTokenizerBase,
    prompt: Sequence[Turn],
    responses: Sequence[str],
    *,
    prompt_format: PromptFormat,
    max_length: int,
    max_prompt_length: int,
    framing: Framing | None = None,
) -> EncodedRow:
    """Encode a prompt and its candidates; `max_length` bounds prompt and response together.

    Args:
        framing: of the tokenizer; None to find it out.

    Raises:
        UserError: the tokenizer has no EOS, or the lengths leave no room for a response.
    """
    if max_prompt_length >= max_length:
        raise UserError(f"max_prompt_length ({max_prompt_length}) must be smaller than max_length ({max_length}).")
    framing = framing or framing_of(tokenizer, prompt_format)
    prompt_ids, cut = encode_prompt(tokenizer, prompt, prompt_format, max_prompt_length, framing)
    room = max_length - len(prompt_ids)
    encoded = [encode_response(tokenizer, response, framing, room) for response in responses]
    return EncodedRow(prompt_ids, [ids for ids, _ in encoded], cut, sum(truncated for _, truncated in encoded))
