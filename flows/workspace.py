"""A clone of its own for every flow run, so that runs meet neither each other nor what the user is editing.

Not a git worktree: worktrees share the references that DVC works with while it saves an experiment (refs/exps/exec),
and DVC's lock is one for each checkout, so that two of them at once take each other's away.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from configparser import ConfigParser
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml
from filelock import FileLock

from clha_core import paths
from clha_core.errors import UserError
from clha_core.params import Params, flatten
from clha_core.params.rewrite import rewrite_params
from clha_core.waiting import held
from flows.mend import mend_cache

HOME = Path(__file__).resolve().parents[1]  # the user's own checkout
WORKSPACES = paths.SCRATCH / "workspaces"
# Their changes make no difference to a flow run: parameters come from the form, and DVC's cache knows what ran.
NOT_COMMITTED_BY_HAND = {"params.yaml", "dvc.lock"}
AUTO_PUSH = "DVC_EXP_AUTO_PUSH"  # DVC's own switch; `dvc exp save` leaves it to `dvc exp run`
NOBODY = (("user.name", "clha"), ("user.email", "clha@localhost"))
MADE_BY_STAGES = {paths.BASE_MODEL, paths.SFT_MODEL}  # and so in the workspace too


@dataclass(frozen=True)
class Workspace:
    """The clone of one run; `home` is the user's own checkout."""

    home: Path
    root: Path
    name: str

    @property
    def is_new(self) -> bool:
        """Whether there is none yet, or a kill left half of one."""
        return not self.root.exists() or self._unfinished.exists()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Have the workspace for oneself; a process of the same run that is still at work is waited for.

        There is one where Prefect took a run for dead because its server was away, and somebody said Retry.
        """
        self.root.parent.mkdir(parents=True, exist_ok=True)
        with held(FileLock(self._lock), "another process of this run is still at work"):
            # Of processes that are gone, by their numbers, which in a container soon are those of others.
            (self.root / ".dvc" / "tmp" / "rwlock").unlink(missing_ok=True)
            yield

    def create(self, fetch: Callable[[Path], str] | None = None) -> None:
        """Clone the last commit, next to the user's DVC cache, with what DVC already has of it.

        Args:
            fetch: where the commit is not in the user's checkout, gets it into the clone and names it.

        Raises:
            UserError: `home` is no git repository with a commit, or DVC cannot be used in it.
        """
        mend_cache(self.home)
        commit = run(["git", "rev-parse", "--verify", "HEAD^{commit}"], self.home).strip()
        # No hooks: those of the user's checkout are not meant for this one. No `origin`: nothing is pushed from here.
        settings = {"core.hooksPath": os.devnull, **self._identity()}
        options = [f"--config={key}={value}" for key, value in settings.items()]
        clone = ["git", "clone", "--quiet", "--no-checkout", "--origin", "checkout", *options]
        self.root.parent.mkdir(parents=True, exist_ok=True)
        self._unfinished.touch()
        shutil.rmtree(self.root, ignore_errors=True)
        try:
            run([*clone, str(self.home), str(self.root)], self.home)
            run(["git", "checkout", "--quiet", "--detach", fetch(self.root) if fetch else commit], self.root)
            self._configure()
            dvc(self.root, "checkout", "--allow-missing")
            self._share(paths.KEPT_CANDIDATES)
            self._share(paths.KEPT_ANSWERS)
        except BaseException:
            shutil.rmtree(self.root, ignore_errors=True)
            raise
        self._unfinished.unlink()

    def _configure(self) -> None:
        """DVC's settings of the user's checkout that are not in git, its cache, and its remotes that are folders.

        Written as a file: each `dvc config` would cost a run most of a second.
        """
        committed, local = ConfigParser(interpolation=None), ConfigParser(interpolation=None)
        committed.read(self.home / ".dvc" / "config", encoding="utf-8")
        local.read(self.home / ".dvc" / "config.local", encoding="utf-8")
        for section in {*committed.sections(), *local.sections()}:
            url = local.get(section, "url", fallback=committed.get(section, "url", fallback=None))
            if url is not None and "://" not in url and not Path(url).is_absolute():
                local.read_dict({section: {"url": str((self.home / ".dvc" / url).resolve())}})
        local.read_dict({"cache": {"dir": str(self.home / dvc(self.home, "cache", "dir").strip())}})
        own = self.root / ".dvc" / "config.local"
        own.touch(mode=0o600)  # remotes may have passwords in it
        with own.open("w", encoding="utf-8") as file:
            local.write(file)

    def _share(self, folder: Path) -> None:
        """Let the run use, and add to, a scratch folder of the user's checkout."""
        (self.home / folder).mkdir(parents=True, exist_ok=True)
        (self.root / folder).parent.mkdir(parents=True, exist_ok=True)
        (self.root / folder).symlink_to(self.home / folder)

    def _identity(self) -> dict[str, str]:
        """Who commits in the user's checkout; in a container, where nobody does, a name that DVC can save with."""
        return {key: run(["git", "config", "--default", default, key], self.home).strip() for key, default in NOBODY}

    def uncommitted(self) -> list[str]:
        """Tracked files of the user's checkout that differ from the commit which the run uses."""
        changed = run(["git", "diff", "--name-only", "HEAD"], self.home).splitlines()
        return sorted(set(changed) - NOT_COMMITTED_BY_HAND)

    def write_params(self, params: Params) -> None:
        """Lay `params` over the workspace's params.yaml, comments kept.

        Raises:
            UserError: the commit's params.yaml has other keys than the flow knows.
        """
        values = dict(flatten(params.model_dump(mode="json", by_alias=True)))
        file = self.root / paths.PARAMS
        committed = dict(flatten(yaml.safe_load(file.read_text(encoding="utf-8"))))
        for key in values:
            if key not in committed:
                raise UserError(
                    f"params.yaml of the last commit has no {key}: commit your changes, then start the run again."
                )
        rewrite_params(file, values, "the form")

    def link_local_inputs(self, params: Params) -> list[str]:
        """Make data and models that params name by a relative path, and that git does not have, reachable.

        What `dvc add` tracks is as the commit has it, from the DVC remote where it is not in the cache.

        Returns:
            The paths that were linked; files are copied, as links out of a folder of data are refused.

        Raises:
            UserError: a relative path leads out of the checkout, and so would out of the workspace.
        """
        named = [params.data.path, params.data.dataset, params.policy.model]
        named += [params.reward_model.model, params.reward_model.eval_model]
        named += [name for name in params.candidates.policy.models if Path(name) not in MADE_BY_STAGES]
        # The folder of responses is in git, its files need not be.
        responses = (self.home / params.candidates.files).glob("*.jsonl*")
        named += [f"{params.candidates.files}/{file.name}" for file in sorted(responses)]
        linked = []
        for name in dict.fromkeys(named):
            target, link = self.home / name, self.root / name
            if Path(os.path.normpath(name)).parts[:1] == ("..",):
                raise UserError(f"{name} leads out of the project: name it by its absolute path, {target.resolve()}.")
            if (self.root / f"{name}.dvc").exists() and not link.exists():
                dvc(self.root, "pull", "--", name)
            if not Path(name).is_absolute() and target.exists() and not link.exists():
                link.parent.mkdir(parents=True, exist_ok=True)
                if target.is_file():
                    shutil.copy2(target, link)
                else:
                    link.symlink_to(target)
                linked.append(name)
        return linked

    def require_data(self, params: Params) -> None:
        """Raises:
        UserError: there is nothing to ingest.
        """
        if params.data.source == "local" and not (self.root / params.data.path).exists():
            raise UserError(
                f"data.path {params.data.path} is not there: put your data into {self.home / params.data.path}, or "
                "name another folder in data.path. Retry looks again."
            )

    def save_experiment(self) -> None:
        """Keep parameters, dvc.lock and metrics as a DVC experiment of the user's checkout.

        With DVC_EXP_AUTO_PUSH=true, the outputs are in the DVC remote before the experiment says that they exist.

        Raises:
            UserError: DVC or git refused.
        """
        if os.environ.get(AUTO_PUSH, "").lower() in ("1", "true"):
            dvc(self.root, "push")
        baseline = run(["git", "rev-parse", "HEAD"], self.root).strip()
        dvc(self.root, "exp", "save", "--force", "--name", self.name)
        reference = f"refs/exps/{baseline[:2]}/{baseline[2:]}/{self.name}"  # as DVC names it
        # Nothing but this reference is written: other runs and the user's own commands go on meanwhile.
        fetch = ["git", "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-gc"]
        run([*fetch, str(self.root), f"+{reference}:{reference}"], self.home)

    def remove(self) -> None:
        """Remove the clone; what DVC cached and saved stays."""
        shutil.rmtree(self.root)
        self._lock.unlink(missing_ok=True)

    @property
    def _lock(self) -> Path:
        return self.root.with_name(f"{self.root.name}.lock")

    @property
    def _unfinished(self) -> Path:
        return self.root.with_name(f"{self.root.name}.unfinished")


def workspace_of(home: Path, run_name: str, run_id: str) -> Workspace:
    """The workspace of a flow run: the same one when the run is retried, so that it resumes where it failed."""
    name = f"{re.sub(r'[^A-Za-z0-9]+', '-', run_name).strip('-') or 'run'}-{run_id[:8]}"
    return Workspace(home, home / WORKSPACES / name, name)


def dvc(root: Path, *arguments: str) -> str:
    """What a command of DVC prints in the project at `root`.

    Raises:
        UserError: it failed, with what it says.
    """
    return run([sys.executable, "-m", "dvc", *arguments], root)


def run(command: list[str], folder: Path, environment: Mapping[str, str] | None = None) -> str:
    """What a command prints.

    Raises:
        UserError: it failed, with what it says.
    """
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise UserError(f"`{' '.join(command)}` failed in {folder}: {(result.stderr or result.stdout).strip()}")
    return result.stdout
