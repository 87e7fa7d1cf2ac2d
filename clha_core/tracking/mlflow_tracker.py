"""The Tracker that writes to MLflow. The server is named by MLFLOW_TRACKING_URI; without it, a local database."""

import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path, PurePosixPath

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import mlflow
from mlflow import MlflowClient
from mlflow.data.dataset_source_registry import resolve_dataset_source
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

from clha_core import paths
from clha_core.addresses import public_address
from clha_core.digest import folder_digest
from clha_core.errors import UserError
from clha_core.params import Params
from clha_core.tracking.lineage import DVC_MD5_TAG, MODEL_DIGEST_TAG, project_home
from clha_core.tracking.outbox import Outbox, PatientTracker, Send, deliver, now
from clha_core.tracking.record import rebuild_record, run_name
from clha_core.tracking.server import server_uri, unusable
from clha_core.tracking.turns import DATABASE, FINISHED_MODELS, turn

PARAMS_PER_REQUEST = 100  # MLflow's limit for one batch
SYSTEM_METRICS_SECONDS = "2"

# Remarks on its tables, and on hub pages that a model of ours does not have.
for _chatty in ("mlflow.store.db.utils", "mlflow.transformers", "alembic"):
    logging.getLogger(_chatty).setLevel(logging.ERROR)


class MlflowTracker:
    """Writes to a run of MLflow; names of arguments are those of lines in an outbox too."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._client = MlflowClient()
        self._id = run.info.run_id

    def log_params(self, params: Mapping[str, object]) -> None:
        items = [Param(name, str(value)) for name, value in params.items()]
        for start in range(0, len(items), PARAMS_PER_REQUEST):
            self._client.log_batch(self._id, params=items[start : start + PARAMS_PER_REQUEST])

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None, at: int | None = None) -> None:
        """`at`: milliseconds; now without it."""
        moment = now() if at is None else at
        items = [Metric(name, float(value), moment, step or 0) for name, value in metrics.items()]
        self._client.log_batch(self._id, metrics=items)

    def log_dataset(self, name: str, path: Path, digest: str, context: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MLflow registers its source for local files twice, and says so
            source = resolve_dataset_source(str(path))
        facts = MetaDataset(source, name=name, digest=digest[:36]).to_dict()
        tags = [InputTag(DVC_MD5_TAG, digest), InputTag(MLFLOW_DATASET_CONTEXT, context)]
        inputs = [DatasetInput(Dataset(**facts), tags)]
        try:
            self._client.log_inputs(self._id, inputs)
        except MlflowException:
            # Another run names the same data for the first time at this moment, and MLflow wants to insert them twice.
            # Now they are there.
            self._client.log_inputs(self._id, inputs)

    def log_artifact(self, path: Path, folder: str) -> None:
        if Path(path).is_dir():
            self._client.log_artifacts(self._id, str(path), folder)
        else:
            self._client.log_artifact(self._id, str(path), folder)

    def log_table(self, columns: Mapping[str, Sequence[object]], path: str) -> None:
        folder = str(PurePosixPath(path).parent)
        if path not in [artifact.path for artifact in self._client.list_artifacts(self._id, folder)]:
            rows = {name: list(values) for name, values in columns.items()}
            self._client.log_table(self._id, rows, path)  # MLflow would append to one that is there

    def set_tags(self, tags: Mapping[str, str]) -> None:
        self._client.log_batch(self._id, tags=[RunTag(name, value) for name, value in tags.items()])

    def end(self, status: str, at: int) -> None:
        """The run has ended, in milliseconds `at`."""
        self._client.set_terminated(self._id, status, at)


def sender_of(run_id: str) -> Send:
    """Calls methods of a run's MlflowTracker by name, as outboxes keep them."""
    tracker = MlflowTracker(MlflowClient().get_run(run_id))
    return lambda method, arguments: getattr(tracker, method)(**arguments)


@contextmanager
def _named_server() -> Iterator[None]:
    """Turn what MLflow raises into what a user can do about it."""
    try:
        yield
    except MlflowException as error:
        raise UserError(unusable(error)) from None


def connect(root: Path, experiment: str) -> MlflowClient:
    """Choose the server and the experiment; both exist afterwards, and the server gets what waited for it.

    Raises:
        UserError: the server does not answer. A training that could not be recorded does not start.
    """
    # MLflow repeats a failed request for minutes by default; a server that is down should be named in seconds.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    uri = server_uri()
    home = project_home(root)
    mlflow.set_tracking_uri(uri or f"sqlite:///{home / 'mlflow.db'}")
    with _named_server():
        with nullcontext() if uri else turn(root, DATABASE):
            client = MlflowClient()  # makes the tables of a new database
            _require_experiment(client, experiment, None if uri else (home / "mlartifacts").as_uri())
            mlflow.set_experiment(experiment)
        deliver(root, mlflow.get_tracking_uri(), sender_of)
    return client


