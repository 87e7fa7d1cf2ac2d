"""`make clean` removes what can be made again, and nothing that cost money or is still to be sent."""

import shutil
import subprocess
from pathlib import Path

from clha_core import paths
from clha_core.tracking.outbox import outbox_folder
from flows.start import HOME, STATE
from flows.workspace import WORKSPACES

ROOT = Path(__file__).resolve().parents[1]
SCRATCH = ("trainings", "rescore", "vllm", "scoreboard", "reliability", "lock", "logs", "prefect-ui")


def clean(folder: Path) -> None:
    shutil.copy(ROOT / "Makefile", folder)
    subprocess.run(["make", "clean"], cwd=folder, check=True, capture_output=True)


def test_replies_waiting_records_and_workspaces_stay(tmp_path: Path) -> None:
    kept = [paths.KEPT_CANDIDATES, paths.KEPT_ANSWERS, WORKSPACES, STATE.relative_to(HOME) / "prefect"]
    kept += [
        outbox_folder(tmp_path).relative_to(tmp_path),
        paths.SCRATCH / "locks",
        Path("models"),
        Path("mlartifacts"),
    ]
    for folder in (*kept, *(paths.SCRATCH / name for name in SCRATCH)):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "file").touch()
    clean(tmp_path)
    assert {path.relative_to(tmp_path).parent for path in tmp_path.rglob("file")} == set(kept)


def test_there_may_be_nothing_to_clean(tmp_path: Path) -> None:
    clean(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["Makefile"]
