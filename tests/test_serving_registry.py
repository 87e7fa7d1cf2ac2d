"""Serving what the registry has, with real servers: MLflow's, ours by its command, and `mlflow models serve`."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import mlflow
import pytest
import tiny
from chat_server import QUESTION, Pace, client, eventually, free_port, running
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from project import ROOT, process_group, wait_for

from clha_core.errors import UserError
from clha_core.params import Params
from clha_core.serving.app import Deployment
from clha_core.serving.reload import follow, load_version
from clha_core.serving.source import PolicySettings, Registered
from clha_core.tracking.mlflow_tracker import connect
from clha_core.tracking.registry import add_version

pytestmark = pytest.mark.slow

NAME = "clha-policy"
PAGE = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
ASKED: Any = {"messages": QUESTION, "temperature": 0, "max_tokens": 12}


class Site:
    """A folder with params.yaml, an MLflow server, and two versions of a model, the first of them champion."""

    def __init__(self, folder: Path, params: Params) -> None:
        self.folder, self.params = folder, params
        (folder / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
        self.port = free_port()
        self.environment = os.environ | {
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{self.port}",
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "PYTHONPATH": str(ROOT),
        }

    @contextmanager
    def started(self, *command: str) -> Iterator[subprocess.Popen[bytes]]:
        """A Python module's command until the block ends; its output is in output.log."""
        with (self.folder / "output.log").open("ab") as log:
            command = (sys.executable, "-m", *command)
            with process_group(command, self.folder, self.environment, log) as process:
                yield process

    def mlflow(self) -> Any:
        store = ("--backend-store-uri", "sqlite:///mlflow.db", "--artifacts-destination", "artifacts")
        return self.started("mlflow", "server", "--port", str(self.port), "--workers", "1", *store)

    def add(self, seed: int) -> ModelVersion:
        tokenizer, settings = tiny.tokenizer(), PolicySettings.of(self.params.policy)
        with mlflow.start_run() as run:
            pass
        return add_version(run, NAME, tiny.llama(tokenizer, seed), tokenizer, settings, f"digest{seed}")

    def promote(self, number: str) -> None:
        MlflowClient().set_registered_model_alias(NAME, "champion", number)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, make_params: Callable[..., Params]) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("site"), make_params())
    with made.mlflow(), pytest.MonkeyPatch.context() as patch:
        wait_for(f"http://127.0.0.1:{made.port}", "/health", 120)
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"):
            patch.setenv(name, made.environment[name])
        patch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        connect(made.folder, "clha")
        made.add(1)
        made.add(2)
        made.promote("1")
        yield made
    mlflow.set_tracking_uri(None)


@pytest.fixture
def champion(site: Site) -> Registered:
    site.promote("1")
    return Registered("champion", site.params, site.folder)


@contextmanager
def followed(registered: Registered) -> Iterator[Deployment]:
    """A deployment that follows the registry twenty times a second."""
    deployment, stop = Deployment(), threading.Event()
    deployment.engine = load_version(registered, registered.version(), None)
    load = partial(load_version, registered, max_context=None)
    thread = threading.Thread(target=follow, args=(deployment, registered, load, 0.05, stop))
    thread.start()
    try:
        yield deployment
    finally:
        stop.set()
        thread.join(timeout=60)


def test_a_promoted_version_takes_over_and_running_answers_end_with_theirs(site: Site, champion: Registered) -> None:
    with followed(champion) as deployment, running(deployment) as url:
        assert deployment.engine
        pace = Pace(deployment.engine)
        pace.allow(1)
        stream = client(url).chat.completions.create(model=NAME, stream=True, **ASKED)
        versions = [next(stream).model]
        site.promote("2")
        eventually(lambda: httpx.get(f"{url}/health").json()["model"] == f"{NAME}/2", 60)
        assert client(url).chat.completions.create(model=NAME, **ASKED).model == f"{NAME}/2"
        pace.lift()
        rest = list(stream)
        assert {*versions, *(chunk.model for chunk in rest)} == {f"{NAME}/1"}
        assert rest[-1].choices[0].finish_reason == "length"


def test_without_mlflow_it_goes_on_and_follows_again_afterwards(
    site: Site, champion: Registered, caplog: pytest.LogCaptureFixture
) -> None:
    there, gone = champion.client, MlflowClient("http://127.0.0.1:9")
    with caplog.at_level("INFO"), followed(champion) as deployment, running(deployment) as url:
        champion.client = gone
        eventually(lambda: "asks again in" in caplog.text, 60)
        assert client(url).chat.completions.create(model=NAME, **ASKED).model == f"{NAME}/1"
        site.promote("2")
        champion.client = there
        eventually(lambda: httpx.get(f"{url}/health").json()["model"] == f"{NAME}/2", 60)


