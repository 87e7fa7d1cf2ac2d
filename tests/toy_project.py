"""A git and DVC project with tiny stages, for what a flow does with any project."""

import subprocess
import sys
from pathlib import Path

STAGE = """
stages:
  double:
    cmd: python double.py
    params: [train.margin]
    outs: [doubled.txt]
"""
FAILING_STAGE = """
  fail:
    cmd: python fail.py
    deps: [doubled.txt]
    outs: [never.txt]
"""
DOUBLE = "import yaml; open('doubled.txt', 'w').write(str(2 * yaml.safe_load(open('params.yaml'))['train']['margin']))"
FAIL = "import sys; print('working'); sys.exit('error: the data are bad:\\n  - row 3\\nMend row 3.')"


def run(folder: Path, *command: str) -> str:
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return result.stdout


def commit(folder: Path) -> None:
    run(folder, "git", "add", "--all")
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    run(folder, "git", *identity, "commit", "--quiet", "--message", "state")


def make_toy_project(folder: Path, params_yaml: str, more_stages: str = "") -> Path:
    """The project, committed; `params_yaml` is the text of its params.yaml."""
    folder.mkdir(parents=True)
    files = {"dvc.yaml": STAGE + more_stages, "double.py": DOUBLE, "fail.py": FAIL, "params.yaml": params_yaml}
    for name, text in {**files, ".gitignore": "/.clha/\n", ".dvcignore": ".clha\n"}.items():
        (folder / name).write_text(text, encoding="utf-8")
    run(folder, "git", "init", "--quiet")
    run(folder, sys.executable, "-m", "dvc", "init", "--quiet")
    commit(folder)
    return folder
