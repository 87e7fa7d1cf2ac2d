"""The disk is full: a sentence, and the same bytes once there is space."""

import os
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from project import SMALL
from safetensors import SafetensorError
from safetensors.torch import save_file

from clha_core import paths
from clha_core.digest import folder_digest
from clha_core.explain import sentence_for
from clha_core.params.rewrite import rewrite_params

ROOT = Path(__file__).resolve().parents[1]
BYTES_A_FILE = 4096
TENSOR = torch.zeros(10_000)


def write_text(path: Path) -> None:
    path.write_text("x" * 10_000, encoding="utf-8")


def write_checkpoint(path: Path) -> None:
    torch.save({"weight": TENSOR}, path)


def write_weights(path: Path) -> None:
    save_file({"weight": TENSOR}, path)


def write_parquet(path: Path) -> None:
    pq.write_table(pa.table({"a": list(range(10_000))}), path)


@pytest.fixture
def small_files() -> Iterator[None]:
    """The system refuses to write files longer than BYTES_A_FILE, as a full disk refuses all."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (BYTES_A_FILE, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    "write", [write_text, write_checkpoint, write_weights, write_parquet], ids=lambda write: write.__name__
)
def test_whichever_library_was_writing_the_sentence_is_the_same(
    write: Callable[[Path], None], small_files: None, tmp_path: Path
) -> None:
    with pytest.raises((OSError, RuntimeError, SafetensorError)) as caught:
        write(tmp_path / "file")
    assert "the disk is full" in (sentence_for(caught.value) or "")


def test_a_full_database_is_a_full_disk() -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("PRAGMA max_page_count = 3")
    connection.execute("CREATE TABLE metrics (value TEXT)")
    with pytest.raises(sqlite3.OperationalError) as caught:
        connection.executemany("INSERT INTO metrics VALUES (?)", [("x" * 1000,)] * 100)
    assert "the disk is full" in (sentence_for(caught.value) or "")


def test_an_error_of_ours_keeps_its_traceback() -> None:
    assert sentence_for(ZeroDivisionError("division by zero")) is None


def ingest(folder: Path, bytes_a_file: int = resource.RLIM_INFINITY) -> subprocess.CompletedProcess[str]:
    """The stage in `folder`, where a file may be at most so large: the system then refuses to write, as a full disk."""
    shutil.copy(ROOT / paths.PARAMS, folder)
    rewrite_params(folder / paths.PARAMS, {name: value for name, value in SMALL.items() if "sample" in name}, "test")
    return subprocess.run(
        [sys.executable, "-m", "clha_core", "ingest"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_a_file, bytes_a_file)),
    )


def test_a_stage_that_found_the_disk_full_makes_the_same_bytes_once_there_is_space(tmp_path: Path) -> None:
    quiet, suffered = tmp_path / "quiet", tmp_path / "suffered"
    for folder in (quiet, suffered):
        folder.mkdir()
    assert ingest(quiet).returncode == 0

    failed = ingest(suffered, bytes_a_file=BYTES_A_FILE)
    assert failed.returncode == 1
    assert "error: the disk is full" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert not (suffered / paths.INGEST_METRICS).exists()

    assert ingest(suffered).returncode == 0
    assert folder_digest(suffered / paths.INGESTED) == folder_digest(quiet / paths.INGESTED)
