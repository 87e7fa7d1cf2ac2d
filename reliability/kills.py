"""SIGKILL at random moments of `dvc repro`, then the same again: the bytes have to be those of a quiet run.

"The same" is what `make pipeline` does: `python -m flows.mend`, then `dvc repro`.

To kill a late stage, the stages before it need not run again: the kills begin with the checkout as it is when
everything before that stage is done. DVC's cache keeps nothing of the stage itself, so that all of it happens: its
computation, its outputs, DVC's copies of them in the cache, the lock file.
"""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import psutil
import yaml
from pydantic import BaseModel

from flows.mend import mend
from reliability.checkout import ROOT, SMALL, Checkout, clone, commit_of, trees_of
from reliability.results import write

RUNNING = re.compile(r"^Running stage '([^']+)'", re.MULTILINE)
DONE_SECONDS = 600.0
TRIES = 4  # of a kill whose `dvc repro` had ended before
# Half of the moments fall into the end of a stage, where it writes and DVC takes over its outputs.
LATE_SHARE = 0.5
LATE_FROM = 0.7

# group: everything, as when a machine loses power. stage: only the stage. dvc: only DVC, whose stage lives on.
DVC = "dvc"  # where a stage's name would stand: DVC by itself
Mode = Literal["group", "stage", "dvc"]
MODES: tuple[Mode, ...] = ("group", "stage", "dvc")
KILLS_OF_EACH = 2  # in a chain


class Kill(BaseModel):
    """One kill: `moment` is the share of the stage's time, DVC's start and end included, that has passed.

    Attributes:
        seconds: after the start of `dvc repro`, once it has been carried out; None if that had ended before.
        running: the stage that was running then; "dvc" where DVC was at work by itself.
        wrote: whether outputs of the stage were there.
    """

    mode: Mode
    moment: float
    seconds: float | None = None
    running: str = ""
    wrote: bool = False


class Chain(BaseModel):
    """Kills one after the other, each of the `dvc repro` that was to mend the one before; then one that may end.

    Attributes:
        stage: where the kills begin.
        seconds: of the last `dvc repro`.
        mended: what `flows.mend` removed before the next `dvc repro`.
        damage: what was wrong after it; nothing if all is well.
    """

    number: int
    stage: str
    kills: list[Kill]
    commit: str = ""
    seconds: float = 0.0
    mended: list[str] = []
    damage: list[str] = []


def plan(stages: Sequence[str], chains: int, seed: int) -> list[Chain]:
    """Chains by turns over the stages; each has every way to kill equally often. Order and moments are random."""
    chance = random.Random(seed)
    planned = []
    for number in range(chains):
        modes = chance.sample(MODES * KILLS_OF_EACH, len(MODES) * KILLS_OF_EACH)
        kills = [
            Kill(mode=mode, moment=chance.uniform(LATE_FROM if chance.random() < LATE_SHARE else 0.0, 1.0))
            for mode in modes
        ]
        planned.append(Chain(number=number, stage=stages[number % len(stages)], kills=kills))
    return planned


