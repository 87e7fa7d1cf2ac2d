"""The preset `local` on real HH rows: a folder in HH layout goes through all five steps."""

import json
import sys
from pathlib import Path

import pandas as pd
import pytest
from project import SMALL, copy_project

pytestmark = pytest.mark.slow

# In one process: what DVC does with the stages is no other for another preset.
REMAINING_STAGES = """
from importlib import import_module
from clha_core.params import load_params
for stage in ("policy", "reward_models", "sft", "candidates", "rescore", "train", "evaluate"):
    import_module(f"clha_core.stages.{stage}").run(load_params())
"""


def test_real_hh_rows_go_through_every_step(hh_slice: Path, tmp_path: Path) -> None:
    project = copy_project(tmp_path / "project", {})
    project.clha("use", "local")
    shorter = {key: value for key, value in SMALL.items() if not key.startswith(("sample", "data", "validate"))}
    project.set_params({**shorter, "data.path": str(hh_slice), "policy.scratch.vocab_size": 600})

    project.dvc("repro", "validate")
    project.run(sys.executable, "-c", REMAINING_STAGES)

    ingest = json.loads((project.root / "metrics/ingest.json").read_text())
    assert ingest["rows_in"] == 2000
    assert ingest["rows_in"] == ingest["accepted"] + ingest["quarantined"]
    assert {"empty_reply", "repeated_speaker"} <= set(ingest["reasons"])
    quarantined = (project.root / "data/ingested/quarantine.jsonl").read_text().splitlines()
    assert len(quarantined) == ingest["quarantined"]
    assert json.loads((project.root / "metrics/validate.json").read_text())["success"]
    rescored = pd.read_parquet(project.root / "data/rescored/train.parquet")
    assert all(list(rewards) == sorted(rewards, reverse=True) for rewards in rescored["rewards"])
    generations = pd.read_parquet(project.root / "reports/evaluation/generations.parquet")
    assert len(generations) == 20
    assert generations["aligned_reward"].notna().all()
    assert "aligned_gold" not in generations  # the truth is known for the embedded sample only
    assert "harmless-base" in json.loads((project.root / "metrics/evaluate.json").read_text())["aligned"]
