"""dvc.yaml names the files that the stages really use, and every parameter that they read."""

import ast
import subprocess
from pathlib import Path

import pytest
import yaml
from project import Project

from clha_core import paths
from clha_core.cli import STAGES

ROOT = Path(__file__).resolve().parents[1]
GRAPH = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
PRODUCED = {
    "ingest": {paths.INGESTED, paths.INGEST_METRICS},
    "validate": {paths.DATA_DOCS, paths.VALIDATE_METRICS},
    "policy": {paths.BASE_MODEL},
    "reward_models": {
        paths.REWARD_MODEL,
        paths.EVAL_REWARD_MODEL,
        paths.REWARD_MODEL_REPORT,
        paths.REWARD_MODEL_METRICS,
    },
    "candidates": {paths.CANDIDATES, paths.CANDIDATES_METRICS},
    "rescore": {paths.RESCORED, paths.RESCORE_REPORT, paths.RESCORE_METRICS},
    "sft": {paths.SFT_MODEL, paths.SFT_CURVES},
    "train": {paths.ALIGNED_MODEL, paths.TRAIN_CURVES, paths.TRAIN_METRICS},
    "evaluate": {paths.EVALUATION, paths.EVALUATE_METRICS, paths.SUMMARY_METRICS},
}

# Code that a stage runs but that cannot change its outputs (dialogue.py: but for two, the type of a row).
NOT_IN_RESULTS = {
    Path("clha_core") / name
    for name in (
        *("errors.py", "params", "paths.py", "digest.py", "stages/context.py", "data/dialogue.py"),
        *("replacing.py", "waiting.py", "progress.py"),  # how files are written, by whom first, what is shown
        *("addresses.py", "models/checkpoint_index.py"),  # words of errors, a check
    )
}


def imports_of(path: Path) -> set[Path]:
    """Modules of clha_core that a module names in its import statements, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    modules = [Path(*name.split(".")) for name in names if name.startswith("clha_core.")]
    files = {file for module in modules for file in (module.with_suffix(".py"), module / "__init__.py")}
    return {file for file in files if (ROOT / file).exists()}


def can_change_results(path: Path) -> bool:
    return NOT_IN_RESULTS.isdisjoint({path, *path.parents})


def imported_by(path: Path) -> set[Path]:
    """All modules that a module needs, less the record in MLflow, which is no output."""
    found: set[Path] = set()
    todo = {path}
    while todo:
        found |= todo
        todo = {new for old in todo for new in imports_of(old) if "tracking" not in new.parts} - found
    return found


@pytest.mark.parametrize("stage", GRAPH)
def test_a_stage_writes_what_the_graph_says(stage: str) -> None:
    outs = {Path(out) for key in ("outs", "metrics") for out in GRAPH[stage].get(key, [])}
    assert outs == PRODUCED[stage]


def test_every_stage_is_a_command() -> None:
    assert [stage.replace("_", "-") for stage in GRAPH] == list(STAGES)
    assert all(stage["cmd"].split("clha_core ")[1] == name.replace("_", "-") for name, stage in GRAPH.items())


def test_no_stage_depends_on_prefect_or_mlflow() -> None:
    assert not [dep for stage in GRAPH.values() for dep in stage["deps"] if "flows" in dep or "tracking" in dep]


@pytest.mark.parametrize("stage", GRAPH)
def test_a_stage_depends_on_all_code_that_it_imports(stage: str) -> None:
    deps = [Path(dep) for dep in GRAPH[stage]["deps"]]
    missing = [
        path
        for path in imported_by(Path("clha_core/stages") / f"{stage}.py")
        if NOT_IN_RESULTS.isdisjoint({path, *path.parents})
        and not any(path == dep or dep in path.parents for dep in deps)
    ]
    # The sample's code is what data.path names while data.source is sample.
    assert [path for path in missing if stage != "ingest" or path.parts[1] != "sample"] == []


def test_every_dependency_on_code_exists() -> None:
    code = [dep for stage in GRAPH.values() for dep in stage["deps"] if dep.startswith("clha_core")]
    assert code
    assert all((ROOT / dep).exists() for dep in code)


def test_every_parameter_of_the_graph_is_in_params_yaml() -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for stage in GRAPH.values():
        for dotted in stage["params"]:
            value = params
            for key in dotted.split("."):
                value = value[key]


def test_how_many_rescore_at_once_makes_no_stage_run_again() -> None:
    """Their scores are the same bytes (tests/test_rescore_workers.py, tests/test_rescore_ray.py)."""
    assert not [name for stage in GRAPH.values() for name in stage["params"] if name.split(".")[0] == "rescore"]


def test_the_committed_lock_is_true(tmp_path: Path) -> None:
    """Without any data, from git alone: code, parameters and dvc.lock of the last commit belong together."""
    subprocess.run(["git", "clone", "--quiet", ROOT, tmp_path / "clone"], check=True)
    assert "up to date" in Project(tmp_path / "clone").dvc("repro", "--allow-missing", "--dry")
