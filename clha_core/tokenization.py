"""From turns to token ids: a prompt and a response are encoded once, apart, so that the boundary is exact.

Nothing is decoded and encoded again. A sequence has one BOS where the tokenizer adds one, and one EOS at the end of
each complete response. Too long a prompt loses its oldest tokens; too long a response loses its end, and then has no
EOS, because it did not end there.
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


@dataclass(frozen=True)
class EncodedRow:
    """One prompt with its candidates; `truncated_*` say what did not fit."""

    prompt_ids: list[int]
    response_ids: list[list[int]]
    truncated_prompt: bool
    truncated_responses: int


def hh_prompt(turns: Sequence[Turn]) -> str:
    """The text of a prompt in HH's plain format, up to and with the marker that the response follows."""
    return "".join(HH_MARKERS[turn["role"]] + turn["content"] for turn in turns) + HH_GENERATION_PROMPT


def adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer itself puts a BOS in front of a text."""
    ids = tokenizer("a")["input_ids"]
    return tokenizer.bos_token_id is not None and len(ids) > 1 and ids[0] == tokenizer.bos_token_id


def adds_space(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer itself puts a space in front of a text (SentencePiece models such as LLaMA's)."""
    return tokenizer.tokenize("x")[0].startswith("\u2581")


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


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn], prompt_format: PromptFormat, max_prompt_length: int
) -> tuple[list[int], bool]:
    """Token ids of a prompt, at most `max_prompt_length` of them, and whether it was truncated (from the left).

    Raises:
        UserError: `prompt_format` is chat_template and the tokenizer has none.
    """
    if prompt_format == "chat_template":
        text = chat_text(tokenizer, turns, add_generation_prompt=True)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        bos = ids[:1] if ids and ids[0] == tokenizer.bos_token_id else []
    else:
        ids = plain_ids(tokenizer, hh_prompt(turns))
        bos = [tokenizer.bos_token_id] if adds_bos(tokenizer) else []
        ids = bos + ids
    if len(ids) <= max_prompt_length:
        return ids, False
    return bos + ids[len(ids) - max_prompt_length + len(bos) :], True


def encode_response(
    tokenizer: PreTrainedTokenizerBase, response: str, prompt_format: PromptFormat, max_length: int
) -> tuple[list[int], bool]:
    """Token ids of a response with its EOS, at most `max_length`, and whether it was truncated (from the right)."""
    spaced = prompt_format == "hh" and not adds_space(tokenizer)
    ids = [*plain_ids(tokenizer, " " + response if spaced else response), tokenizer.eos_token_id]
    return ids[:max_length], len(ids) > max_length


def encode_row(
    tokenizer: PreTrainedTokenizerBase,
    prompt: Sequence[Turn],
    responses: Sequence[str],
    *,
    prompt_format: PromptFormat,
    max_length: int,
    max_prompt_length: int,
) -> EncodedRow:
    """Encode a prompt and its candidates; `max_length` bounds prompt and response together.

    Raises:
        UserError: the tokenizer has no EOS, or the lengths leave no room for a response.
    """
    if tokenizer.eos_token_id is None:
        raise UserError("the tokenizer has no EOS token: a policy could not learn where a response ends.")
    if max_prompt_length >= max_length:
        raise UserError(f"max_prompt_length ({max_prompt_length}) must be smaller than max_length ({max_length}).")
    prompt_ids, cut = encode_prompt(tokenizer, prompt, prompt_format, max_prompt_length)
    room = max_length - len(prompt_ids)
    encoded = [encode_response(tokenizer, response, prompt_format, room) for response in responses]
    return EncodedRow(prompt_ids, [ids for ids, _ in encoded], cut, sum(truncated for _, truncated in encoded))
