"""After a kill at the wrong moment, DVC works again."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from dvc.lock import make_lock

from flows.mend import mend

STAGE = "stages:\n  one:\n    cmd: cp zero one\n    deps: [zero]\n    outs: [one]\n"
LOCK_CHARACTERS = 251  # of the dvc.lock of this stage, whatever is in the files

# DVC itself, killed while it writes FILE, after so many of its characters.
KILLED = """
import io, os, signal, sys
from dvc.cli import main
from dvc.utils.serialize import _yaml
file, characters = sys.argv[1], int(sys.argv[2])
write = _yaml._dump
def write_some(data, stream):
    if os.path.basename(stream.name) != file:
        return write(data, stream)
    text = io.StringIO()
    write(data, text)
    stream.write(text.getvalue()[:characters])
    stream.flush()
    os.kill(os.getpid(), signal.SIGKILL)
_yaml._dump = write_some
main(["repro"])
"""


def dvc(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    assert dvc(tmp_path, "init", "--no-scm", "--quiet").returncode == 0
    (tmp_path / "dvc.yaml").write_text(STAGE, encoding="utf-8")
    (tmp_path / "zero").write_text("0", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("cut_off", ["", '{"write": {"/data'])
def test_a_lock_file_that_a_kill_cut_off_is_removed(project: Path, cut_off: str) -> None:
    lock = project / ".dvc" / "tmp" / "rwlock"
    lock.parent.mkdir(exist_ok=True)
    lock.write_text(cut_off, encoding="utf-8")
    assert "Unable to read RWLock-file" in dvc(project, "repro").stderr
    assert mend(project) == [f"removed {lock}: a kill had cut it off, and DVC stops at one that it cannot read"]
    assert dvc(project, "repro").returncode == 0


@pytest.mark.parametrize("cut_off", ["", "schema: '2.0'\nstages:\n  one:\n", "schema: '2.0'\nstages:\n  one:\n    cm"])
def test_a_dvc_lock_that_a_kill_cut_off_is_made_again_without_running_anything(project: Path, cut_off: str) -> None:
    assert dvc(project, "repro").returncode == 0
    lock = project / "dvc.lock"
    whole = lock.read_text(encoding="utf-8")
    lock.write_text(cut_off, encoding="utf-8")
    assert dvc(project, "repro").returncode != 0
    assert len(mend(project)) == 1
    assert "is cached - skipping run" in dvc(project, "repro").stdout
    assert lock.read_text(encoding="utf-8") == whole


@pytest.mark.parametrize("share", [0.0, 0.4, 0.99])
@pytest.mark.parametrize("before", ["nothing", "another lock"])
def test_a_kill_while_dvc_writes_its_lock_loses_nothing(project: Path, share: float, before: str) -> None:
    lock = project / "dvc.lock"
    if before == "another lock":
        assert dvc(project, "repro").returncode == 0
        (project / "zero").write_text("1", encoding="utf-8")
    characters = int(share * LOCK_CHARACTERS)
    killed = subprocess.run([sys.executable, "-c", KILLED, lock.name, str(characters)], cwd=project, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(lock.read_text(encoding="utf-8")) == characters
    mend(project)
    assert dvc(project, "repro").returncode == 0
    assert (project / "one").read_text(encoding="utf-8") == (project / "zero").read_text(encoding="utf-8")
    assert len(lock.read_text(encoding="utf-8")) == LOCK_CHARACTERS
    assert "didn't change, skipping" in dvc(project, "repro").stdout


def test_a_lock_that_somebody_may_hold_stays(project: Path) -> None:
    lock = project / ".dvc" / "tmp" / "rwlock"
    lock.parent.mkdir(exist_ok=True)
    held = json.dumps({"write": {str(project / "one"): {"pid": os.getpid(), "cmd": "dvc repro"}}})
    lock.write_text(held, encoding="utf-8")
    assert mend(project) == []
    assert lock.read_text(encoding="utf-8") == held


def test_a_dvc_lock_that_is_committed_is_put_back(project: Path) -> None:
    lock = project / "dvc.lock"
    lock.write_text("schema: '2.0'\n", encoding="utf-8")
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "--quiet"], ["add", "dvc.lock"], [*identity, "commit", "--quiet", "--message=one"]):
        subprocess.run(["git", *arguments], cwd=project, check=True)
    lock.write_text("", encoding="utf-8")
    assert len(mend(project)) == 1
    assert lock.read_text(encoding="utf-8") == "schema: '2.0'\n"


def test_marks_of_a_conflict_are_the_users_to_resolve(project: Path) -> None:
    lock = project / "dvc.lock"
    lock.write_text("schema: '2.0'\n<<<<<<< HEAD\n=======\n>>>>>>> other\n", encoding="utf-8")
    assert mend(project) == []
    assert lock.exists()


def test_a_dvc_lock_that_dvc_is_writing_stays(project: Path) -> None:
    (project / "dvc.lock").write_text("", encoding="utf-8")
    temporary = project / ".dvc" / "tmp"
    temporary.mkdir(exist_ok=True)
    with make_lock(str(temporary / "lock"), tmp_dir=str(temporary)):
        assert mend(project) == []
    assert len(mend(project)) == 1


def test_empty_folders_of_the_run_cache_are_removed_once_nobody_can_be_filling_them(project: Path) -> None:
    assert dvc(project, "repro").returncode == 0
    ((kept,),) = [list(folder.iterdir()) for folder in (project / ".dvc" / "cache" / "runs").glob("??/*")]
    new, old = (kept.parents[1] / name for name in ("1" * 64, "0" * 64))
    new.mkdir()
    old.mkdir()
    minutes_ago = time.time() - 600
    os.utime(old, (minutes_ago, minutes_ago))
    assert len(mend(project)) == 1
    assert new.exists()
    assert not old.exists()
    assert kept.exists()
