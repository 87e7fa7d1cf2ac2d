"""The deployed stack, service by service as docker-compose.yml has it, and a run of the pipeline through all of it."""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID

import boto3
import psycopg2
import pytest
from botocore.exceptions import ClientError
from native_stack import Stack, native_stack
from prefect.client.orchestration import SyncPrefectClient
from project import Project, clone_with_cache

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(1800)]

RUN_SECONDS = 900.0
# All before it comes from the cache of `make pipeline`.
PRESET = "# A little different.\ntrain: { margin: 1.25 }\n"


@pytest.fixture(scope="module")
def project(pipeline: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A checkout with the pipeline's results in its cache, and secrets of its own."""
    clone = clone_with_cache(pipeline, tmp_path_factory.mktemp("stack") / "project")
    clone.dvc("remote", "remove", "store")
    (clone.root / "presets" / "stack.yaml").write_text(PRESET, encoding="utf-8")
    clone.commit("a preset; no remote but the stack's")
    clone.make("secrets")
    return clone


@pytest.fixture(scope="module")
def stack(project: Project) -> Iterator[Stack]:
    with native_stack(project.root) as running:
        yield running


@pytest.fixture(scope="module")
def run_id(stack: Stack) -> UUID:
    """A run of the pipeline that was started through Prefect's API and has completed."""
    auth = stack.environment("worker")["PREFECT_API_AUTH_STRING"]
    with SyncPrefectClient(stack.environment("worker")["PREFECT_API_URL"], auth_string=auth) as client:
        deadline = time.monotonic() + RUN_SECONDS
        while not (found := [one for one in client.read_deployments() if one.name == "stack"]):
            assert time.monotonic() < deadline, stack.log("worker").read_text()
            time.sleep(0.5)
        run = client.create_flow_run_from_deployment(found[0].id)
        while not (state := client.read_flow_run(run.id).state) or not state.is_final():
            assert time.monotonic() < deadline, stack.log("worker").read_text()
            time.sleep(0.5)
    assert state.is_completed(), f"{state}\n{stack.log('worker').read_text()[-8000:]}"
    return run.id


def sql(stack: Stack, query: str, database: str, role: str) -> list[tuple[Any, ...]]:
    """Rows of a query, as the server's own role sees them."""
    password = stack.secrets[f"{role.upper()}_DB_PASSWORD"]
    where = {"host": "127.0.0.1", "port": stack.ports[5432], "dbname": database, "user": role, "password": password}
    with closing(psycopg2.connect(**where)) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchall()


def bucket_keys(stack: Stack, bucket: str, account: str) -> list[str]:
    """Names of the objects in a bucket, listed with the keys of an account of the store."""
    client = boto3.client(
        "s3",
        endpoint_url=stack.url(8333),
        region_name="us-east-1",
        aws_access_key_id=stack.secrets[f"S3_{account}_ACCESS_KEY"],
        aws_secret_access_key=stack.secrets[f"S3_{account}_SECRET_KEY"],
    )
    return [entry["Key"] for entry in client.list_objects_v2(Bucket=bucket).get("Contents", [])]


def status(url: str) -> int:
    """The HTTP status of a request without a password."""
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.usefixtures("run_id")
def test_every_service_stays_healthy_by_its_own_check(stack: Stack) -> None:
    assert [name for name in stack.order() if name != "buckets" and not stack.is_healthy(name)] == []


def test_both_servers_keep_their_state_in_postgresql(stack: Stack, run_id: UUID) -> None:
    assert sql(stack, f"SELECT state_type FROM flow_run WHERE id = '{run_id}'", "prefect", "prefect") == [
        ("COMPLETED",)
    ]
    assert sql(stack, "SELECT name FROM registered_models", "mlflow", "mlflow") == [("clha-policy",)]
    assert sql(stack, "SELECT username, is_admin FROM users", "mlflow_auth", "mlflow") == [("clha", True)]


@pytest.mark.usefixtures("run_id")
def test_a_server_cannot_read_the_other_ones_database(stack: Stack) -> None:
    with pytest.raises(psycopg2.OperationalError, match="permission denied for database"):
        sql(stack, "SELECT 1", "mlflow", "prefect")


def test_what_a_run_made_is_pulled_from_s3_by_another_clone(
    stack: Stack, project: Project, run_id: UUID, tmp_path: Path
) -> None:
    (reference,) = project.run("git", "for-each-ref", "--format=%(refname)", "refs/exps/*/*/*").split()
    project.run("git", "clone", "--quiet", "--no-checkout", str(project.root), str(tmp_path / "clone"))
    clone = Project(tmp_path / "clone")
    clone.run("git", "fetch", "--quiet", "origin", reference)
    clone.run("git", "checkout", "--quiet", "FETCH_HEAD")
    environment = {**Project.environment(), **stack.environment("worker")}
    pulled = subprocess.run(
        [sys.executable, "-m", "dvc", "pull"],
        cwd=clone.root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert pulled.returncode == 0, pulled.stderr
    assert (clone.root / "models" / "aligned" / "model.safetensors").exists()
    assert "up to date" in clone.dvc("status")
    assert str(run_id)[:8] in reference


def test_artifacts_pass_through_mlflow_which_alone_has_the_keys_of_their_bucket(
    stack: Stack, run_id: UUID, tmp_path: Path
) -> None:
    """The client has MLflow's address and password, and nothing of the store."""
    connection = {name: value for name, value in stack.environment("worker").items() if name.startswith("MLFLOW_")}
    code = "import mlflow, sys; mlflow.artifacts.download_artifacts(sys.argv[1], dst_path=sys.argv[2])"
    subprocess.run(
        [sys.executable, "-c", code, "models:/clha-policy/1", str(tmp_path)],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), **connection},
        check=True,
    )
    assert list(tmp_path.rglob("*.safetensors"))
    assert any(key.endswith(".safetensors") for key in bucket_keys(stack, "clha-mlflow", "MLFLOW"))
    with pytest.raises(ClientError, match="AccessDenied"):
        bucket_keys(stack, "clha-mlflow", "DVC")


def test_nobody_is_answered_without_a_password(stack: Stack) -> None:
    assert status(f"{stack.url(4200)}/api/deployments/name/clha/stack") == 401
    assert status(f"{stack.url(5000)}/api/2.0/mlflow/experiments/search?max_results=1") == 401
    assert status(f"{stack.url(5000)}/") == 401
    assert status(f"{stack.url(8333)}/clha-dvc") == 403


@pytest.mark.usefixtures("run_id")
def test_no_password_is_written_to_a_log(stack: Stack) -> None:
    logs = "".join(stack.log(name).read_text(encoding="utf-8", errors="replace") for name in stack.services)
    assert "GET /api" in logs or "Finished in state" in logs, "these are no logs"
    passwords = {value for name, value in stack.secrets.items() if not name.startswith("CLHA_")}
    assert [password for password in passwords if password in logs] == []
