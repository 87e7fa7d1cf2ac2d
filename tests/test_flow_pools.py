"""Which step goes to which pool, and how its machine gets what it needs."""

import json
import logging
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import SHUT_RDWR
from threading import Thread
from typing import ClassVar
from uuid import UUID

import pytest
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED,
    temporary_settings,
)
from toy_project import commit, make_toy_project, run

from clha_core.errors import UserError
from flows import elsewhere
from flows.exchange import exchange_of
from flows.pools import default_pools, parse_pools
from flows.workspace import workspace_of

RUN = "00000000-0000-0000-0000-000000000001"


def test_pools_are_named_step_by_step() -> None:
    assert parse_pools("sft=gpu, train=gpu evaluate=cpu") == {"sft": "gpu", "train": "gpu", "evaluate": "cpu"}
    assert parse_pools("") == {}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("train", "not STEP=POOL"), ("train=", "not STEP=POOL"), ("tune=a", "no step 'tune'"), ("sft=a sft=b", "twice")],
)
def test_a_wrong_pool_is_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        parse_pools(text)


def test_the_environment_fills_the_form_in_if_it_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLHA_POOLS", "train=gpu")
    assert default_pools() == "train=gpu"
    monkeypatch.setenv("CLHA_POOLS", "training=gpu")
    with pytest.raises(UserError, match="CLHA_POOLS: pools: there is no step 'training'"):
        default_pools()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return make_toy_project(tmp_path / "home", "train: {margin: 3}\n")


def test_without_a_git_remote_or_a_dvc_remote_pools_are_refused(home: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="git remote add origin"):
        exchange_of(home, "run")
    run(home, "git", "remote", "add", "origin", str(tmp_path))
    with pytest.raises(UserError, match="dvc remote add --default"):
        exchange_of(home, "run")


def test_the_state_of_a_run_arrives_on_the_commit_that_it_works_on(home: Path, tmp_path: Path) -> None:
    run(home, "git", "clone", "--quiet", "--bare", ".", str(tmp_path / "origin"))
    run(tmp_path, "git", "clone", "--quiet", "origin", "other")
    run(home, "git", "remote", "add", "origin", "../origin")
    for clone in (home, tmp_path / "other"):
        (clone / ".dvc" / "config.local").write_text(
            "[core]\n    remote = store\n['remote \"store\"']\n    url = ../../store\n", encoding="utf-8"
        )
    (home / "double.py").write_text("print('newer')", encoding="utf-8")
    commit(home)  # not pushed

    here = workspace_of(home, "run", "1")
    here.create()
    (here.root / "params.yaml").write_text("train: {margin: 4}\n", encoding="utf-8")
    (here.root / "dvc.lock").write_text("schema: '2.0'\n", encoding="utf-8")
    exchange_of(home, "run").give(here.root)
    there = workspace_of(tmp_path / "other", "run", "1")
    exchange = exchange_of(tmp_path / "other", "run")
    there.create(exchange.fetch)
    exchange.take(there.root)

    assert (there.root / "params.yaml").read_text(encoding="utf-8") == "train: {margin: 4}\n"
    assert (there.root / "dvc.lock").read_text(encoding="utf-8") == "schema: '2.0'\n"
    assert (there.root / "double.py").read_text(encoding="utf-8") == "print('newer')"
    assert run(there.root, "git", "rev-parse", "HEAD") == run(home, "git", "rev-parse", "HEAD")
    assert str(tmp_path / "store") in (there.root / ".dvc" / "config.local").read_text(encoding="utf-8")
    exchange.remove(there.root)
    assert "refs/clha" not in run(home, "git", "ls-remote", "origin")


def test_a_password_in_the_address_of_the_git_remote_is_not_in_an_error(home: Path) -> None:
    run(home, "git", "remote", "add", "origin", "http://bot:ghp_secret@127.0.0.1:1/project.git")
    run(home, sys.executable, "-m", "dvc", "remote", "add", "--default", "store", "/nowhere")
    exchange = exchange_of(home, "run")
    for refused in (exchange.give, exchange.take, exchange.remove):
        with pytest.raises(UserError) as caught:
            refused(home)
        assert "127.0.0.1" in str(caught.value)
        assert "ghp_secret" not in str(caught.value)
    assert "ghp_secret" not in repr(exchange)


class Away(BaseHTTPRequestHandler):
    """Prefect's server: a run that is at work, then nobody there, then the end of the run."""

    answers: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        state = self.answers.pop(0) if "flow_runs" in self.path else "COMPLETED"
        if state is None:
            self.connection.shutdown(SHUT_RDWR)
            self.close_connection = True
            return
        content = {"id": RUN, "flow_id": RUN, "name": "step", "state": {"type": state, "name": state.capitalize()}}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, *_: object) -> None:
        pass


def test_a_step_elsewhere_outlives_the_absence_of_prefects_server(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Away.answers = ["RUNNING", None, None, "COMPLETED"]
    monkeypatch.setattr(elsewhere, "get_run_logger", lambda: logging.getLogger("step"))
    monkeypatch.setattr(elsewhere, "POLL_SECONDS", 0.0)
    with (
        ThreadingHTTPServer(("127.0.0.1", 0), Away) as server,
        temporary_settings(
            {
                PREFECT_API_URL: f"http://127.0.0.1:{server.server_port}/api",
                PREFECT_CLIENT_MAX_RETRIES: 0,
                PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED: False,
            }
        ),
    ):
        Thread(target=server.serve_forever, daemon=True).start()
        ended = elsewhere._ended(UUID(RUN))
        server.shutdown()
    assert ended.state is not None
    assert ended.state.is_completed()
    assert sum("Prefect does not answer" in record.message for record in caplog.records) == 2
