"""SIGKILL at random moments of `dvc repro`, then the same command again: the bytes have to be those of a quiet run.

To kill a late stage, the stages before it need not run again: each kill begins with the checkout as it is when
everything before that stage is done. DVC's cache keeps nothing of the stage itself, so that all of it happens: its
computation, its outputs, DVC's copies of them in the cache, the lock file.
"""

import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from reliability.checkout import SMALL, Checkout, clone, commit_of

RUNNING = re.compile(r"^Running stage '([^']+)'", re.MULTILINE)
DONE_SECONDS = 600.0
# Half of the moments fall into the end of a stage, where it writes and DVC takes over its outputs.
LATE_SHARE = 0.5
LATE_FROM = 0.7

# group: everything, as when a machine loses power. stage: only the stage. dvc: only DVC, whose stage lives on.
MODES = ("group", "stage", "dvc")


@dataclass(frozen=True)
class Kill:
    """One planned kill: `moment` is the share of the stage's time, DVC's start and end included, that has passed."""

    number: int
    stage: str
    mode: str
    moment: float


@dataclass(frozen=True)
class Outcome:
    """What a kill met and what the next `dvc repro` made of it.

    Attributes:
        seconds: after the start of `dvc repro`.
        running: the stage that was running, or "dvc" before and after it.
        wrote: whether outputs of the stage were there already.
        seconds_again: of the `dvc repro` after the kill.
        damage: sentences; none if all is well.
    """

    number: int
    stage: str
    mode: str
    seconds: float
    running: str
    wrote: bool
    seconds_again: float
    damage: list[str]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def plan(stages: Sequence[str], count: int, seed: int) -> list[Kill]:
    """So many kills, by turns over the stages and the ways to kill; the moments are random."""
    chance = random.Random(seed)
    kills = []
    for number in range(count):
        late = chance.random() < LATE_SHARE
        moment = chance.uniform(LATE_FROM if late else 0.0, 1.0)
        place = number % len(stages)
        kills.append(Kill(number, stages[place], MODES[(number // len(stages) + place) % len(MODES)], moment))
    return kills


class Reference:
    """A checkout after a quiet `dvc repro`: what the bytes should be, and how long every stage took.

    Args:
        folder: where the checkout is kept; one that is there already is used again if it is of the same commit.
    """

    def __init__(self, folder: Path) -> None:
        self.checkout = Checkout(folder / "checkout")
        timings = folder / "seconds.yaml"
        if not timings.exists() or commit_of(self.checkout.root) != commit_of(Path()):
            shutil.rmtree(folder, ignore_errors=True)
            self.checkout = clone(folder / "checkout", SMALL)
            timings.write_text(yaml.safe_dump(_quiet_run(self.checkout)), encoding="utf-8")
            (folder / "dvc.lock").write_bytes(self.checkout.lock.read_bytes())
        self.seconds: dict[str, float] = yaml.safe_load(timings.read_text(encoding="utf-8"))
        self.lock = (folder / "dvc.lock").read_bytes()

    def rewind(self, stage: str) -> None:
        """Back to the moment before `stage`: neither the workspace nor the cache has anything of it.

        What comes after it is gone from the workspace and waits in DVC's run cache.
        """
        self.checkout.lock.write_bytes(self.lock)
        outs = self.checkout.outs()
        order = list(self.seconds)
        later = order[order.index(stage) :]
        shared = {md5 for name in outs if name != stage for out in outs[name] for md5 in self._hashes(out)}
        own = {md5 for out in outs[stage] for md5 in self._hashes(out)} - shared
        written = {out["path"] for out in outs[stage]}
        for name in later:
            for out in outs[name]:
                place = self.checkout.root / out["path"]
                shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
        for md5 in own:
            self.checkout.cached(md5).unlink(missing_ok=True)
        for entry in (self.checkout.root / ".dvc" / "cache" / "runs").glob("??/*/*"):
            if {out["path"] for out in yaml.safe_load(entry.read_text(encoding="utf-8"))["outs"]} == written:
                entry.unlink()
        locked = yaml.safe_load(self.lock)
        locked["stages"] = {name: locked["stages"][name] for name in order if name not in later}
        self.checkout.lock.write_text(yaml.safe_dump(locked, sort_keys=False), encoding="utf-8")

    def _hashes(self, out: dict[str, Any]) -> set[str]:
        return {out["md5"], *(self.checkout.files_of(out).values() if self.checkout.cached(out["md5"]).exists() else ())}

    def suffer(self, kill: Kill) -> Outcome | None:
        """Carry out a kill and the run after it; None if `dvc repro` had ended before the moment came."""
        self.rewind(kill.stage)
        log = self.checkout.root.parent / "killed.log"
        started = time.monotonic()
        process = self.checkout.start("repro", log=log)
        try:
            process.wait(kill.moment * (self.seconds[kill.stage] + self.seconds["dvc"]))
            return None
        except subprocess.TimeoutExpired:
            seconds = time.monotonic() - started
        stage_lives = _kill(process, kill.mode)
        process.wait(DONE_SECONDS)
        ran = RUNNING.findall(log.read_text(encoding="utf-8", errors="replace"))
        outs = self.checkout.root
        wrote = any((outs / out["path"]).exists() for out in yaml.safe_load(self.lock)["stages"][kill.stage]["outs"])
        again = time.monotonic()
        status, text = self.checkout.dvc("repro")
        seconds_again = time.monotonic() - again
        damage = [] if status == 0 else [f"dvc repro: {text.strip()[-800:]}"]
        if status == 0:
            if self.checkout.lock.read_bytes() != self.lock:
                damage.append("dvc.lock is not that of a quiet run")
            damage += self.checkout.damage()
        damage += [f"process {found} was left behind" for found in self.left_behind()]
        running = ran[-1] if ran and stage_lives else "dvc"
        return Outcome(kill.number, kill.stage, kill.mode, round(seconds, 2), running, wrote, round(seconds_again, 1), damage)

    def left_behind(self) -> list[int]:
        """Processes that still work in the checkout."""
        root = str(self.checkout.root.resolve())
        return [found.pid for found in psutil.process_iter(["cwd"]) if found.info["cwd"] == root]


def _kill(process: subprocess.Popen[bytes], mode: str) -> bool:
    """SIGKILL; returns whether a stage was running."""
    stages = psutil.Process(process.pid).children(recursive=True)
    if mode == "dvc":
        process.kill()
    elif mode == "stage" and stages:
        for stage in stages:
            stage.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)
    return bool(stages)


def _quiet_run(checkout: Checkout) -> dict[str, float]:
    """Run everything; seconds by stage, and of DVC alone as "dvc"."""
    log = checkout.root.parent / "quiet.log"
    process = checkout.start("repro", log=log)
    begun: dict[str, float] = {}
    started = time.monotonic()
    while process.poll() is None:
        for stage in RUNNING.findall(log.read_text(encoding="utf-8", errors="replace")):
            begun.setdefault(stage, time.monotonic())
        time.sleep(0.05)
    if process.returncode:
        raise RuntimeError(log.read_text(encoding="utf-8", errors="replace")[-3000:])
    ends = [*list(begun.values())[1:], time.monotonic()]
    seconds = {stage: round(end - start, 2) for (stage, start), end in zip(begun.items(), ends, strict=True)}
    return {**seconds, "dvc": round(next(iter(begun.values())) - started, 2)}
