"""Fixtures that several test modules share."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

# Before torch is imported: a second thread makes the tiny models slower, on busy cores ten times.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import yaml
from filelock import FileLock
from hypothesis import settings
from project import SMALL, Project, copy_project
from servers import Servers, started_servers

from clha_core.params import Params, parse_params

# A first call imports and compiles; on a busy machine any call can be slow.
settings.register_profile("clha", deadline=None)
settings.load_profile("clha")

ROOT = Path(__file__).resolve().parents[1]

# `make test` runs files in two processes (pytest-xdist, --dist loadfile). The tests of a file stay together, in order,
# so a module's fixtures start once; a session's start once in each process unless they are shared like `pipeline`.
# The other process takes a core meanwhile: ports and folders are asked for, never fixed, and tests count what was done
# instead of timing it. Files that take half a minute or more begin first, the longest before all others:
LONGEST = (
    "test_ui.py",
    "test_pipeline.py",
    "test_preset_local.py",
    "test_distributed.py",
    "test_resume.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path.name, len(LONGEST)))


@pytest.fixture(scope="session")
def hh_slice() -> Path:
    """A folder of real HH-RLHF rows; the test is skipped where it is not beside the project."""
    folder = ROOT.parent / "shared" / "hh-rlhf"
    if not folder.is_dir():
        pytest.skip(f"no real HH-RLHF rows at {folder}")
    return folder


@pytest.fixture(scope="session")
def make_params() -> Callable[..., Params]:
    """Params of the project's params.yaml with some keys changed: make_params({"data.source": "local"})."""

    def make(changes: Mapping[str, Any] | None = None) -> Params:
        values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
        for dotted, value in (changes or {}).items():
            *parents, key = dotted.split(".")
            section = values
            for parent in parents:
                section = section[parent]
            assert key in section, f"params.yaml has no {dotted}"
            section[key] = value
        return parse_params(values, "params.yaml with changes")

    return make


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy of the project after `make pipeline`, committed; the same one in all processes.

    Only test_pipeline.py runs commands in it. Tests of other files read its branch main and its outputs, or work in a
    clone of it (`clone_with_cache`): at the same time DVC takes one command a checkout.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    made = folder / "pipeline.json"
    with FileLock(folder / "pipeline.lock"):
        if not made.exists():
            copy = make_pipeline(tmp_path_factory.mktemp("pipeline"))
            made.write_text(json.dumps([str(copy.root), copy.printed]), encoding="utf-8")
    root, printed = json.loads(made.read_text(encoding="utf-8"))
    found = Project(Path(root))
    found.printed = printed
    return found


def make_pipeline(folder: Path) -> Project:
    copy = copy_project(folder / "project", SMALL)
    copy.dvc("remote", "add", "--default", "store", str(folder / "remote"))
    copy.printed = copy.make("pipeline")
    copy.commit("first run")
    return copy


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Prefect, MLflow and the flows, over a copy of the project that has not run yet."""
    with started_servers(tmp_path_factory.mktemp("servers")) as started:
        yield started
