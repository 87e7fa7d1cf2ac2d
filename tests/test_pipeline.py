"""The whole pipeline on the embedded sample, in small, with the commands that a user types."""

import json
import re
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from listening import beyond_loopback
from mlflow import MlflowClient
from project import Project, clone_with_cache, wait_for

pytestmark = pytest.mark.slow

STAGES = ["ingest", "validate", "policy", "reward_models", "sft", "candidates", "rescore", "train", "evaluate"]


@pytest.fixture
def client(pipeline: Project) -> MlflowClient:
    mlflow.set_tracking_uri(f"sqlite:///{pipeline.root / 'mlflow.db'}")
    return MlflowClient()


def test_make_pipeline_runs_all_stages_and_ends_with_a_table_and_where_to_look(pipeline: Project) -> None:
    assert sorted(pipeline.stages_that_ran(pipeline.printed)) == sorted(STAGES)
    registered, table = pipeline.printed.split("clha summary")
    assert "clha-policy version 1 is" in registered
    for words in ("Gold", "Base", "SFT", "CLHA", "reports/evaluation/report.html", "make mlflow"):
        assert words in table


def test_a_second_repro_runs_nothing(pipeline: Project) -> None:
    output = pipeline.dvc("repro")
    assert pipeline.stages_that_ran(output) == []
    assert "up to date" in output


def test_registering_makes_a_version_that_loads_by_alias_and_is_idempotent(
    pipeline: Project, client: MlflowClient
) -> None:
    again = pipeline.clha("register")
    assert "nothing new came out of training" in again
    (version,) = client.search_model_versions("name = 'clha-policy'")
    alias = "champion" if "is champion" in pipeline.printed else "candidate"
    generate = mlflow.transformers.load_model(f"models:/clha-policy@{alias}")
    assert generate("\n\nHuman: How do I store rice?\n\nAssistant:", max_new_tokens=2)
    assert version.tags["gate.opponent"] == "the base"


def test_the_page_of_a_version_names_the_commit_that_has_its_model(pipeline: Project, client: MlflowClient) -> None:
    (version,) = client.search_model_versions("name = 'clha-policy'")
    page = client.get_model_version(version.name, version.version).description
    log, checkout, restore = re.search(r"```\n(.*?)\n(.*?)\n(.*?)\n```", page, flags=re.S).groups()
    assert checkout == "git checkout COMMIT"
    (commit,) = [line for line in pipeline.run(*log.split()).splitlines() if line.endswith("first run")]
    md5 = log.split("-S ")[1].split()[0]
    outs = pipeline.locked_stages(commit.split()[0])["train"]["outs"]
    assert md5 in [out["md5"] for out in outs if out["path"] == "models/aligned"]
    assert restore.split() == ["dvc", "checkout", "data/ingested", "data/rescored", "models/aligned"]
    run = client.get_run(version.run_id)
    assert run.data.tags["clha.registered_as"].startswith("clha-policy version 1 (")


def test_the_working_tree_is_compared_with_a_registered_version(pipeline: Project) -> None:
    output = pipeline.clha("compare", "here", "1:base", "--json", "compare.json")
    assert "B is the base of clha-policy version 1" in output
    compared = json.loads((pipeline.root / "compare.json").read_text())["metrics"]["A_vs_B"]["total"]
    reported = json.loads((pipeline.root / "metrics/evaluate.json").read_text())["aligned_vs_base"]["total"]
    assert compared == reported


