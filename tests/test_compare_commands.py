"""`clha assess` and `clha judge`, from the answers of an evaluation to printed tables and files."""

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from answers import generations
from openai_server import Call, Reply, openai_server, said
from typer.testing import CliRunner, Result

from clha_core import paths
from clha_core.cli import app
from clha_core.errors import UserError
from clha_core.tracking.judging import describe_judging

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder after `dvc repro evaluate`, as far as these commands look; answers of aligned, sft and human."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / paths.EVALUATION).mkdir(parents=True)
    rows = generations(12, identical=2)
    rows.columns = rows.columns.str.replace("quokka", "aligned").str.replace("numbat", "sft")
    rows.to_parquet(tmp_path / paths.GENERATIONS, index=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def clha(*arguments: str) -> Result:
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "120"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def votes_of(project: Path, rater: str, vote: str) -> Path:
    """A rater's file that has one vote throughout."""
    key = json.loads((project / paths.ASSESSMENT / "key.json").read_text())
    votes = [{"item": item["item"], "vote": vote, "comment": ""} for item in key["items"]]
    path = project / f"votes-{rater}.json"
    path.write_text(json.dumps({"format": "clha-votes", "export": key["export"], "rater": rater, "votes": votes}))
    return path


def prefers_good(call: Call) -> Reply:
    first = call.asked.index("A good") < call.asked.index("A poor")
    return said(json.dumps({"reason": "Right.", "label": "A better" if first else "B better"}))


def test_a_set_is_exported_rated_and_imported(project: Path) -> None:
    formats = ("--format", "html", "--format", "csv", "--format", "label-studio")
    printed = clha("assess", "export", "--count", "12", *formats).output
    assert "10 pairs to rate" in printed
    assert "2 more pairs have identical answers" in printed
    for_raters = project / paths.ASSESSMENT / "for-raters"
    names = {path.relative_to(for_raters).as_posix() for path in for_raters.rglob("*") if path.is_file()}
    assert names == {"assessment.html", "assessment.csv", "label-studio/tasks.json", "label-studio/interface.xml"}

    files = [str(votes_of(project, "Ana", "A better")), str(votes_of(project, "Ben", "tie"))]
    printed = clha("assess", "import", *files).output
    assert "aligned against sft" in printed
    results = json.loads((project / paths.ASSESSMENT / "results.json").read_text())
    assert results["raters"]["Ana"]["outcomes"]["win_rate"] == 0.5  # the system is A in half of the items
    assert results["without_majority"] == 10


def test_a_judge_at_an_endpoint_writes_verdicts_that_raters_are_compared_with(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with openai_server(prefers_good) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        command = (
            "judge",
            "--model",
            "tiny/1",
            "--concurrency",
            "4",
            "--prompt-price",
            "2",
            "--completion-price",
            "10",
        )
        printed = clha(*command).output
        asked = len(server.calls)
        again = clha(*command).output
        assert (asked, len(server.calls)) == (20, 20)
    assert "aligned against sft, judged by tiny/1" in printed
    assert "200 tokens in" in printed
    assert "20 of 20 verdicts were kept from before" in again

    stem = project / paths.JUDGING / "aligned-vs-sft-tiny-1"
    figures = json.loads(stem.with_suffix(".json").read_text())
    assert figures["outcomes"]["total"]["win"] == pytest.approx(10 / 12, abs=1e-6)
    usage = figures["usage"]
    assert usage["cost"] == pytest.approx((2 * 200 + 10 * usage["completion_tokens"]) / 1e6)

    clha("assess", "export", "--count", "12")
    file = str(votes_of(project, "Ana", "A better"))
    clha("assess", "import", file, "--verdicts", str(stem.with_suffix(".parquet")))
    results = json.loads((project / paths.ASSESSMENT / "results.json").read_text())
    assert results["agreement"]["judge"]["agreement"] == 0.5
    assert results["agreement"]["reward_model"]["pairs"] == 10


def test_the_reward_model_judges_without_a_network(project: Path) -> None:
    printed = clha("judge", "--reward-model", "--against", "human", "--count", "6", "--tie-band", "0.1").output
    assert "aligned against human, judged by reward-model" in printed
    table = pd.read_parquet(project / paths.JUDGING / "aligned-vs-human-reward-model.parquet")
    assert len(table) == 6
    assert "Length-controlled win rate" in printed


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["judge"], "name one judge"),
        (["judge", "--model", "m", "--reward-model"], "name one judge"),
        (["judge", "--model", "m"], "The environment has no"),
        (["judge", "--reward-model", "--system", "mine"], "no answers of 'mine'"),
        (["assess", "import", "votes.json"], r"give --key the key\.json"),
    ],
)
def test_what_is_wrong_is_said(
    project: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], sentence: str
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(UserError, match=sentence):
        clha(*arguments)


class Recorder:
    """A tracker that keeps what it is told."""

    def __init__(self) -> None:
        self.metrics: dict[str, float] = {}
        self.tables: dict[str, dict[str, Any]] = {}
        self.artifacts: list[str] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.metrics |= metrics

    def log_table(self, columns: dict[str, Any], path: str) -> None:
        self.tables[path] = columns

    def log_artifact(self, path: Path, folder: str) -> None:
        self.artifacts.append(f"{folder}/{path.name}")


def test_verdicts_are_recorded_as_a_table_of_plain_values(project: Path) -> None:
    clha("judge", "--reward-model")
    verdicts = project / paths.JUDGING / "aligned-vs-sft-reward-model.parquet"
    figures = json.loads(verdicts.with_suffix(".json").read_text())
    recorder = Recorder()
    describe_judging(recorder, verdicts, figures)  # type: ignore[arg-type]

    (columns,) = recorder.tables.values()
    assert json.loads(json.dumps(columns)) == columns
    assert len(columns["outcome"]) == 12
    prefix = "judge/aligned-vs-sft-reward-model"
    assert recorder.metrics[f"{prefix}/total/win_rate"] == figures["outcomes"]["total"]["win_rate"]
    assert recorder.artifacts == [f"judging/{verdicts.stem}.parquet", f"judging/{verdicts.stem}.json"]
