"""Every reward model that is known by name gives the scores of a plain computation, one text at a time."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from clha_core.errors import UserError
from clha_core.params import Params
from clha_core.scoring.entries import ENTRIES, find_entry, resolve
from clha_core.scoring.rater import Rater, evaluation_rater, rescoring_rater

PLAIN = tiny.tokenizer()
PAD_IS_EOS = tiny.tokenizer(pad="<eos>", chat=True)
WITH_BOS = tiny.tokenizer(pad=None, chat=True, bos="<bos>")
PAIRS = tiny.tokenizer(pairs=True)
ROWS = tiny.random_rows(12, n=3)
Turns = Sequence[dict[str, str]]


def hh(_: PreTrainedTokenizerFast, prompt: Turns, response: str) -> tuple[str, ...]:
    said = "".join({"user": "\n\nHuman: ", "assistant": "\n\nAssistant: "}[t["role"]] + t["content"] for t in prompt)
    return (said + "\n\nAssistant: " + response + "<eos>",)


def oasst(_: PreTrainedTokenizerFast, prompt: Turns, response: str) -> tuple[str, ...]:
    turns = [*prompt, {"role": "assistant", "content": response}]
    marker = {"user": "<|prompter|>", "assistant": "<|assistant|>"}
    return ("".join(marker[turn["role"]] + turn["content"] + "<eos>" for turn in turns),)


def chat(tokenizer: PreTrainedTokenizerFast, prompt: Turns, response: str) -> tuple[str, ...]:
    text = tokenizer.apply_chat_template([*prompt, {"role": "assistant", "content": response}], tokenize=False)
    return (text.removeprefix("<bos>"),)  # the tokenizer adds it


def pair(tokenizer: PreTrainedTokenizerFast, prompt: Turns, response: str) -> tuple[str, ...]:
    (whole,) = hh(tokenizer, prompt, "")
    return whole.removesuffix(" <eos>"), response


KNOWN = [
    ("train", "llama", PLAIN, hh),
    ("OpenAssistant/oasst-rm-2.1-pythia-1.4b-epoch-2.5", "gpt_neox_reward_model", PAD_IS_EOS, oasst),
    ("OpenAssistant/oasst-rm-2-pythia-6.9b-epoch-1", "gpt_neox_reward_model", PAD_IS_EOS, oasst),
    ("OpenAssistant/reward-model-deberta-v3-large-v2", "deberta-v2", PAIRS, pair),
    ("Skywork/Skywork-Reward-V2-Qwen3-0.6B", "qwen3", PAD_IS_EOS, chat),
    ("Skywork/Skywork-Reward-V2-Llama-3.2-1B", "llama", WITH_BOS, chat),
    ("Skywork/Skywork-Reward-Llama-3.1-8B-v0.2", "llama", WITH_BOS, chat),
    ("weqweasdas/RM-Mistral-7B", "mistral", WITH_BOS, chat),
    ("weqweasdas/RM-Gemma-2B", "gemma", WITH_BOS, chat),
    ("sfairXC/FsfairX-LLaMA3-RM-v0.1", "llama", WITH_BOS, chat),
]


def plain_score(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, texts: tuple[str, ...]) -> float:
    """The last hidden state of one text, through the head; an encoder's own forward."""
    inputs = tokenizer(*texts, return_tensors="pt")
    ids = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"]}
    model.eval()
    with torch.no_grad():
        if hasattr(model, "classifier"):
            return model(**ids).logits.item()
        head = model.out_proj if hasattr(model, "out_proj") else model.score
        return head(model.base_model(**ids).last_hidden_state[0, -1]).item()


def load(make_params: Callable[..., Params], folder: Path, name: str, role: str = "model", **changes: Any) -> Rater:
    """The rater of a folder under a model's name; in fp32, where sums are exact enough to compare."""
    made = {"dtype": "float32", "max_length": None, "tokens_per_batch": 150} | changes | {role: name}
    params = make_params({f"reward_model.{key}": value for key, value in made.items()}).reward_model
    return (rescoring_rater if role == "model" else evaluation_rater)(folder, params).load("cpu")


@pytest.mark.parametrize("role", ["model", "eval_model"])
@pytest.mark.parametrize(("name", "architecture", "tokenizer", "text"), KNOWN, ids=[known[0] for known in KNOWN])
def test_a_known_model_scores_as_one_text_at_a_time(
    name: str,
    architecture: str,
    tokenizer: PreTrainedTokenizerFast,
    text: Callable[..., tuple[str, ...]],
    role: str,
    tmp_path: Path,
    make_params: Callable[..., Params],
) -> None:
    model = tiny.reward_model(architecture, tokenizer)
    rater = load(make_params, tiny.save(model, tokenizer, tmp_path / "reward"), name, role)
    assert rater._scorer.trees == (architecture != "deberta-v2")
    rated = rater.rate(ROWS, "test")
    expected = [[plain_score(model, tokenizer, text(tokenizer, r["prompt"], a)) for a in r["responses"]] for r in ROWS]
    assert torch.tensor(expected).std() > 0.1
    torch.testing.assert_close(torch.tensor(rated), torch.tensor(expected), atol=1e-5, rtol=1e-5)


