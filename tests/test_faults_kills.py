"""Killed at random moments and run again, `dvc repro` ends in the bytes of a quiet run. More: `make faults`."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from project import Project

from flows.stage import STAGES
from reliability.checkout import Checkout
from reliability.kills import DVC, MODES, Chain, Kill, Reference, plan

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def reference(pipeline: Project, tmp_path: Path) -> Reference:
    """A clone of the finished pipeline with a cache of its own."""
    root = tmp_path / "checkout"
    pipeline.run("git", "clone", "--quiet", str(pipeline.root), str(root))
    shutil.copytree(pipeline.root / ".dvc" / "cache", root / ".dvc" / "cache")
    seconds = dict.fromkeys(STAGES, 3.0) | {DVC: 1.0}
    return Reference(Checkout(root, tmp_path), (root / "dvc.lock").read_bytes(), seconds)


def test_a_stage_that_was_killed_in_every_way_ends_in_the_same_bytes(reference: Reference) -> None:
    kills = [Kill(mode=mode, moment=moment) for mode, moment in zip(MODES, (0.5, 0.6, 0.7), strict=True)]
    suffered = reference.suffer(Chain(number=0, stage="ingest", kills=kills))
    assert suffered.damage == []
    assert any(kill.seconds for kill in suffered.kills), "nothing was killed: it ended too soon"


def test_damage_is_seen(reference: Reference) -> None:
    reference.checkout.dvc("checkout")
    out = reference.checkout.outs()["ingest"][0]
    path, md5 = next(iter(reference.checkout.files_of(out).items()))
    (reference.checkout.root / path).unlink()
    (reference.checkout.root / path).write_bytes(b"other bytes")
    cached = reference.checkout.cached(md5)
    cached.chmod(0o644)
    cached.write_bytes(b"half")
    (reference.checkout.root / "left.tmp").touch()
    damage = "\n".join(reference.checkout.damage())
    assert f"{path} has other bytes" in damage
    assert f"not what its name says: {cached.name}" in damage
    assert "left over: left.tmp" in damage


def test_moments_are_spread_over_all_stages_and_ways() -> None:
    planned = plan(STAGES, 18, seed=1)
    assert [chain.stage for chain in planned] == [*STAGES, *STAGES]
    assert all({kill.mode for kill in chain.kills} == set(MODES) for chain in planned)
    assert planned == plan(STAGES, 18, seed=1)
    assert planned != plan(STAGES, 18, seed=2)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
def test_a_stage_does_not_outlive_the_dvc_that_started_it(tmp_path: Path) -> None:
    # A stage that says its process id and then works for a minute, and a DVC that has started it.
    stage = "import os, time; from clha_core import cli; "
    stage += "cli.app = lambda: (print(os.getpid(), flush=True), time.sleep(60)); cli.main()"
    dvc = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {stage!r}])"
    environment = {**os.environ, "DVC_STAGE": "train"}
    parent = subprocess.Popen([sys.executable, "-c", dvc], stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    status = Path(f"/proc/{pid}/stat")
    deadline = time.monotonic() + 30
    while status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline, "the stage lives on"
        time.sleep(0.05)
