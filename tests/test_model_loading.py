"""Local folders and pointers load alike; random weights, pickles and wrong heads are refused with a sentence."""

import json
from pathlib import Path

import huggingface_hub
import pytest
import tiny
import torch

from clha_core.errors import UserError
from clha_core.models.loading import load_policy, load_reward_model, load_tokenizer, write_pointer

TOKENIZER = tiny.tokenizer()


@pytest.mark.parametrize("make", [tiny.llama, tiny.qwen2], ids=["llama", "qwen2"])
def test_a_policy_loads_through_a_pointer_as_from_its_folder(tmp_path: Path, make: type) -> None:
    checkpoint = tiny.save(make(TOKENIZER), TOKENIZER, tmp_path / "checkpoint")
    write_pointer(str(checkpoint), None, tmp_path / "base")
    direct = load_policy(checkpoint, dtype="float32").state_dict()
    pointed = load_policy(tmp_path / "base", dtype="float32").state_dict()
    assert all(torch.equal(direct[name], pointed[name]) for name in direct)
    tokenizer = load_tokenizer(tmp_path / "base")
    assert tokenizer.decode(tokenizer(tiny.TEXT)["input_ids"]) == tiny.TEXT


@pytest.mark.parametrize(
    "make",
    [tiny.llama_reward, tiny.qwen2_reward, tiny.gpt_neox_reward, tiny.deberta_reward],
    ids=lambda make: make.__name__,
)
def test_reward_models_load_without_dropout_and_with_all_their_weights(tmp_path: Path, make: type) -> None:
    made = make(TOKENIZER)
    loaded = load_reward_model(tiny.save(made, TOKENIZER, tmp_path / "reward"), dtype="float32")
    assert not loaded.training
    expected = made.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())


def test_the_oasst_checkpoint_format_is_recognised_by_its_model_type(tmp_path: Path) -> None:
    folder = tiny.save(tiny.gpt_neox_reward(TOKENIZER), TOKENIZER, tmp_path / "reward")
    assert json.loads((folder / "config.json").read_text())["model_type"] == "gpt_neox_reward_model"
    assert load_reward_model(folder, dtype="float32").out_proj.bias is not None


def test_a_language_model_is_no_reward_model(tmp_path: Path) -> None:
    folder = tiny.save(tiny.llama(TOKENIZER), TOKENIZER, tmp_path / "policy")
    with pytest.raises(UserError, match=r"lacks weights.*score"):
        load_reward_model(folder, dtype="float32")


def test_two_logits_are_no_reward(tmp_path: Path) -> None:
    config = tiny.llama_reward(TOKENIZER).config
    config.num_labels = 2
    folder = tiny.save(type(tiny.llama_reward(TOKENIZER))(config), TOKENIZER, tmp_path / "reward")
    with pytest.raises(UserError, match="2 labels"):
        load_reward_model(folder, dtype="float32")


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    folder = tiny.save(tiny.llama(TOKENIZER), TOKENIZER, tmp_path / "policy")
    torch.save(tiny.llama(TOKENIZER).state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="Only safetensors"):
        load_policy(folder, dtype="float32")


def test_a_stage_that_did_not_run_yet_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="dvc repro"):
        load_policy(tmp_path / "missing", dtype="float32")


def test_a_model_that_is_nowhere_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="neither a folder nor reachable"):
        write_pointer("someone/nothing", None, tmp_path / "base")


def test_a_missing_pad_token_becomes_the_eos(tmp_path: Path) -> None:
    made = tiny.tokenizer(pad=None)
    made.save_pretrained(tmp_path)
    tiny.llama(TOKENIZER).save_pretrained(tmp_path)
    assert load_tokenizer(tmp_path).pad_token_id == made.eos_token_id
