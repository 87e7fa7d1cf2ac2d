"""S3 fails every third request: what goes there and comes back is right all the same."""

from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from mlflow import MlflowClient
from toy_project import commit, make_toy_project, run

from clha_core.digest import folder_digest
from reliability.faulty_proxy import FaultyProxy
from reliability.servers import S3_KEYS, s3_server

pytestmark = [pytest.mark.slow, pytest.mark.long]


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyProxy]:
    folder = tmp_path_factory.mktemp("s3")
    keys = {
        "aws_access_key_id": S3_KEYS["AWS_ACCESS_KEY_ID"],
        "aws_secret_access_key": S3_KEYS["AWS_SECRET_ACCESS_KEY"],
    }
    with s3_server(folder) as server, FaultyProxy(server.port) as proxy:
        client = boto3.client("s3", endpoint_url=server.url, region_name=S3_KEYS["AWS_DEFAULT_REGION"], **keys)
        client.create_bucket(Bucket="faulty")
        yield proxy


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**S3_KEYS, "DVC_NO_ANALYTICS": "1"}.items():
        monkeypatch.setenv(name, value)


def fill(folder: Path, files: int) -> None:
    folder.mkdir()
    for number in range(files):
        (folder / f"{number}.bin").write_bytes(bytes([number]) * 10_000 * (number + 1))


def test_dvc_pushes_and_pulls_every_byte(s3: FaultyProxy, tmp_path: Path) -> None:
    dvc = ["python", "-m", "dvc"]
    project = make_toy_project(tmp_path / "project", "train: {margin: 3.0}\n")
    fill(project / "data", 20)
    run(project, *dvc, "add", "--quiet", "data")
    run(project, *dvc, "remote", "add", "--default", "store", "s3://faulty/dvc")
    run(project, *dvc, "remote", "modify", "store", "endpointurl", s3.url)
    commit(project)
    failed = sum(s3.failed.values())
    run(project, *dvc, "push", "--quiet")
    run(tmp_path, "git", "clone", "--quiet", str(project), "clone")
    run(tmp_path / "clone", *dvc, "pull", "--quiet", "data.dvc")
    assert folder_digest(tmp_path / "clone" / "data") == folder_digest(project / "data")
    assert sum(s3.failed.values()) - failed > 10
    assert all(s3.failed.values()), "a way to fail was not met"


def test_mlflow_keeps_every_artifact(s3: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", s3.url)
    fill(tmp_path / "report", 12)
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.create_experiment("clha", artifact_location="s3://faulty/mlflow")
    run_id = client.create_run(experiment).info.run_id
    failed = sum(s3.failed.values())
    client.log_artifacts(run_id, str(tmp_path / "report"), "evaluation")
    client.download_artifacts(run_id, "evaluation", str(tmp_path))
    assert folder_digest(tmp_path / "evaluation") == folder_digest(tmp_path / "report")
    assert sum(s3.failed.values()) > failed
