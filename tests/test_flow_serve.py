"""What the form in Prefect's UI starts from, and what it may send."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.exceptions import ParameterTypeError

from clha_core.errors import UserError
from clha_core.params import parse_params
from clha_core.presets import load_preset, merged, preset_names
from flows.pipeline import clha
from flows.registry import registry_deployments
from flows.serve import deployments, preset_description, preset_parameters

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("name", preset_names(ROOT / "presets"))
def test_the_form_of_a_preset_is_filled_with_the_preset_over_params_yaml(name: str) -> None:
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    expected = parse_params(merged(values, load_preset(name, ROOT / "presets")), name)
    submitted: dict[str, Any] = clha.validate_parameters(preset_parameters(name))
    assert submitted["params"].model_dump() == expected.model_dump()


def test_the_form_may_leave_an_empty_list_out_and_nothing_else() -> None:
    parameters = preset_parameters(preset_names(ROOT / "presets")[0])
    del parameters["params"]["data"]["subsets"]
    candidates = parameters["params"]["candidates"]
    del candidates["policy"]["models"]
    for name in ("models", "prompt_prices", "completion_prices"):
        del candidates["endpoint"][name]
    params = clha.validate_parameters(parameters)["params"]
    assert (params.data.subsets, params.candidates.policy.models, params.candidates.endpoint.models) == ([], [], [])
    del parameters["params"]["data"]["source"]
    with pytest.raises(ParameterTypeError, match="source"):
        clha.validate_parameters(parameters)


def test_every_preset_is_a_deployment() -> None:
    assert [deployment.name for deployment in deployments()] == preset_names(ROOT / "presets")


def test_every_operation_of_the_registry_is_a_deployment_with_a_form_that_explains_itself() -> None:
    made = {deployment.name: deployment for deployment in registry_deployments()}
    assert set(made) == {"compare", "registry-list", "registry-promote", "registry-rollback"}
    for deployment in made.values():
        fields = deployment._parameter_openapi_schema.model_dump()["properties"]
        assert all(field["description"] for field in fields.values())


def test_a_deployment_says_what_its_preset_says_of_itself(tmp_path: Path) -> None:
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "x.yaml").write_text("# One line,\n# and another.\na: 1\n# not this\n", encoding="utf-8")
    assert preset_description("x", tmp_path).startswith("One line, and another.\n\nRun > Custom run")


def test_an_unknown_preset_is_an_error() -> None:
    with pytest.raises(UserError, match="no preset 'nothing'"):
        preset_parameters("nothing")


def test_the_form_offers_choices_bounds_and_help() -> None:
    train = clha.parameters.definitions["TrainParams"]["properties"]
    assert "clha" in train["method"]["enum"]
    assert train["margin"]["minimum"] == 0
    assert train["reward_gap"]["description"]


def test_a_value_out_of_bounds_is_refused_before_anything_runs() -> None:
    parameters = preset_parameters(preset_names(ROOT / "presets")[0])
    parameters["params"]["train"]["margin"] = -1
    with pytest.raises(ParameterTypeError, match="margin"):
        clha.validate_parameters(parameters)
