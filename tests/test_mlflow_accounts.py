"""An MLflow server with accounts: a password in its address, an account that may not, and one that is not known."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest
import yaml
from mlflow import MlflowClient
from mlflow.server import get_app_client
from typer.testing import CliRunner

from clha_core.cli import app
from clha_core.explain import sentence_for
from clha_core.params import Params
from clha_core.tracking.mlflow_tracker import connect
from clha_core.tracking.registry import champion_of
from reliability.servers import Server, mlflow_server

pytestmark = pytest.mark.long
ADMIN, PASSWORD = "clha", "hunter2 / of @dmin"
IN_AN_ADDRESS = "hunter2%20%2F%20of%20%40dmin"
READER, READERS_PASSWORD = "reader", "reads-what-is-there"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With one registered model of the administrator's, and an account as docs/deployment.md has it made."""
    with (
        mlflow_server(tmp_path_factory.mktemp("mlflow"), (ADMIN, PASSWORD)) as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        log_in(patch, server, ADMIN, PASSWORD)
        get_app_client("basic-auth", tracking_uri=server.url).create_user(READER, READERS_PASSWORD)
        client = connect(tmp_path_factory.mktemp("checkout"), "clha")
        client.create_registered_model("clha-policy")
        client.create_model_version("clha-policy", "s3://nowhere/model")
        yield server


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test changes in it, by way of `connect` too, is undone."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    yield
    mlflow.end_run()


def log_in(patch: pytest.MonkeyPatch, server: Server, user: str, password: str) -> None:
    patch.setenv("MLFLOW_TRACKING_URI", server.url)
    patch.setenv("MLFLOW_TRACKING_USERNAME", user)
    patch.setenv("MLFLOW_TRACKING_PASSWORD", password)


def test_a_password_in_the_address_opens_the_server_and_is_in_no_address_from_then_on(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url.replace("//", f"//{ADMIN}:{IN_AN_ADDRESS}@"))
    client = connect(tmp_path, "clha")
    client.set_registered_model_tag("clha-policy", "changed by", ADMIN)
    assert mlflow.get_tracking_uri() == os.environ["MLFLOW_TRACKING_URI"] == server.url


def test_variables_for_the_account_come_before_the_address(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_in(monkeypatch, server, ADMIN, PASSWORD)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url.replace("//", "//somebody:else@"))
    assert connect(tmp_path, "clha").search_registered_models()


def refused(server: Server, folder: Path, params: Params, monkeypatch: pytest.MonkeyPatch, *command: str) -> str:
    """What the command line says of an error that it ends with."""
    values = params.model_dump(mode="json", by_alias=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    monkeypatch.chdir(folder)
    error = CliRunner().invoke(app, list(command)).exception
    assert isinstance(error, Exception)
    return sentence_for(error) or str(error)


def champion(client: MlflowClient) -> str | None:
    version = champion_of(client, "clha-policy")
    return None if version is None else str(version.version)


def test_an_account_that_may_not_promote_is_told_what_it_lacks(
    server: Server, make_params: Callable[..., Params], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_in(monkeypatch, server, READER, READERS_PASSWORD)
    said = refused(server, tmp_path, make_params(), monkeypatch, "registry", "promote", "1", "--why", "it won")
    assert f"MLflow at {server.url} does not allow the account 'reader' to do this" in said
    assert "MANAGE on the registered model" in said
    assert champion(MlflowClient()) is None

    log_in(monkeypatch, server, ADMIN, PASSWORD)
    accounts = get_app_client("basic-auth", tracking_uri=server.url)
    accounts.grant_user_permission(READER, "registered_model", "clha-policy", "MANAGE")
    log_in(monkeypatch, server, READER, READERS_PASSWORD)
    assert CliRunner().invoke(app, ["registry", "promote", "1", "--why", "it won"]).exit_code == 0
    assert champion(MlflowClient()) == "1"


@pytest.mark.parametrize(
    ("user", "words"), [("nobody", "does not let in the account 'nobody'"), ("", "let in anybody without an account")]
)
def test_who_has_no_account_is_told_where_to_name_one(
    server: Server,
    make_params: Callable[..., Params],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    user: str,
    words: str,
) -> None:
    if user:
        log_in(monkeypatch, server, user, PASSWORD)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    said = refused(server, tmp_path, make_params(), monkeypatch, "registry", "list")
    assert words in said
    assert "MLFLOW_TRACKING_PASSWORD" in said
    assert "make mlflow" not in said
