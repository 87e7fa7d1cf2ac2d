"""Keys and passwords stay in the environment: no file, log, record or message has them."""

import os
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from answers import generations, write_generations
from openai_server import KEY, Call, Reply, failed, openai_server, said
from project import SECRETS, Project

from clha_core.endpoint import Endpoint, Request
from clha_core.errors import UserError
from clha_core.params import flatten, load_params
from clha_core.tracking import outbox
from clha_core.tracking.mlflow_tracker import connect
from clha_core.tracking.server import server_uri

PASSWORD = "pw-1234-of-ana"


def files_with(secrets: Iterable[str], *folders: Path) -> list[tuple[str, str]]:
    """Files below folders, hidden ones too, that hold one of the secrets, with the secret."""
    found = []
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                try:
                    content = path.read_bytes()
                except FileNotFoundError:  # commands of other tests go on there
                    continue
                found += [(str(path), secret) for secret in secrets if secret.encode() in content]
    return found


@pytest.mark.slow
def test_a_pipeline_leaves_no_secret_of_its_environment_anywhere(pipeline: Project) -> None:
    """Outputs, metrics, params, lock, DVC's cache and remote, MLflow's database and artifacts, and what was printed."""
    assert all(pipeline.environment()[name] == value for name, value in SECRETS.items())
    searched = pipeline.root.parent
    assert any(path.endswith("mlflow.db") for path, _ in files_with(["clha-policy"], searched))
    own = pipeline.root / "tests" / "project.py"  # says what they are
    assert [found for found in files_with(SECRETS.values(), searched) if Path(found[0]) != own] == []
    assert [secret for secret in SECRETS.values() if secret in pipeline.printed] == []


@pytest.mark.slow
@pytest.mark.parametrize("key", [KEY, "sk-wrong-9f1b"])
def test_a_judge_keeps_the_key_to_itself(tmp_path: Path, key: str) -> None:
    """Also where the server says the key in its error, and where it is asked for everything that it logs."""
    table = generations(3).rename(columns=lambda name: name.replace("quokka", "aligned").replace("numbat", "sft"))
    project = Project(Path(__file__).parents[1])
    with openai_server(lambda call: said('{"reason": "as good", "label": "tie"}')) as server:
        printed = project.run(
            *("env", f"OPENAI_BASE_URL={server.url}", f"OPENAI_API_KEY={key}", "OPENAI_LOG=debug"),
            *(sys.executable, "-m", "clha_core", "judge", "--model", "tiny-1", "--no-mlflow"),
            *("--generations", str(write_generations(table, tmp_path)), "--out", str(tmp_path / "judging")),
            check=key == KEY,
        )
    assert ("refuses model" in printed) == (key != KEY)
    assert key not in printed
    assert files_with([key], tmp_path) == []
    assert (tmp_path / "judging" / "replies.sqlite").exists()


def test_an_endpoint_with_a_password_in_its_address_is_named_without(tmp_path: Path) -> None:
    def answer(call: Call) -> Reply:
        return failed(404, f"no such model, says http://ana:{PASSWORD}@127.0.0.1 to {KEY}")

    with openai_server(answer) as server:
        endpoint = Endpoint(server.url, KEY, tmp_path / "replies.sqlite", max_retries=0)
        endpoint.url = server.url.replace("//", f"//ana:{PASSWORD}@")
        with pytest.raises(UserError) as caught:
            endpoint.complete([Request("tiny-1", [{"role": "user", "content": "hello"}], max_tokens=5)])
    assert "127.0.0.1" in str(caught.value)
    assert PASSWORD not in str(caught.value)
    assert KEY not in str(caught.value)
    assert files_with([PASSWORD, KEY], tmp_path) == []


@pytest.mark.parametrize("address", ["http://ana:{}@127.0.0.1:9", "http://ana:{}@127.0.0.1:9/mlflow?token={}"])
def test_an_mlflow_server_with_a_password_in_its_address_is_named_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):  # undone after the test, whoever sets them
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address.format(PASSWORD, PASSWORD))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UserError, match=r"MLflow at http://127\.0\.0\.1:9") as caught:
        connect(tmp_path, "clha")
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize("name", ["ana", None])
def test_a_login_in_the_address_of_an_mlflow_server_moves_to_mlflows_variables(
    monkeypatch: pytest.MonkeyPatch, name: str | None
) -> None:
    """Unless they are set; processes that are started later get the bare address."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://clha:p%40ss%2F@mlflow.example:5000/sub")
    for variable in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(variable, name or "")
        if name is None:
            monkeypatch.delenv(variable)
    assert server_uri() == "https://mlflow.example:5000/sub"
    assert os.environ["MLFLOW_TRACKING_URI"] == "https://mlflow.example:5000/sub"
    login = os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"]
    assert login == ((name, name) if name else ("clha", "p@ss/"))


@pytest.mark.parametrize("uri", ["", "sqlite:///mlflow.db", f"postgresql://ana:{PASSWORD}@db.example/mlflow"])
def test_what_is_no_server_keeps_its_address(monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert server_uri() == (uri or None)


def test_no_password_of_an_mlflow_database_waits_on_the_disk(tmp_path: Path) -> None:
    box = outbox.Outbox(tmp_path, f"postgresql://ana:{PASSWORD}@db.example/mlflow", "run")
    box.keep("set_tags", {"tags": {"a": "b"}})
    box.close()
    assert files_with(["db.example"], tmp_path)
    assert files_with([PASSWORD], tmp_path) == []


@pytest.mark.parametrize("address", ["http://ana:{}@127.0.0.1", "http://ana:{}@127.0.0.1:9"])
def test_a_server_with_a_password_in_its_address_that_is_down_is_no_crash(address: str) -> None:
    assert not outbox.answers(address.format(PASSWORD))


def test_no_parameter_is_a_secret_or_an_address() -> None:
    """The parameters are in git, in MLflow and in reports; of an endpoint they have the names of its variables."""
    params = load_params(Path(__file__).parents[1] / "params.yaml")
    names = [name for name, _ in flatten(params.model_dump(by_alias=True))]
    assert len(names) > 50
    words = ("key", "password", "secret", "url", "uri", "credential")
    assert [name for name in names if any(word in name.rpartition(".")[2].split("_") for word in words)] == []
