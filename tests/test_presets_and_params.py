"""params.yaml is complete and typed; presets name the same keys and lead back to the committed values."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from dvc.utils.hydra import apply_overrides

from clha_core.errors import UserError
from clha_core.params import Params, flatten, load_params
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


def test_dvc_changes_a_parameter_and_no_other_line(checkout: Path) -> None:
    before = (checkout / "params.yaml").read_text(encoding="utf-8")
    apply_overrides(checkout / "params.yaml", ["train.margin=1.0"])
    after = (checkout / "params.yaml").read_text(encoding="utf-8")
    assert after == before.replace("  margin: 3.0", "  margin: 1.0")


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
        ("  margin: 3.0", "  margin: -1", "train.margin: Input should be greater than or equal to 0; it is -1."),
        ("  margin: 3.0", "  margn: 3.0", "train.margn: there is no such parameter; did you mean train.margin?"),
        ("  margin: 3.0\n", "  margin: 3.0\n  tuning: 1\n", "train.tuning: there is no such parameter."),
        ("  margin: 3.0\n", "", "train.margin: is missing."),
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


def test_every_parameter_says_what_it_is() -> None:
    """Prefect's form shows it."""
    schema = Params.model_json_schema()
    sections = [schema, *schema["$defs"].values()]
    assert [
        (section["title"], name)
        for section in sections
        for name, field in section.get("properties", {}).items()
        if not field.get("description") and "$ref" not in field
    ] == []


@pytest.mark.parametrize(("name", "said"), [("local", "put your data into data/hh-rlhf"), ("sample", "0 keys changed")])
def test_using_a_preset_says_what_is_still_missing(checkout: Path, name: str, said: str) -> None:
    command = [sys.executable, "-m", "clha_core", "use", name]
    assert said in subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True).stdout


def test_all_presets_are_named_on_demand(checkout: Path) -> None:
    command = [sys.executable, "-m", "clha_core", "use"]
    printed = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True).stdout
    assert "hub-0.5b, local, paper, sample" in printed


def test_outside_of_a_project_the_folder_is_named_and_not_the_preset(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run the command from the project's root"):
        apply_preset("local", tmp_path / "params.yaml")