class Reference:
    """A checkout after a quiet `dvc repro`.

    Args:
        lock: its dvc.lock, which has what every byte should be.
        seconds: how long every stage took, in the order of the stages, and DVC by itself.
    """

    def __init__(self, checkout: Checkout, lock: bytes, seconds: dict[str, float]) -> None:
        self.checkout, self.lock, self.seconds = checkout, lock, seconds
        self.stages = [name for name in seconds if name != DVC]

    def rewind(self, stage: str) -> None:
        """Back to the moment before `stage`: neither the workspace nor the cache has anything of it.

        What comes after it is gone from the workspace and waits in DVC's run cache.
        """
        self.checkout.lock.write_bytes(self.lock)
        outs = self.checkout.outs()
        later = self.stages[self.stages.index(stage) :]
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
                shutil.rmtree(entry.parent)  # an empty folder there is a fault that DVC stumbles over
        locked = yaml.safe_load(self.lock)
        locked["stages"] = {name: locked["stages"][name] for name in self.stages if name not in later}
        self.checkout.lock.write_text(yaml.safe_dump(locked, sort_keys=False), encoding="utf-8")

    def differences(self) -> list[str]:
        """A sentence for every stage of which dvc.lock says something else than after the quiet run."""
        before, now = (yaml.safe_load(lock)["stages"] for lock in (self.lock, self.checkout.lock.read_bytes()))
        return [f"dvc.lock has other hashes of {name}" for name in before if before[name] != now.get(name)]

    def _hashes(self, out: dict[str, Any]) -> set[str]:
        return {
            out["md5"],
            *(self.checkout.files_of(out).values() if self.checkout.cached(out["md5"]).exists() else ()),
        }

    def suffer(self, chain: Chain) -> Chain:
        """Carry out the kills, let the next `dvc repro` end, and look at what it left."""
        self.rewind(chain.stage)
        mended: list[str] = []
        suffered = []
        damage: list[str] = []
        for kill in chain.kills:
            suffered.append(self._kill(kill, chain.stage, damage))
            mended += mend(self.checkout.root)
        begun = time.monotonic()
        status, text = self.checkout.dvc("repro")
        seconds = round(time.monotonic() - begun, 1)
        if status:
            damage.append(_failed(text))
        else:
            damage += [*self.checkout.damage(), *self.differences()]
        damage += [f"process {found} was left behind" for found in self.left_behind()]
        done = {"kills": suffered, "commit": commit_of(self.checkout.root), "seconds": seconds}
        return chain.model_copy(update={**done, "mended": mended, "damage": damage})

    def _kill(self, kill: Kill, stage: str, damage: list[str]) -> Kill:
        log = self.checkout.logs / "killed.log"
        for attempt in range(TRIES):
            begun = time.monotonic()
            process = self.checkout.start("repro", log=log)
            try:
                process.wait(kill.moment * (self.seconds[stage] + self.seconds[DVC]))
            except subprocess.TimeoutExpired:
                seconds = round(time.monotonic() - begun, 2)
                break
            if process.returncode:
                damage.append(_failed(log.read_text(encoding="utf-8", errors="replace")))
            # Most of the stage had been done before the kill before this one; or else this machine is faster now.
            if attempt:
                self.seconds[stage] = max(0.5, time.monotonic() - begun - self.seconds[DVC])
            self.rewind(stage)
        else:
            return kill
        at_work = _send_kill(process, kill.mode)
        process.wait(DONE_SECONDS)
        ran = RUNNING.findall(log.read_text(encoding="utf-8", errors="replace"))
        outs = yaml.safe_load(self.lock)["stages"][stage]["outs"]
        wrote = any((self.checkout.root / out["path"]).exists() for out in outs)
        running = ran[-1] if ran and at_work else DVC
        return kill.model_copy(update={"seconds": seconds, "running": running, "wrote": wrote})

    def left_behind(self) -> list[int]:
        """Processes that still work in the checkout."""
        root = str(self.checkout.root.resolve())
        return [found.pid for found in psutil.process_iter(["cwd"]) if found.info["cwd"] == root]


def _failed(text: str) -> str:
    return f"dvc repro: {text.strip()[-800:]}"


def _send_kill(process: subprocess.Popen[bytes], mode: str) -> bool:
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
    log = checkout.logs / "quiet.log"
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
    return {**seconds, DVC: round(next(iter(begun.values())) - started, 2)}


def quiet_reference(folder: Path, root: Path) -> Reference:
    """A reference in a clone at `root`; what is there already is used again if its stages are the same.

    Args:
        folder: for timings and logs.
    """
    checkout, timings, lock = Checkout(root, folder), folder / "seconds.json", folder / "dvc.lock"
    if not timings.exists() or trees_of(root) != trees_of(ROOT):
        for old in (root, folder):
            shutil.rmtree(old, ignore_errors=True)
        checkout = clone(root, folder, SMALL)
        seconds = _quiet_run(checkout)
        shutil.copyfile(checkout.lock, lock)
        timings.write_text(json.dumps(seconds), encoding="utf-8")
    return Reference(checkout, lock.read_bytes(), json.loads(timings.read_text(encoding="utf-8")))


def campaign(chains: int, at_most: int, seed: int, results: Path, scratch: Path) -> list[Chain]:
    """Carry out the chains of which `results` has none yet, `at_most` of them; returns all that have been."""
    done = [Chain.model_validate(line) for line in json.loads(results.read_text())] if results.exists() else []
    reference = quiet_reference(scratch / "logs", scratch / "checkout")
    left = [chain for chain in plan(reference.stages, chains, seed) if chain.number not in {old.number for old in done}]
    for chain in left[:at_most]:
        suffered = reference.suffer(chain)
        print(suffered.model_dump_json(), flush=True)
        done.append(suffered)
        write(results, [chain.model_dump() for chain in done])
    return done
