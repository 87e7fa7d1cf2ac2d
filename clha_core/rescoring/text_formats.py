"""How a dialogue becomes the input text of a reward model."""

from collections.abc import Mapping, Sequence

from transformers import PreTrainedTokenizerBase

from clha_core.errors import UserError
from clha_core.tokenization import adds_bos, hh_prompt

Turn = Mapping[str, str]

OASST_MARKERS = {"system": "<|system|>", "user": "<|prompter|>", "assistant": "<|assistant|>"}


def reward_input_ids(
    tokenizer: PreTrainedTokenizerBase, prompt: Sequence[Turn], response: str, text_format: str, max_length: int
) -> list[int]:
    """Token ids of a prompt and one response, at most `max_length`; what does not fit is cut from the left.

    Formats:
        hh: '\\n\\nHuman: ... \\n\\nAssistant: ...' and an EOS.
        oasst: every turn as '<|prompter|>...' or '<|assistant|>...', each closed by the tokenizer's EOS
            (OpenAssistant's reward models).
        chat_template: the tokenizer's own.
        question_answer: the prompt in HH's format and the response as a sentence pair (DeBERTa reward models).

    Raises:
        UserError: chat_template and the tokenizer has none.
    """
    turns = [*prompt, {"role": "assistant", "content": response}]
    if text_format == "question_answer":
        return _pair_ids(tokenizer, hh_prompt(prompt), response, max_length)
    if text_format == "hh":
        ids = tokenizer(hh_prompt(prompt) + " " + response, add_special_tokens=False)["input_ids"]
        ids = [*ids, tokenizer.eos_token_id]
    elif text_format == "oasst":
        text = "".join(OASST_MARKERS[turn["role"]] + turn["content"] + tokenizer.eos_token for turn in turns)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    elif tokenizer.chat_template is None:
        raise UserError("the reward model's tokenizer has no chat template: set reward_model.text_format.")
    else:
        text = tokenizer.apply_chat_template(turns, tokenize=False)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if adds_bos(tokenizer) and ids[0] != tokenizer.bos_token_id:
        ids = [tokenizer.bos_token_id, *ids]
    return ids[-max_length:]


def _pair_ids(tokenizer: PreTrainedTokenizerBase, question: str, answer: str, max_length: int) -> list[int]:
    """A sentence pair: [CLS] question [SEP] answer [SEP], cut on the question's left."""
    special = tokenizer.num_special_tokens_to_add(pair=True)
    answer_ids = tokenizer(answer, add_special_tokens=False)["input_ids"][: max_length - special]
    question_ids = tokenizer(question, add_special_tokens=False)["input_ids"]
    room = max_length - special - len(answer_ids)
    question_ids = question_ids[len(question_ids) - room :] if len(question_ids) > room else question_ids
    return tokenizer.build_inputs_with_special_tokens(question_ids, answer_ids)
