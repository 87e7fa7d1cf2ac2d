"""What MLflow was told while it did not answer: kept on disk, and sent when it does.

A training of hours goes on while its MLflow server is down. Every call that the server does not take is a line of
.clha/mlflow-outbox/RUN.jsonl, and so is every later one, so that their order stays. The lines are sent when the server
answers again: by the training itself, else by the next command that uses MLflow (`clha_core.tracking.mlflow_tracker`).
"""

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from mlflow.exceptions import MlflowException

from clha_core import paths
from clha_core.addresses import public_address
from clha_core.tracking.lineage import project_home

PROBE_SECONDS = 30.0  # between two looks at a server that is down
PROBE_TIMEOUT = 2.0
SERVER_ERRORS = 500  # HTTP's, which MLflow's own errors are mapped to

Send = Callable[[str, dict[str, Any]], None]


def is_down(error: MlflowException) -> bool:
    """Whether the server did not answer or could not work, rather than refused what it was asked."""
    return error.get_http_status_code() >= SERVER_ERRORS


def answers(uri: str) -> bool:
    """Whether a look at the server is worth more than a moment; a database that is no server always is."""
    if not uri.startswith("http"):
        return True
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=PROBE_TIMEOUT):
            return True
    except urllib.error.HTTPError as error:
        return error.code < SERVER_ERRORS
    except (OSError, http.client.HTTPException):
        return False


class Outbox:
    """The calls of one run that wait. While it is open, no other process sends them.

    Args:
        root: the checkout, or a workspace inside it.
        uri: of the server that they are for.
    """

    def __init__(self, root: Path, uri: str, run_id: str) -> None:
        self._file = outbox_folder(root) / f"{run_id}.jsonl"
        self._uri, self._run_id = public_address(uri), run_id
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._lock = _lock_of(self._file)
        self._lock.acquire()
        _mend(self._file)

    @property
    def waiting(self) -> bool:
        return self._file.exists()

    def keep(self, method: str, arguments: Mapping[str, Any]) -> None:
        """Add a call; it is on the disk afterwards, for nobody else to read.

        Raises:
            OSError: the disk is full; nothing of the call is there.
        """
        lines: list[dict[str, Any]] = [] if self.waiting else [{"uri": self._uri, "run": self._run_id}]
        lines.append({"method": method, "arguments": arguments})
        try:
            with open(self._file, "a", encoding="utf-8", opener=_private) as file:
                file.writelines(json.dumps(line) + "\n" for line in lines)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            _mend(self._file)
            raise

    def flush(self, send: Send) -> None:
        """Send what waits.

        Raises:
            MlflowException: it was not taken; what is left goes on waiting.
        """
        if self.waiting:
            _send_file(self._file, send)

    def close(self) -> None:
        self._lock.release()


class PatientTracker:
    """Hands everything on to a tracker; while its server is down, to an outbox, without waiting for the server.

    Args:
        send: calls a method of the tracker behind, by name; raises MlflowException.
        uri: of the server.
    """

    def __init__(self, outbox: Outbox, send: Send, uri: str) -> None:
        self._outbox, self._send, self._uri = outbox, send, uri
        self._where = public_address(uri)
        self._next_look = 0.0

    def log_params(self, params: Mapping[str, object]) -> None:
        # As MLflow keeps them: texts.
        self.call("log_params", {"params": {name: str(value) for name, value in params.items()}})

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.call("log_metrics", {"metrics": dict(metrics), "step": step, "at": now()})

    def log_dataset(self, name: str, path: Path, digest: str, context: str) -> None:
        self.call("log_dataset", {"name": name, "path": str(path), "digest": digest, "context": context})

    def log_artifact(self, path: Path, folder: str) -> None:
        self.call("log_artifact", {"path": str(path.absolute()), "folder": folder})

    def log_table(self, columns: Mapping[str, Sequence[object]], path: str) -> None:
        self.call("log_table", {"columns": {name: list(values) for name, values in columns.items()}, "path": path})

    def set_tags(self, tags: Mapping[str, str]) -> None:
        self.call("set_tags", {"tags": dict(tags)})

    def end(self, status: str) -> None:
        """The run has ended, as FINISHED or FAILED; looks at the server however short ago the last look was."""
        self._next_look = 0.0
        self.call("end", {"status": status, "at": now()})

    def call(self, method: str, arguments: dict[str, Any]) -> None:
        """Call a method of the tracker behind, now or later."""
        if self._reconnected():
            try:
                self._send(method, arguments)
                return
            except MlflowException as error:
                if not is_down(error):
                    raise
                self._say_down()
        self._outbox.keep(method, arguments)

    def _reconnected(self) -> bool:
        """Whether the server has all that came before this call."""
        if not self._outbox.waiting:
            return True
        if time.monotonic() < self._next_look:
            return False
        self._next_look = time.monotonic() + PROBE_SECONDS
        if not answers(self._uri):
            return False
        try:
            self._outbox.flush(self._send)
        except MlflowException as error:
            if not is_down(error):
                raise
            return False
        print(f"MLflow at {self._where} answers again and has the whole record so far.", flush=True)
        return True

    def _say_down(self) -> None:
        self._next_look = time.monotonic() + PROBE_SECONDS
        print(
            f"MLflow at {self._where} does not answer. The work goes on; what is to be recorded waits on disk and is "
            "sent when MLflow answers again, at the latest by the next command that uses it.",
            flush=True,
        )


def now() -> int:
    """Milliseconds, as MLflow counts them."""
    return int(time.time() * 1000)


def outbox_folder(root: Path) -> Path:
    """Where calls wait; one for a checkout and its workspaces."""
    return project_home(root) / paths.SCRATCH / "mlflow-outbox"


def deliver(root: Path, uri: str, sender: Callable[[str], Send]) -> None:
    """Send what earlier trainings left for a server that answers now; those that still run send theirs themselves.

    Args:
        sender: gives what sends for a run, by its id.

    Raises:
        MlflowException: the server is down again.
    """
    for file in sorted(outbox_folder(root).glob("*.jsonl")):
        lock = _lock_of(file)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        try:
            _mend(file)
            if file.exists() and public_address((address := _read(file)[0])["uri"]) == public_address(uri):
                _deliver_file(file, address["run"], sender)
        finally:
            lock.release()


def _deliver_file(file: Path, run_id: str, sender: Callable[[str], Send]) -> None:
    try:
        _send_file(file, sender(run_id))
        print(f"MLflow has the rest of the record of run {run_id}, which waited here.", flush=True)
    except MlflowException as error:
        if is_down(error):
            raise
        refused = file.replace(file.with_suffix(".refused"))
        print(f"MLflow refused the rest of the record of run {run_id} ({error}); it is kept in {refused}.", flush=True)


def _send_file(file: Path, send: Send) -> None:
    """A line that is sent twice, because something broke off in between, changes nothing at the server."""
    for call in _read(file)[1:]:
        send(call["method"], call["arguments"])
    file.unlink()


def _read(file: Path) -> list[dict[str, Any]]:
    with file.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _mend(file: Path) -> None:
    """Remove what a kill or a full disk cut off: half a line, which was never reported as kept, or an empty file."""
    if not file.exists():
        return
    if whole := file.read_bytes().rfind(b"\n") + 1:
        os.truncate(file, whole)
    else:
        file.unlink()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, mode=0o600)


def _lock_of(file: Path) -> FileLock:
    """The operating system's: a process that dies gives it back."""
    return FileLock(file.with_suffix(".lock"))
