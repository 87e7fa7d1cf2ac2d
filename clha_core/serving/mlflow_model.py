"""A registered version as MLflow's own server runs it: `mlflow models serve`, POST /invocations.

MLflow imports this module from the copy of clha_core that lies beside the weights: no pickle, and the code that the
version was registered with.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from pydantic import ValidationError

from clha_core.serving.chat import ChatRequest, Envelope
from clha_core.serving.engine import Engine
from clha_core.serving.errors import ApiError
from clha_core.serving.source import PolicySettings, version_source


class ChatPolicy:
    """Answers the bodies that /v1/chat/completions takes, whole; `model` may be missing."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def predict(self, data: Any, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The body of a chat completion.

        Raises:
            MlflowException: a request that does not fit (status 400).
        """
        if not isinstance(data, Mapping) or data.get("stream"):
            raise _refused('send {"messages": [{"role": "user", "content": "..."}], ...} without `stream`.')
        source = self._engine.source
        try:
            job = self._engine.job(ChatRequest.model_validate({"model": source.name} | dict(data)))
        except ValidationError as error:
            problem = error.errors()[0]
            raise _refused(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}") from None
        except ApiError as error:
            raise _refused(error.detail) from None
        return Envelope(source.version, source.fingerprint).completion(*self._engine.complete(job))


def _refused(message: str) -> MlflowException:
    return MlflowException(message, error_code=INVALID_PARAMETER_VALUE)


def _load_pyfunc(path: str, model_config: Mapping[str, Any]) -> ChatPolicy:
    """Called by MLflow with the folder of the version and the settings in its MLmodel file."""
    return ChatPolicy(Engine(version_source(Path(path), PolicySettings.model_validate(dict(model_config)))))
