"""The README's commands exist; tests/test_pipeline.py runs its examples."""

import re
from pathlib import Path

from clha_core.cli import app

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.split("#")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", README, flags=re.S)
    for line in block.splitlines()
    if line.split("#")[0].strip()
]


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)", README, flags=re.M))
    assert {"pipeline", "test", "ui", "mlflow"} <= named <= targets


def test_every_clha_command_exists() -> None:
    commands = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    assert set(re.findall(r"`?clha ([a-z]+)", README)) <= commands


def test_every_command_is_one_that_the_tests_run() -> None:
    """By name: `make ui` starts the module that servers.py starts, `make test` is what runs this."""
    files = ("conftest.py", "servers.py", "test_pipeline.py", "test_ui.py")
    run_by = "".join((ROOT / "tests" / name).read_text() for name in files)
    written = {"make ui": "flows.start", "make test": "", "dvc dag": '"dag"', "clha summary": 'clha("summary"'}
    for command in COMMANDS:
        tool, verb, *_ = command.split()
        needle = written.get(f"{tool} {verb}", f'"{verb}"')
        assert needle in run_by, command


def test_every_linked_file_exists() -> None:
    linked = re.findall(r"\]\(([^)#:]+)\)", README)
    assert linked
    assert all((ROOT / path).exists() for path in linked)