def test_a_version_that_cannot_be_loaded_changes_nothing(
    site: Site, champion: Registered, caplog: pytest.LogCaptureFixture
) -> None:
    broken = site.add(3)
    for weights in (site.folder / "artifacts").rglob(f"{broken.source.removeprefix('models:/')}/**/model.safetensors"):
        weights.write_bytes(b"cut off")
    with followed(champion) as deployment:
        site.promote(broken.version)
        eventually(lambda: "asks again in" in caplog.text, 60)
        assert deployment.current().source.version == f"{NAME}/1"


def test_a_version_from_before_is_asked_as_its_run_says(site: Site, tmp_path: Path) -> None:
    tokenizer = tiny.tokenizer(chat=True)
    policy = {"policy.prompt_format": "chat_template", "policy.max_length": 77, "policy.dtype": "float32"}
    for recorded in (policy, {}):
        with mlflow.start_run():
            mlflow.log_params(recorded)
            mlflow.transformers.log_model(
                {"model": tiny.llama(tokenizer), "tokenizer": tokenizer},
                name="model",
                task="text-generation",
                pip_requirements=["torch"],
                registered_model_name="old",
            )
    registered = Registered("old/1", site.params, site.folder)
    settings = registered.source(registered.version(), tmp_path).settings
    assert settings == PolicySettings(prompt_format="chat_template", max_length=77, dtype="float32")

    unknown = Registered("old/2", site.params, site.folder)
    with pytest.raises(UserError, match="clha register"):
        unknown.source(unknown.version(), tmp_path / "2")


def test_a_download_has_nothing_of_the_one_before(champion: Registered, tmp_path: Path) -> None:
    other = champion.source(champion.version(), tmp_path).weights / "model-00001-of-00002.safetensors"
    other.touch()
    assert champion.source(champion.version(), tmp_path).weights == other.parent
    assert [path.name for path in other.parent.glob("*.safetensors")] == ["model.safetensors"]


def test_a_version_has_no_pickles_and_loads_as_a_pipeline(site: Site, tmp_path: Path) -> None:
    folder = Path(mlflow.artifacts.download_artifacts(f"models:/{NAME}/1", dst_path=str(tmp_path)))
    kinds = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert ".safetensors" in kinds
    assert not kinds & {".pkl", ".pickle", ".bin", ".pt", ".pth", ".pyc", ".joblib"}
    before = list(sys.path)
    generate = mlflow.transformers.load_model(f"models:/{NAME}/1")
    assert generate("\n\nHuman: Why?\n\nAssistant:", max_new_tokens=2)
    assert sys.path == before


def test_the_pages_examples_run_and_mlflows_server_gives_the_same_answer(site: Site) -> None:
    """One test, so that both servers start at the same time."""
    site.promote("1")
    ours, theirs = free_port(), free_port()
    with (
        site.started("clha_core", "serve", "--server", "own", "--port", str(ours)),
        site.started(
            "mlflow", "models", "serve", "-m", f"models:/{NAME}@champion", "--env-manager", "local", "-p", str(theirs)
        ),
    ):
        for port in (ours, theirs):
            wait_for(f"http://127.0.0.1:{port}", "/health", 120)

        page = PAGE.replace(":8000", f":{ours}").replace(":5001", f":{theirs}")
        curls = re.findall(r"^curl .*?}'$", page, flags=re.S | re.M)
        here, there = (
            json.loads(subprocess.run(["bash", "-c", curl], capture_output=True, text=True, check=True).stdout)
            for curl in curls
        )
        assert here["choices"] == there["choices"]
        assert len(here["choices"][0]["message"]["content"]) > 10
        assert here["model"] == f"{NAME}/1"
        assert here["system_fingerprint"] == there["system_fingerprint"]

        (example,) = re.findall(r"```python\n(.*?)```", page, flags=re.S)
        assert subprocess.run([sys.executable, "-c", example], capture_output=True, check=True).stdout

        refused = httpx.post(f"http://127.0.0.1:{theirs}/invocations", json=ASKED | {"n": 2})
        assert refused.status_code == 400
        assert "n: " in refused.json()["message"]


def test_a_model_that_does_not_exist_is_a_sentence(site: Site) -> None:
    with pytest.raises(UserError, match="clha registry list"):
        Registered("nothing/7", site.params, site.folder).version()
