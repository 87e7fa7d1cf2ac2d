"""Candidates sampled from policies: the same seed gives the same bytes, also after a kill."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml
from candidate_cases import MakeParams, metrics_of, origins_of, read, run, save_policy, write_file, write_rows
from datasets import Dataset

from clha_core import CLHAConfig, CLHATrainer, paths
from clha_core.data.tables import RESCORED_SCHEMA, read_table
from clha_core.digest import file_digest, folder_digest
from clha_core.errors import UserError
from clha_core.models.loading import write_pointer
from clha_core.params import flatten
from clha_core.stages import rescore

PROJECT = Path(__file__).resolve().parents[1]
SAMPLED = {
    "candidates.policy.models": ["models/base"],
    "candidates.policy.samples": 3,
    "candidates.policy.max_new_tokens": 24,
    "candidates.policy.batch_size": 4,
}


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policies")
    save_policy(folder / "base")
    save_policy(folder / "sft", seed=1)
    return folder


@pytest.fixture
def root(tmp_path: Path, policies: Path) -> Path:
    write_rows(tmp_path)
    shutil.copytree(policies, tmp_path / "models")
    return tmp_path


def outputs(root: Path) -> tuple[str, Any]:
    return folder_digest(root / paths.CANDIDATES), metrics_of(root)


def test_a_row_gets_samples_of_its_own_prompt_with_their_origin(root: Path, make_params: MakeParams) -> None:
    metrics = run(root, make_params(SAMPLED))
    counts = metrics["by_origin"]["policy:models/base"]
    assert counts["generated"] == 3 * 8
    assert counts["added"] >= 12
    rows = read(root)
    assert rows[0]["origins"] == ["data", "data", *["policy:models/base"] * (len(rows[0]["origins"]) - 2)]
    assert len({tuple(row["responses"][2:]) for row in rows}) == len(rows)  # no two prompts share their samples


def test_several_models_are_several_origins_each_described(root: Path, make_params: MakeParams) -> None:
    pointed = root / "models/pointed"
    write_pointer(str(root / "models/sft"), None, pointed)
    models = ["models/base", "models/sft", "models/pointed"]
    metrics = run(root, make_params(SAMPLED | {"candidates.policy.models": models}))
    assert set(metrics["by_origin"]) == {f"policy:{model}" for model in models}
    origins = origins_of(root)
    base = origins["policy:models/base"]
    assert base == {
        "kind": "policy",
        "model": "models/base",
        "digest": folder_digest(root / "models/base"),
        "temperature": 1.0,
        "top_p": 1.0,
        "max_new_tokens": 24,
        "seed": 61,
    }
    # A pointer is described by what it points to; the model there says what models/sft said.
    assert origins["policy:models/pointed"]["model"] == str(root / "models/sft")
    assert metrics["by_origin"]["policy:models/pointed"]["added"] == 0


def test_responses_that_do_not_end_are_dropped(root: Path, make_params: MakeParams) -> None:
    counts = run(root, make_params(SAMPLED | {"candidates.policy.max_new_tokens": 1}))["by_origin"][
        "policy:models/base"
    ]
    assert counts["unfinished"] > 0
    assert counts["generated"] == 24


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(root: Path, make_params: MakeParams) -> None:
    run(root, make_params(SAMPLED))
    first = outputs(root)
    shutil.rmtree(root / paths.KEPT_CANDIDATES)
    run(root, make_params(SAMPLED))
    assert outputs(root) == first
    run(root, make_params(SAMPLED | {"candidates.policy.seed": 62}))
    assert outputs(root) != first


def test_another_row_changes_no_other_rows_samples(
    root: Path, tmp_path_factory: pytest.TempPathFactory, make_params: MakeParams
) -> None:
    run(root, make_params(SAMPLED))
    more = tmp_path_factory.mktemp("more")
    write_rows(more, train=9)
    shutil.copytree(root / "models", more / "models")
    run(more, make_params(SAMPLED))
    assert read(more)[:6] == read(root)


def test_rows_that_are_full_are_not_sampled_for(root: Path, make_params: MakeParams) -> None:
    write_file(root, "mine.jsonl", {"id": "tiny/train/000000", "responses": ["one", "two"]})
    metrics = run(root, make_params(SAMPLED | {"candidates.max_candidates": 4}))
    assert metrics["by_origin"]["policy:models/base"]["generated"] == 2 * 7
    assert read(root)[0]["responses"] == ["good 0", "bad 0", "one", "two"]


def test_finished_batches_are_kept_and_the_rest_is_sampled_anew(root: Path, make_params: MakeParams) -> None:
    run(root, make_params(SAMPLED))
    first = outputs(root)
    batches = sorted((root / paths.KEPT_CANDIDATES / "batches").iterdir())
    assert len(batches) == 6
    ages = {batch: batch.stat().st_mtime_ns for batch in batches}
    for batch in batches[:2]:
        batch.unlink()
    run(root, make_params(SAMPLED))
    assert outputs(root) == first
    renewed = [batch for batch in batches if batch.stat().st_mtime_ns != ages[batch]]
    assert renewed == batches[:2]


def test_other_weights_in_the_same_folder_are_another_policy(root: Path, make_params: MakeParams) -> None:
    run(root, make_params(SAMPLED))
    first = read(root)
    shutil.rmtree(root / "models/base")
    shutil.copytree(root / "models/sft", root / "models/base")
    run(root, make_params(SAMPLED))
    assert read(root) != first


def test_a_model_that_is_nowhere_is_an_error_before_anything_is_sampled(
    root: Path, make_params: MakeParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="nobody/nothing"):
        run(root, make_params(SAMPLED | {"candidates.policy.models": ["models/base", "nobody/nothing@main"]}))
    assert not (root / paths.KEPT_CANDIDATES / "batches").exists()


def test_two_candidates_become_five_and_are_rescored_and_trained_on(root: Path, make_params: MakeParams) -> None:
    made = tiny.tokenizer()
    tiny.save(tiny.llama_reward(made), made, root / paths.REWARD_MODEL)
    params = make_params(SAMPLED | {"candidates.policy.samples": 6, "candidates.max_candidates": 5})
    metrics = run(root, params)
    assert metrics["rows_by_candidates"].get("5", 0) >= 4
    before = {row["id"]: row for row in read(root)}
    rescore.run(params, root)
    table = read_table(root / paths.RESCORED / "train.parquet", RESCORED_SCHEMA)
    for row in table.to_pylist():
        assert row["rewards"] == sorted(row["rewards"], reverse=True)
        given = before[row["id"]]
        columns = ("responses", "sources", "origins")
        ranked = list(zip(*(row[name] for name in columns), strict=True))
        assert sorted(ranked) == sorted(zip(*(given[name] for name in columns), strict=True))
        assert [origin != "data" for origin in row["origins"]] == [source == "augmented" for source in row["sources"]]
    args = CLHAConfig(
        output_dir=str(root / "run"), rows_per_step=4, max_steps=2, use_cpu=True, max_length=96, max_prompt_length=64
    )
    trainer = CLHATrainer(tiny.llama(made), args, Dataset(table), processing_class=made)
    assert trainer.train().training_loss > 0


@pytest.mark.slow
def test_a_killed_sampling_goes_on_where_it_was_and_ends_in_the_same_bytes(
    root: Path, tmp_path_factory: pytest.TempPathFactory, make_params: MakeParams
) -> None:
    shutil.rmtree(root / paths.INGESTED)
    shutil.rmtree(root / "data/augmented")
    write_rows(root, train=40)
    params = make_params(SAMPLED | {"candidates.policy.batch_size": 2})
    values = yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
    values["candidates"] = params.candidates.model_dump()
    (root / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    whole = tmp_path_factory.mktemp("whole") / "root"
    shutil.copytree(root, whole)
    run(whole, params)

    process = subprocess.Popen(
        [sys.executable, "-m", "clha_core", "candidates"],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        stderr=subprocess.DEVNULL,
    )
    batches = root / paths.KEPT_CANDIDATES / "batches"
    while len(list(batches.glob("*.json"))) < 5 and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it ended before it was killed"
    kept = {batch: file_digest(batch) for batch in batches.glob("*.json")}
    assert 5 <= len(kept) < 63
    assert all(json.loads(batch.read_text()) for batch in kept)

    run(root, params)
    assert outputs(root) == outputs(whole)
    assert {batch: file_digest(batch) for batch in kept} == kept


def test_parameters_are_flat_names_that_dvc_and_mlflow_can_take(make_params: MakeParams) -> None:
    names = dict(flatten(make_params(SAMPLED).model_dump(by_alias=True)))
    assert names["candidates.policy.models"] == ["models/base"]
    assert names["candidates.policy.temperature"] == 1.0