def test_the_mlflow_run_has_parameters_curves_data_figures_and_reports(pipeline: Project, client: MlflowClient) -> None:
    (experiment,) = [found for found in client.search_experiments() if found.name == "clha"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["train.margin"] == "3.0"
    assert run.data.params["policy.scratch.steps"] == "20"
    for name in ("loss/contrastive", "loss/sft", "rewards/margins", "eval_loss"):
        assert len(client.get_metric_history(run.info.run_id, name)) >= 2, name
    for name in (
        "evaluate/total/reward",
        "evaluate/helpful/gold",
        "evaluate/total/win_rate_vs_sft",
        "reward_models/reward/unseen_train/accuracy",
    ):
        assert name in run.data.metrics
    for name in ("rescore/contradiction_rate", "rescore/flips_recall"):
        assert 0 <= run.data.metrics[name] <= 1
    assert any(name.startswith("system/") for name in run.data.metrics)
    digests = {tag.value for data in run.inputs.dataset_inputs for tag in data.tags if tag.key == "dvc.md5"}
    assert digests == {pipeline.locked()["data/ingested"], pipeline.locked()["data/rescored"]}
    assert len(run.data.tags["mlflow.source.git.commit"]) == 40
    for folder, file in (("evaluation", "report.html"), ("rescore", "report.html"), ("rescore", "rescore.json")):
        assert f"{folder}/{file}" in {item.path for item in client.list_artifacts(run.info.run_id, folder)}


def test_verdicts_are_a_table_in_the_models_run_once_however_often_they_are_made(
    pipeline: Project, client: MlflowClient, tmp_path: Path
) -> None:
    for _ in range(2):
        printed = pipeline.clha("judge", "--reward-model", "--out", str(tmp_path))
    assert "aligned against sft, judged by reward-model" in printed
    (run,) = mlflow.search_runs(experiment_names=["clha"], output_format="list")
    (table,) = json.loads(run.data.tags["mlflow.loggedArtifacts"])
    verdicts = mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/{table['path']}")
    assert len(verdicts["data"]) == 20
    assert "outcome" in verdicts["columns"]
    assert "judge/aligned-vs-sft-reward-model/total/win_rate" in run.data.metrics


def test_rows_in_are_rows_accepted_and_quarantined(pipeline: Project) -> None:
    metrics = json.loads((pipeline.root / "metrics/ingest.json").read_text())
    assert metrics["rows_in"] == metrics["accepted"] + metrics["quarantined"] == 300


def test_a_clone_with_the_pulled_data_runs_nothing(pipeline: Project, tmp_path: Path) -> None:
    pipeline.dvc("push")
    subprocess.run(["git", "clone", "--quiet", pipeline.root, tmp_path / "clone"], check=True)
    clone = Project(tmp_path / "clone")
    assert "up to date" in clone.dvc("repro", "--allow-missing", "--dry")
    clone.dvc("pull")
    assert clone.stages_that_ran(clone.dvc("repro")) == []
    assert clone.locked() == pipeline.locked()

    # MLflow has never seen this model there: the record is rebuilt from what DVC kept, once, whoever asks meanwhile.
    with ThreadPoolExecutor() as both:
        printed = list(both.map(clone.clha, ["register", "register"]))
    assert all("version 1 is" in output for output in printed)
    assert sum("nothing new came out of training" in output for output in printed) == 1
    assert "CLHA" in clone.clha("summary")
    mlflow.set_tracking_uri(f"sqlite:///{clone.root / 'mlflow.db'}")
    (run,) = mlflow.search_runs(experiment_names=["clha"], output_format="list")
    assert run.data.tags["clha.record"] == "rebuilt"
    assert len(MlflowClient().get_metric_history(run.info.run_id, "loss/contrastive")) >= 2


def test_changing_the_margin_runs_train_and_what_follows(pipeline: Project) -> None:
    """An experiment changes only what depends on it, and metrics and plots can be compared with the commit before."""
    before = pipeline.locked()
    output = pipeline.dvc("exp", "run", "--name", "wider", "--set-param", "train.margin=5.0")
    assert pipeline.stages_that_ran(output) == ["train", "evaluate"]
    after = pipeline.locked()
    assert after["data/rescored"] == before["data/rescored"]
    assert after["models/aligned"] != before["models/aligned"]
    assert "train.margin" in pipeline.dvc("params", "diff")
    assert "aligned" in pipeline.dvc("metrics", "diff", "--all")
    plots = pipeline.dvc("plots", "diff", "--out", "compare")
    assert (pipeline.root / "compare/index.html").exists(), plots
    assert "wider" in pipeline.dvc("exp", "list")


def test_training_and_evaluating_again_gives_the_same_bytes(pipeline: Project, tmp_path: Path) -> None:
    """tests/test_ui.py runs all stages again."""
    again = clone_with_cache(pipeline, tmp_path / "again")
    output = again.dvc("repro", "--force", "--no-run-cache", "--single-item", "train", "evaluate")
    assert again.stages_that_ran(output) == ["train", "evaluate"]
    assert again.run("git", "diff", "dvc.lock") == ""


def test_the_readmes_python_runs(pipeline: Project) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (pipeline.root / "README.md").read_text(), flags=re.S)
    loading, library = blocks
    alias = "champion" if "is champion" in pipeline.printed else "candidate"
    pipeline.run(sys.executable, "-c", loading.replace("@champion", f"@{alias}"))
    pipeline.run(sys.executable, "-c", library)


def test_dvc_dag_shows_the_stages_in_order(pipeline: Project) -> None:
    assert all(stage in pipeline.dvc("dag") for stage in STAGES)


def test_make_mlflow_serves_the_runs_on_loopback(pipeline: Project) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pipeline.started("make", *pipeline.make_options, "mlflow", f"MLFLOW_PORT={port}") as server:
        client = MlflowClient(tracking_uri=wait_for(f"http://127.0.0.1:{port}", "/health"))
        within, beyond = beyond_loopback(server.pid)
        assert f"127.0.0.1:{port}" in within
        assert beyond == []
        assert client.get_experiment_by_name("clha") is not None


def test_curves_have_no_figures_of_the_clock(pipeline: Project) -> None:
    curves = pd.read_csv(pipeline.root / "curves/train.csv")
    assert {"step", "loss", "eval_loss", "rewards/margins"} <= set(curves.columns)
    assert not [column for column in curves.columns if "second" in column or "runtime" in column]
