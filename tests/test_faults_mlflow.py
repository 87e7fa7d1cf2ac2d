"""MLflow goes away: before a training, and in the middle of one."""

import os
import resource
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient
from project import Project, clone_with_cache
from test_security_secrets import PASSWORD, files_with

from clha_core import paths
from clha_core.digest import file_digest
from clha_core.evaluation.evaluate import Evaluator
from clha_core.params import load_params
from clha_core.stages import evaluate, register
from clha_core.tracking import outbox
from clha_core.tracking.lineage import EVALUATION_DIGEST_TAG, MODEL_DIGEST_TAG
from clha_core.tracking.mlflow_tracker import connect, run_of_model, training_run
from reliability.servers import Server, free_port, mlflow_server

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as server:
        yield server


@pytest.fixture
def uri(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if not server.answers():
        server.start()
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):  # undone after the test, whoever sets them
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url.replace("//", f"//ana:{PASSWORD}@"))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    yield server.url
    mlflow.end_run()


def margins(run_id: str) -> list[tuple[int, float]]:
    return [(metric.step, metric.value) for metric in MlflowClient().get_metric_history(run_id, "rewards/margins")]


def unexpected(run_id: str) -> outbox.Send:
    raise AssertionError("sent")


def sent_from(root: Path) -> list[str]:
    """Names of the calls that are sent to a server at port 1."""
    sent: list[str] = []
    outbox.deliver(root, "http://127.0.0.1:1", lambda run_id: lambda method, arguments: sent.append(method))
    return sent


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """A disk that is full as far as this process is concerned."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_training_that_cannot_be_recorded_does_not_start(tmp_path: Path) -> None:
    code = "from clha_core.cli import main; main()"
    nowhere = f"http://127.0.0.1:{free_port()}"
    begun = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-c", code, "registry", "list"],
        cwd=ROOT,
        env={**os.environ, "MLFLOW_TRACKING_URI": nowhere},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert time.monotonic() - begun < 60  # on a busy machine; the waiting itself is some ten seconds
    assert f"MLflow at {nowhere} cannot be used" in ended.stderr
    assert "correct MLFLOW_TRACKING_URI" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_what_a_training_says_while_mlflow_is_down_is_there_after_the_next_command(
    server: Server, uri: str, make_params: Callable, tmp_path: Path
) -> None:
    params = make_params()
    with training_run(params, tmp_path, tmp_path / "checkpoints") as tracker:
        run_id = (tmp_path / "checkpoints" / "mlflow_run_id").read_text()
        tracker.log_metrics({"rewards/margins": 1.0}, step=1)
        server.kill()
        for step in (2, 3):
            tracker.log_metrics({"rewards/margins": float(step)}, step=step)
        tracker.set_tags({MODEL_DIGEST_TAG: "abc"})
    assert list(outbox.outbox_folder(tmp_path).glob("*.jsonl"))

    server.start()
    assert margins(run_id) == [(1, 1.0)]
    connect(tmp_path, params.registry.experiment)
    assert margins(run_id) == [(1, 1.0), (2, 2.0), (3, 3.0)]
    run = MlflowClient().get_run(run_id)
    assert (run.info.status, run.data.tags[MODEL_DIGEST_TAG]) == ("FINISHED", "abc")
    assert list(outbox.outbox_folder(tmp_path).glob("*.jsonl")) == []


def test_a_training_sends_what_waited_as_soon_as_mlflow_is_back(
    server: Server,
    uri: str,
    make_params: Callable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """And tells nobody the password that was in the server's address, neither on the terminal nor on the disk."""
    with training_run(make_params(), tmp_path, tmp_path / "checkpoints") as tracker:
        run_id = (tmp_path / "checkpoints" / "mlflow_run_id").read_text()
        server.kill()
        tracker.log_metrics({"rewards/margins": 1.0}, step=1)
        tracker.log_metrics({"rewards/margins": 2.0}, step=2)
        assert list(outbox.outbox_folder(tmp_path).glob("*.jsonl"))
        assert files_with([PASSWORD], tmp_path) == []
        server.start()
        monkeypatch.setattr(outbox, "PROBE_SECONDS", 0.0)
        tracker._next_look = 0.0
        tracker.log_metrics({"rewards/margins": 3.0}, step=3)
        assert margins(run_id) == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert MlflowClient().get_run(run_id).info.status == "FINISHED"
    printed = "".join(capfd.readouterr())
    assert f"MLflow at {server.url} answers again" in printed
    assert PASSWORD not in printed