def _require_experiment(client: MlflowClient, name: str, artifact_location: str | None) -> None:
    if client.get_experiment_by_name(name) is not None:
        return
    try:
        client.create_experiment(name, artifact_location=artifact_location)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another run made it meanwhile
            raise


@contextmanager
def training_run(params: Params, root: Path, checkpoints: Path) -> Iterator[PatientTracker]:
    """One run for one training, with system metrics; it is marked failed when the block raises.

    A training that goes on from `checkpoints` after a crash goes on in the run that it began. A server that stops
    answering once the block has begun does not stop the training: what it misses waits in an outbox.

    Raises:
        UserError: the server does not answer at the start.
    """
    connect(root, params.registry.experiment)
    os.environ.setdefault("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", SYSTEM_METRICS_SECONDS)
    logging.getLogger("mlflow.system_metrics").setLevel(logging.WARNING)  # tells of its start and end
    note = checkpoints / "mlflow_run_id"
    begun = note.read_text(encoding="utf-8") if note.exists() else None
    with _named_server():
        known = begun is not None and mlflow.search_runs(
            experiment_names=[params.registry.experiment],
            filter_string=f"attributes.run_id = '{begun}'",
            output_format="list",
        )
        run = mlflow.start_run(run_id=begun if known else None, run_name=run_name(params), log_system_metrics=True)
        checkpoints.mkdir(parents=True, exist_ok=True)
        note.write_text(run.info.run_id, encoding="utf-8")
        send = sender_of(run.info.run_id)
    outbox = Outbox(root, mlflow.get_tracking_uri(), run.info.run_id)
    tracker = PatientTracker(outbox, send, mlflow.get_tracking_uri())
    status = "FAILED"
    try:
        yield tracker
        status = "FINISHED"
    finally:
        tracker.end(status)
        with suppress(MlflowException):  # tells the server again what it has, or what waits for it
            mlflow.end_run(status)
        outbox.close()


@contextmanager
def run_of_model(params: Params, root: Path) -> Iterator[MlflowTracker]:
    """The run whose training ended in models/aligned, opened again to add what is learned about the model later.

    Where this server has no such run (the outputs were pulled, or come from DVC's run cache), one is written from
    what DVC kept of the training.
    """
    with turn(root, FINISHED_MODELS):
        found = find_run(params.registry.experiment, folder_digest(root / paths.ALIGNED_MODEL))
        if found is not None:
            with reopened_run(found.info.run_id) as run:
                yield MlflowTracker(run)
        else:
            with mlflow.start_run(run_name=run_name(params), log_system_metrics=False) as run:
                tracker = MlflowTracker(run)
                rebuild_record(tracker, params, root)
                yield tracker


@contextmanager
def reopened_run(run_id: str) -> Iterator[Run]:
    """The run of a finished model, active again; afterwards finished, with the end that it had.

    Its status before does not count: it is RUNNING in the moment before a training ends, and stays so where a
    process that had it open was killed.
    """
    client = MlflowClient()
    end = client.get_run(run_id).info.end_time
    try:
        with mlflow.start_run(run_id=run_id, log_system_metrics=False) as run:
            yield run
    finally:
        client.set_terminated(run_id, "FINISHED", end)


def find_run(experiment: str, model_digest: str) -> Run | None:
    """The newest run whose training ended in exactly this model (only a training that ended has the tag)."""
    runs = mlflow.search_runs(
        experiment_names=[experiment],
        filter_string=f"tags.`{MODEL_DIGEST_TAG}` = '{model_digest}'",
        order_by=["attributes.start_time DESC"],
        max_results=1,
        output_format="list",
    )
    return runs[0] if runs else None


def run_link(run: Run) -> str:
    """Where to look at a run: a page of the server, or the run's id in the local database."""
    page = _page(f"experiments/{run.info.experiment_id}/runs/{run.info.run_id}")
    return page or f"run {run.info.run_id} (make mlflow shows it)"


def version_link(name: str, number: str) -> str:
    """The page of a registered version; empty where there is no server."""
    return _page(f"models/{name}/versions/{number}")


def _page(place: str) -> str:
    uri = public_address(os.environ.get("CLHA_MLFLOW_UI_URL") or mlflow.get_tracking_uri())
    return f"{uri.rstrip('/')}/#/{place}" if uri.startswith("http") else ""
