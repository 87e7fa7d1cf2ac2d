"""How the steps of one run work on machines that share a git remote and a DVC remote, and nothing else.

What a run is beyond its commit are two small files: params.yaml, and dvc.lock, which names every output by its hash.
They travel as a git reference of the run; the outputs travel through the DVC remote, and only once.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from clha_core import paths
from clha_core.errors import UserError
from flows.workspace import dvc, run

STATE = (paths.PARAMS.as_posix(), "dvc.lock")
REMOTE = "exchange"
REFERENCES = "refs/clha/runs"  # no branch: nobody's clone fetches them unasked


@dataclass(frozen=True)
class Exchange:
    """The place where the steps of a run meet: a reference of the git remote."""

    remote: str = field(repr=False)
    reference: str

    def give(self, root: Path) -> None:
        """Put the state of the workspace at `root` there, on top of the commit that it works on."""
        with tempfile.TemporaryDirectory() as scratch:
            # An index of its own: what the workspace has staged stays as it is.
            environment = {**os.environ, "GIT_INDEX_FILE": str(Path(scratch) / "index")}
            run(["git", "read-tree", "HEAD"], root, environment)
            there = [name for name in STATE if (root / name).exists()]
            run(["git", "add", "--force", "--", *there], root, environment)
            tree = run(["git", "write-tree"], root, environment).strip()
        message = f"State of {self.reference}"
        commit = run(["git", "commit-tree", tree, "-p", "HEAD", "-m", message], root).strip()
        self._git(root, "push", "--quiet", REMOTE, f"+{commit}:{self.reference}")

    def take(self, root: Path) -> None:
        """Make the state that is there the one of the workspace at `root`."""
        self.fetch(root)
        there = run(["git", "ls-tree", "--name-only", self.reference, *STATE], root).split()
        run(["git", "restore", "--worktree", "--source", self.reference, "--", *there], root)

    def fetch(self, root: Path) -> str:
        """Fetch it into the repository at `root`.

        Returns:
            The commit of the project that the run works on.
        """
        self._git(root, "fetch", "--quiet", "--no-tags", REMOTE, f"+{self.reference}:{self.reference}")
        return run(["git", "rev-parse", f"{self.reference}^"], root).strip()

    def remove(self, root: Path) -> None:
        """The run has ended: its experiment has all of it."""
        self._git(root, "push", "--quiet", REMOTE, f":{self.reference}")

    def _git(self, root: Path, *arguments: str) -> None:
        """Git with the remote by name: its address may have a password in it, and commands are seen and logged."""
        place = int(os.environ.get("GIT_CONFIG_COUNT", "0"))
        named = {f"GIT_CONFIG_KEY_{place}": f"remote.{REMOTE}.url", f"GIT_CONFIG_VALUE_{place}": self.remote}
        run(["git", *arguments], root, {**os.environ, "GIT_CONFIG_COUNT": str(place + 1), **named})


def exchange_of(home: Path, name: str) -> Exchange:
    """Where the steps of the run called `name` meet.

    Raises:
        UserError: the checkout at `home` lacks a git remote `origin` or a default DVC remote.
    """
    found = subprocess.run(
        ["git", "remote", "get-url", "origin"], cwd=home, capture_output=True, text=True, check=False
    )
    url = found.stdout.strip()
    if found.returncode != 0:
        raise UserError(
            f"steps in work pools meet at the git remote `origin`, and {home} has none: git remote add origin URL."
        )
    if default_dvc_remote(home) is None:
        raise UserError(
            f"steps in work pools exchange their outputs through a DVC remote, and {home} has none: "
            "dvc remote add --default NAME URL."
        )
    remote = str((home / url).resolve()) if (home / url).exists() else url
    return Exchange(remote, f"{REFERENCES}/{name}")


def default_dvc_remote(root: Path) -> str | None:
    """The name of the DVC remote that `dvc push` uses, if there is one."""
    result = subprocess.run(
        [sys.executable, "-m", "dvc", "config", "core.remote"], cwd=root, capture_output=True, text=True, check=False
    )
    return result.stdout.strip() or None


def push_outputs(root: Path, stages: Iterable[str]) -> None:
    """Put what these stages made into the DVC remote, as far as it is not there."""
    if named := list(stages):
        dvc(root, "push", *named)


def pull_outputs(root: Path, stages: Iterable[str]) -> None:
    """Get what these stages made from the DVC remote, as far as it is not here."""
    if named := list(stages):
        dvc(root, "pull", *named)