def test_every_entry_is_among_the_tested_ones() -> None:
    assert {find_entry(name) for name, *_ in KNOWN} == set(ENTRIES)


def test_a_folder_is_known_by_its_name() -> None:
    entry = find_entry("OpenAssistant/oasst-rm-2.1-pythia-1.4b-epoch-2.5")
    assert entry is not None
    assert find_entry("/data/models/oasst-rm-2.1-pythia-1.4b-epoch-2.5") == entry
    assert find_entry("/data/oasst-rm-2.1-pythia-1.4b-epoch-2.5/mine") is None


def test_what_params_set_wins_over_the_entry() -> None:
    found = resolve("Skywork/Skywork-Reward-V2-Qwen3-0.6B", text_format="hh", max_length=77, dtype="float16")
    assert (found.text_format, found.max_length, found.dtype) == ("hh", 77, "float16")
    left = resolve("Skywork/Skywork-Reward-V2-Qwen3-0.6B", text_format="auto", max_length=None, dtype="auto")
    assert (left.text_format, left.max_length, left.dtype) == ("chat_template", 4096, "bfloat16")


def test_an_unknown_model_needs_what_no_entry_says() -> None:
    with pytest.raises(UserError, match=r"set reward_model.text_format, reward_model.dtype\. .*oasst.*docs/reward-mod"):
        resolve("me/mine", text_format="auto", max_length=100, dtype="auto")
    mine = resolve("me/mine", text_format="oasst", max_length=100, dtype="float32")
    assert (mine.text_format, mine.max_length, mine.head, mine.reading) == ("oasst", 100, None, "last_token")


def test_a_checkpoint_with_another_head_than_its_name_says_is_refused(
    tmp_path: Path, make_params: Callable[..., Params]
) -> None:
    folder = tiny.save(tiny.reward_model("llama", PAD_IS_EOS), PAD_IS_EOS, tmp_path / "reward")
    with pytest.raises(UserError, match="without the head 'out_proj'"):
        load(make_params, folder, "OpenAssistant/oasst-rm-2.1-pythia-1.4b-epoch-2.5")


def test_an_encoder_that_needs_token_types_is_refused(tmp_path: Path, make_params: Callable[..., Params]) -> None:
    folder = tiny.save(tiny.reward_model("deberta-v2", PAIRS, type_vocab_size=2), PAIRS, tmp_path / "reward")
    with pytest.raises(UserError, match="token types, which are not supported"):
        load(make_params, folder, "OpenAssistant/reward-model-deberta-v3-large-v2")


@pytest.mark.parametrize("architecture", ["llama", "gpt_neox_reward_model", "deberta-v2"])
def test_dropout_is_off(architecture: str, tmp_path: Path, make_params: Callable[..., Params]) -> None:
    tokenizer = PAIRS if architecture == "deberta-v2" else PAD_IS_EOS
    folder = tiny.save(tiny.reward_model(architecture, tokenizer), tokenizer, tmp_path / "reward")
    text_format = "question_answer" if architecture == "deberta-v2" else "hh"
    rater = load(make_params, folder, "mine", text_format=text_format, max_length=80)
    assert rater.rate(ROWS, "once") == rater.rate(ROWS, "again")


@pytest.mark.parametrize("architecture", ["llama", "gpt_neox_reward_model"])
def test_bf16_scores_are_near_those_of_fp32(
    architecture: str, tmp_path: Path, make_params: Callable[..., Params]
) -> None:
    folder = tiny.save(tiny.reward_model(architecture, PAD_IS_EOS), PAD_IS_EOS, tmp_path / "reward")
    exact, half = (
        load(make_params, folder, "mine", text_format="hh", max_length=80, dtype=dtype)
        for dtype in ("float32", "bfloat16")
    )
    assert half._scorer.trees
    apart = torch.tensor(exact.rate(ROWS, "fp32")) - torch.tensor(half.rate(ROWS, "bf16"))
    assert 0 < apart.abs().max() < 0.1


@pytest.mark.parametrize(("value", "sentence"), [(float("nan"), "12 of 12 rows"), (float("inf"), "not finite")])
def test_scores_that_are_not_finite_stop_with_row_ids(
    value: float, sentence: str, tmp_path: Path, make_params: Callable[..., Params]
) -> None:
    model = tiny.reward_model("llama", PLAIN)
    torch.nn.init.constant_(model.score.weight, value)
    rater = load(make_params, tiny.save(model, PLAIN, tmp_path / "reward"), "train")
    with pytest.raises(UserError, match=rf"{sentence}.*tiny/train/000000.*reward_model.dtype to float32"):
        rater.rate(ROWS, "test")
