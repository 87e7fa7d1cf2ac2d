"""params.yaml is complete and typed; presets name the same keys and lead back to the committed values."""

import shutil
from pathlib import Path

import pytest
import yaml

from clha_core.errors import UserError
from clha_core.params import flatten, load_params
from clha_core.presets import apply_preset, load_preset, merged, preset_names

ROOT = Path(__file__).resolve().parents[1]
NAMES = preset_names(ROOT / "presets")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "presets", tmp_path / "presets")
    return tmp_path


def test_the_four_presets_are_there() -> None:
    assert NAMES == ["hub-0.5b", "local", "paper", "sample"]


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_sets_the_same_keys(name: str) -> None:
    keys = {key for key, _ in flatten(load_preset(name, ROOT / "presets"))}
    assert keys == {key for key, _ in flatten(load_preset("sample", ROOT / "presets"))}


def test_params_yaml_is_the_preset_sample() -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    assert merged(params, load_preset("sample", ROOT / "presets")) == params


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_and_back_gives_the_same_bytes(checkout: Path, name: str) -> None:
    before = (checkout / "params.yaml").read_bytes()
    apply_preset(name, checkout / "params.yaml")
    expected = load_preset(name, checkout / "presets")["data"]["source"]
    assert load_params(checkout / "params.yaml").data.source == expected
    apply_preset("sample", checkout / "params.yaml")
    assert (checkout / "params.yaml").read_bytes() == before


def test_the_paper_preset_has_the_papers_settings(checkout: Path) -> None:
    apply_preset("paper", checkout / "params.yaml")
    params = load_params(checkout / "params.yaml")
    assert (params.train.margin, params.train.reward_gap, params.train.sft_weight) == (3.0, 3.0, 0.05)
    assert params.train.logp_normalisation == "mean"
    assert (params.policy.max_length, params.policy.max_prompt_length) == (512, 384)
    assert params.reward_model.model != params.reward_model.eval_model


def test_an_unknown_preset_names_those_that_exist(checkout: Path) -> None:
    with pytest.raises(UserError, match=r"hub-0\.5b, local, paper, sample"):
        apply_preset("papr", checkout / "params.yaml")


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("  margin: 3.0", "  margin: -1", "train.margin: Input should be greater than or equal to 0"),
        ("  margin: 3.0", "  margn: 3.0", "train.margn: Extra inputs are not permitted"),
        ("  margin: 3.0\n", "", "train.margin: Field required"),
        (
            "  method: clha",
            "  method: clah",
            "train.method: Input should be 'clha', 'sft'",
        ),
        (
            "    rows_per_micro_batch: 16",
            "    rows_per_micro_batch: 5",
            "reward_model.train: Value error, rows_per_micro_batch must divide rows_per_step",
        ),
        ("\ntrain:", "\ntrain: [", "not valid YAML"),
    ],
)
def test_a_wrong_parameter_is_named(checkout: Path, old: str, new: str, sentence: str) -> None:
    text = (checkout / "params.yaml").read_text()
    assert old in text
    (checkout / "params.yaml").write_text(text.replace(old, new))
    with pytest.raises(UserError) as error:
        load_params(checkout / "params.yaml")
    assert sentence in str(error.value)