def test_a_training_that_is_killed_while_mlflow_is_down_loses_only_the_line_it_was_writing(tmp_path: Path) -> None:
    box = outbox.Outbox(tmp_path, "http://127.0.0.1:1", "run")
    box.keep("log_metrics", {"metrics": {"loss": 1.0}, "step": 1, "at": 0})
    file = outbox.outbox_folder(tmp_path) / "run.jsonl"
    file.write_text(file.read_text() + '{"method": "log_me')
    box.close()
    assert sent_from(tmp_path) == ["log_metrics"]


@pytest.mark.parametrize("left", ["", '{"uri": "http://127'])
def test_a_kill_before_the_first_line_was_written_leaves_nothing_to_send(tmp_path: Path, left: str) -> None:
    folder = outbox.outbox_folder(tmp_path)
    folder.mkdir(parents=True)
    (folder / "run.jsonl").write_text(left, encoding="utf-8")
    outbox.deliver(tmp_path, "http://127.0.0.1:1", unexpected)
    assert not (folder / "run.jsonl").exists()


def test_what_is_kept_after_half_a_line_is_whole(tmp_path: Path) -> None:
    file = outbox.outbox_folder(tmp_path) / "run.jsonl"
    for half in ('{"uri": "http://127', '{"method": "log_me'):
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as lines:
            lines.write(half)
        box = outbox.Outbox(tmp_path, "http://127.0.0.1:1", "run")
        box.keep("set_tags", {"tags": {"a": "b"}})
        box.close()
    assert sent_from(tmp_path) == ["set_tags", "set_tags"]


def test_a_call_that_finds_no_room_leaves_what_waited_whole(tmp_path: Path) -> None:
    box = outbox.Outbox(tmp_path, "http://127.0.0.1:1", "run")
    box.keep("set_tags", {"tags": {"a": "b"}})
    size = (outbox.outbox_folder(tmp_path) / "run.jsonl").stat().st_size
    with largest_file(size + 10), pytest.raises(OSError, match="File too large"):
        box.keep("log_metrics", {"metrics": {"loss": 1.0}, "step": 1, "at": 0})
    box.keep("set_tags", {"tags": {"c": "d"}})
    box.close()
    assert sent_from(tmp_path) == ["set_tags", "set_tags"]


def test_what_waits_is_for_its_owner_alone(tmp_path: Path) -> None:
    box = outbox.Outbox(tmp_path, "http://127.0.0.1:1", "run")
    box.keep("set_tags", {"tags": {"a": "b"}})
    box.close()
    assert stat.filemode((outbox.outbox_folder(tmp_path) / "run.jsonl").stat().st_mode) == "-rw-------"


def test_what_waits_for_one_server_is_not_sent_to_another(tmp_path: Path) -> None:
    box = outbox.Outbox(tmp_path, "http://127.0.0.1:1", "run")
    box.keep("set_tags", {"tags": {"a": "b"}})
    box.close()

    outbox.deliver(tmp_path, "http://127.0.0.1:2", unexpected)
    assert (outbox.outbox_folder(tmp_path) / "run.jsonl").exists()


def test_a_server_that_refuses_is_no_server_that_is_down(uri: str, make_params: Callable, tmp_path: Path) -> None:
    with training_run(make_params(), tmp_path, tmp_path / "checkpoints") as tracker:
        tracker.log_params({"train.margin": "1"})
        with pytest.raises(mlflow.MlflowException, match="already logged"):
            tracker.log_params({"train.margin": "2"})
    assert not list(outbox.outbox_folder(tmp_path).glob("*.jsonl"))


@pytest.mark.long
def test_an_evaluation_during_which_mlflow_goes_away_is_in_the_record_once_the_model_is_registered(
    server: Server,
    uri: str,
    pipeline: Project,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = clone_with_cache(pipeline, tmp_path / "clone").root
    params = load_params(root / "params.yaml")
    connect(root, params.registry.experiment)
    with run_of_model(params, root) as tracker:
        run_id = tracker.run.info.run_id
    table = Evaluator.table

    def go_away(evaluator: Evaluator) -> pd.DataFrame:
        server.kill()
        return table(evaluator)

    monkeypatch.setattr(Evaluator, "table", go_away)
    evaluate.run(params, root)
    assert "the evaluation is not in its record yet. `clha register` adds it." in capsys.readouterr().out

    server.start()
    assert EVALUATION_DIGEST_TAG not in MlflowClient().get_run(run_id).data.tags
    assert register.run(params, root).run_id == run_id
    record = MlflowClient().get_run(run_id).data
    assert record.tags[EVALUATION_DIGEST_TAG] == file_digest(root / paths.EVALUATION_PROTOCOL)
    assert "evaluate/total/reward" in record.metrics
