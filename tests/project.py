"""A copy of this project in a folder of its own, to run the real commands in."""

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import yaml

ROOT = Path(__file__).resolve().parents[1]

# Nothing that commands write or print may hold them (tests/test_security_secrets.py).
SECRETS = {
    "OPENAI_API_KEY": "sk-secret-of-openai",
    "AWS_ACCESS_KEY_ID": "AKIASECRETOFAWS",
    "AWS_SECRET_ACCESS_KEY": "secret-of-aws",
    "HF_TOKEN": "hf_secret_of_the_hub",
    "MLFLOW_TRACKING_PASSWORD": "secret-of-mlflow",
}

# The whole pipeline in about a minute: few rows, few steps, small models.
SMALL = {
    "sample.train_pairs": 240,
    "sample.test_pairs": 60,
    "data.validation_share": 0.15,
    "validate.min_rows": 5,
    "policy.scratch.vocab_size": 330,
    "policy.scratch.hidden_size": 32,
    "policy.scratch.steps": 20,
    "reward_model.train.folds": 2,
    "reward_model.train.max_steps": 4,
    "sft.max_steps": 4,
    "sft.eval_steps": 2,
    "train.reward_gap": 0.0,
    "train.max_steps": 4,
    "train.eval_steps": 2,
    "evaluate.prompts": 20,
    "evaluate.max_new_tokens": 12,
    "evaluate.bootstrap_samples": 200,
}


@contextmanager
def process_group(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], output: int | IO[bytes]
) -> Iterator[subprocess.Popen[bytes]]:
    """A command that runs until the block ends, and then its whole process group."""
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=output, stderr=output, start_new_session=True
    )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


class Project:
    """A checkout at `root`, with the commands that users type."""

    # `make` without installing anything: the interpreter that runs the tests has it all.
    make_options = ("-o", "install", f"VENV={sys.prefix}")

    def __init__(self, root: Path) -> None:
        self.root = root
        self.printed = ""

    @staticmethod
    def environment() -> dict[str, str]:
        """This process' environment, less what would lead out of the copy; stages find this interpreter as `python`."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "CLHA_"))}
        return kept | {
            **SECRETS,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "DVC_NO_ANALYTICS": "1",
            "OMP_NUM_THREADS": "1",
            # A training in small may be over before the first sample of the default interval.
            "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "0.2",
        }

    def run(self, *command: str, check: bool = True) -> str:
        """Standard output and error of a command, together."""
        result = subprocess.run(
            command,
            cwd=self.root,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert not check or result.returncode == 0, f"{' '.join(command)}:\n{result.stdout[-6000:]}"
        return result.stdout

    def dvc(self, *arguments: str, check: bool = True) -> str:
        return self.run(sys.executable, "-m", "dvc", *arguments, check=check)

    def clha(self, *arguments: str, check: bool = True) -> str:
        return self.run(sys.executable, "-m", "clha_core", *arguments, check=check)

    def make(self, target: str) -> str:
        return self.run("make", *self.make_options, target)

    @contextmanager
    def started(self, *command: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
        """A command that runs until the block ends, and then its whole process group; with more in its environment."""
        with process_group(command, self.root, self.environment() | environment, subprocess.DEVNULL) as process:
            yield process

    def commit(self, message: str) -> None:
        self.run("git", "add", "--all")
        self.run(
            *("git", "-c", "user.name=test", "-c", "user.email=test@example.com"),
            *("commit", "--quiet", "--allow-empty", "-m", message),
        )

    def set_params(self, changes: Mapping[str, Any]) -> None:
        """Change keys of params.yaml, named with dots."""
        path = self.root / "params.yaml"
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        for dotted, value in changes.items():
            *parents, key = dotted.split(".")
            section = values
            for parent in parents:
                section = section[parent]
            assert key in section, f"params.yaml has no {dotted}"
            section[key] = value
        path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")

    def stages_that_ran(self, output: str) -> list[str]:
        """Stages that `dvc repro` executed, from what it printed."""
        return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]

    def locked_stages(self, revision: str) -> dict[str, Any]:
        """What dvc.lock says of every stage, in a revision of git."""
        return yaml.safe_load(self.run("git", "show", f"{revision}:dvc.lock"))["stages"]

    def locked(self) -> dict[str, str]:
        """md5 by output path, as dvc.lock has it."""
        stages = yaml.safe_load((self.root / "dvc.lock").read_text(encoding="utf-8"))["stages"]
        return {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]}


def copy_project(destination: Path, changes: Mapping[str, Any]) -> Project:
    """All files of the working tree that git would track, committed in a repository of their own."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (destination / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, destination / name)
    project = Project(destination)
    project.run("git", "init", "--quiet", "--initial-branch", "main")
    project.set_params(changes)
    project.commit("copy")
    return project


def clone_with_cache(project: Project, destination: Path) -> Project:
    """A clone of what `project` committed, with its outputs, over the same DVC cache."""
    # HEAD is an experiment's for a moment while DVC saves one.
    project.run("git", "clone", "--quiet", "--branch", "main", str(project.root), str(destination))
    clone = Project(destination)
    clone.dvc("config", "--local", "cache.dir", str(project.root / ".dvc" / "cache"))
    clone.dvc("checkout")
    return clone


def wait_for(url: str, path: str, seconds: float = 90) -> str:
    """`url`, once it answers at `path`."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url + path, timeout=5):
                return url
        except (urllib.error.URLError, OSError):
            assert time.monotonic() < deadline, f"{url}{path} did not answer within {seconds} s"
            time.sleep(0.5)
