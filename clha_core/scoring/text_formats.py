"""How a dialogue becomes the input text of a reward model."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from clha_core.errors import UserError
from clha_core.tokenization import Turn, adds_bos, chat_text, hh_prompt, plain_ids

OASST_MARKERS = {"system": "<|system|>", "user": "<|prompter|>", "assistant": "<|assistant|>"}


def reward_input_ids(
    tokenizer: PreTrainedTokenizerBase, prompt: Sequence[Turn], response: str, text_format: str, max_length: int
) -> list[int]:
    """Token ids of a prompt and one response, at most `max_length`; what does not fit is cut from the left.

    There is one BOS in front where the tokenizer or its chat template puts one, also before a text that was cut.

    Formats:
        hh: '\\n\\nHuman: ... \\n\\nAssistant: ...' and an EOS.
        oasst: every turn as '<|prompter|>...' or '<|assistant|>...', each closed by the tokenizer's EOS
            (OpenAssistant's reward models).
        chat_template: the tokenizer's own.
        question_answer: the prompt in HH's format and the response as a sentence pair (DeBERTa reward models); the
            question is cut, and the answer only where it is too long alone.

    Raises:
        UserError: chat_template and the tokenizer has none; oasst and the tokenizer lacks its markers.
    """
    turns = [*prompt, {"role": "assistant", "content": response}]
    if text_format == "question_answer":
        return _pair_ids(tokenizer, hh_prompt(prompt), response, max_length)
    if text_format == "hh":
        ids = plain_ids(tokenizer, hh_prompt(prompt) + " " + response)
        ids = [*ids, tokenizer.eos_token_id]
    elif text_format == "oasst":
        ids = [token for turn in turns for token in _oasst_turn(tokenizer, turn)]
    else:
        text = chat_text(tokenizer, turns, add_generation_prompt=False)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    has_bos = tokenizer.bos_token_id is not None and ids[0] == tokenizer.bos_token_id
    ids = ids[1:] if has_bos else ids
    bos = [tokenizer.bos_token_id] if has_bos or adds_bos(tokenizer) else []
    return bos + ids[-(max_length - len(bos)) :]


def _oasst_turn(tokenizer: PreTrainedTokenizerBase, turn: Turn) -> list[int]:
    """Marker, text and EOS; what looks like a marker in the text is text."""
    marker = OASST_MARKERS[turn["role"]]
    marker_id = tokenizer.convert_tokens_to_ids(marker)
    if marker_id in (None, tokenizer.unk_token_id):
        raise UserError(
            f"the reward model's tokenizer has no token {marker}: it was not trained with "
            "reward_model.text_format oasst, choose another one."
        )
    return [marker_id, *plain_ids(tokenizer, turn["content"]), tokenizer.eos_token_id]


def _pair_ids(tokenizer: PreTrainedTokenizerBase, question: str, answer: str, max_length: int) -> list[int]:
    """A sentence pair with the tokenizer's special tokens, cut on the question's left (and on both, if need be)."""
    tokenizer.truncation_side = "left"
    answer_alone = len(tokenizer("", answer)["input_ids"])
    strategy = "only_first" if answer_alone < max_length else "longest_first"
    return tokenizer(question, answer, truncation=strategy, max_length=max_length)["input_ids"]
