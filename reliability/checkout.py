"""A clone of this project with small parameters, to do harm to, and checks that nothing in it is broken."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from clha_core import paths
from clha_core.params.rewrite import rewrite_params

ROOT = Path(__file__).resolve().parents[1]
UP_TO_DATE = "Data and pipelines are up to date."

# Every stage does what it always does, on as little as possible: what takes time is starting Python.
SMALL = {
    "sample.train_pairs": 120,
    "sample.test_pairs": 30,
    "data.validation_share": 0.15,
    "validate.min_rows": 5,
    "policy.scratch.vocab_size": 330,
    "policy.scratch.hidden_size": 32,
    "policy.scratch.steps": 20,
    "reward_model.train.max_steps": 4,
    "sft.max_steps": 4,
    "sft.eval_steps": 2,
    "train.reward_gap": 0.0,
    "train.max_steps": 8,
    "train.eval_steps": 2,
    "evaluate.prompts": 20,
    "evaluate.max_new_tokens": 12,
    "evaluate.bootstrap_samples": 200,
}


class Checkout:
    """A clone at `root`; commands in it see nothing of the environment's MLflow server or flow run.

    Attributes:
        logs: folder for the output of commands; it may have to be on another disk.
    """

    def __init__(self, root: Path, logs: Path) -> None:
        self.root, self.logs = root, logs

    @staticmethod
    def environment() -> dict[str, str]:
        """This process' environment; stages find this interpreter as `python`."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "CLHA_"))}
        return kept | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": "",  # the clone's own code, not that of the checkout which does the harm
            "DVC_NO_ANALYTICS": "1",
            "OMP_NUM_THREADS": "1",
        }

    def start(self, *arguments: str, log: Path) -> subprocess.Popen[bytes]:
        """A DVC command as the leader of a process group of its own, its output in `log`."""
        with log.open("wb") as stream:
            return subprocess.Popen(
                [sys.executable, "-m", "dvc", *arguments],
                cwd=self.root,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def dvc(self, *arguments: str) -> tuple[int, str]:
        """Exit status and output of a DVC command."""
        log = self.logs / "dvc.log"
        status = self.start(*arguments, log=log).wait()
        return status, log.read_text(encoding="utf-8", errors="replace")

    @property
    def lock(self) -> Path:
        return self.root / "dvc.lock"

    def outs(self) -> dict[str, list[dict[str, Any]]]:
        """What dvc.lock says of the outputs of every stage, in the order of the stages that ran."""
        stages = yaml.safe_load(self.lock.read_text(encoding="utf-8"))["stages"]
        return {name: stage["outs"] for name, stage in stages.items()}

    def cached(self, md5: str) -> Path:
        """The cache's file of a hash."""
        return self.root / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]

    def files_of(self, out: Mapping[str, Any]) -> dict[str, str]:
        """md5 of every file of an output, by path."""
        if not out["md5"].endswith(".dir"):
            return {out["path"]: out["md5"]}
        listed = json.loads(self.cached(out["md5"]).read_bytes())
        return {f"{out['path']}/{entry['relpath']}": entry["md5"] for entry in listed}

    def damage(self) -> Iterator[str]:
        """A sentence for everything that is not as it should be after a whole `dvc repro`."""
        # Half a copy that DVC could not finish has a name beginning with a dot, and nothing refers to it.
        for file in (self.root / ".dvc" / "cache" / "files" / "md5").glob("??/[!.]*"):
            if _md5(file) != (file.parent.name + file.name).removesuffix(".dir"):
                yield f"the cache has a file that is not what its name says: {file.name}"
        status, text = self.dvc("status")  # removes such files from the cache
        if status or UP_TO_DATE not in text:
            yield f"dvc status: {text.strip()[-500:]}"
        for out in (out for outs in self.outs().values() for out in outs):
            expected = self.files_of(out)
            place = self.root / out["path"]
            there = [file for file in place.rglob("*") if file.is_file()] if place.is_dir() else [place]
            found = {file.relative_to(self.root).as_posix(): _md5(file) for file in there}
            for path in sorted(expected.keys() ^ found.keys()):
                yield f"{path} is {'missing' if path in expected else 'left over'}"
            yield from (
                f"{path} has other bytes" for path in expected.keys() & found.keys() if expected[path] != found[path]
            )
        changed = _git(self.root, "status", "--porcelain", "--untracked-files=all").splitlines()
        yield from (f"left over: {line[3:]}" for line in changed if line.startswith("??"))
        for folder in ("trainings", "rescore"):
            yield from (f"left over: {path}" for path in (self.root / paths.SCRATCH / folder).glob("*"))


def _md5(file: Path) -> str:
    return hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()


def commit_of(root: Path) -> str:
    """The commit that a checkout stands on."""
    return _git(root, "rev-parse", "HEAD").strip()


def trees_of(root: Path) -> str:
    """What the stages are, in the commit of a checkout: their code, graph and parameters."""
    return _git(root, "rev-parse", *(f"HEAD:{part}" for part in ("clha_core", "dvc.yaml", "params.yaml")))


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout


def clone(destination: Path, logs: Path, changes: Mapping[str, Any]) -> Checkout:
    """The last commit of this project in a folder of its own, with some parameters changed."""
    logs.mkdir(parents=True, exist_ok=True)
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(destination)], check=True)
    rewrite_params(destination / paths.PARAMS, changes, "the campaign")
    return Checkout(destination, logs)
