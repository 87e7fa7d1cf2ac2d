"""The command line: instant help, sentences instead of tracebacks."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from answers import generations, write_generations

ROOT = Path(__file__).resolve().parents[1]


def clha(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "clha_core", *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


def test_help_names_every_command() -> None:
    result = clha("--help")
    assert result.returncode == 0
    names = (
        "ingest",
        "validate",
        "rescore",
        "train",
        "evaluate",
        "register",
        "summary",
        "compare",
        "registry",
        "use",
        "serve",
    )
    for name in names:
        assert name in result.stdout


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['clha', '--help']; from clha_core.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'transformers', 'mlflow', 'prefect', 'pandas', 'datasets') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip().endswith("[]")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train"], "params.yaml is not here"),
        (["use", "nothing"], "presets is not here: run the command from the project's root"),
    ],
)
def test_a_problem_is_a_sentence_and_status_1(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    result = clha(*arguments, cwd=tmp_path)
    assert result.returncode == 1
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr


def test_a_file_in_the_place_of_a_folder_is_a_sentence_that_names_it(tmp_path: Path) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    write_generations(generations(3), tmp_path)
    systems = ("--system", "quokka", "--against", "numbat")
    table = ("--generations", "generations.parquet")
    result = clha("assess", "export", *systems, *table, "--out", "params.yaml", cwd=tmp_path)
    assert result.returncode == 1
    assert "params.yaml/for-raters cannot be used: not a directory." in result.stderr
    assert "Traceback" not in result.stderr
