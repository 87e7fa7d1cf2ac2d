"""The HTTP server's routes: OpenAI's chat completions and models, and a health check."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from anyio.to_thread import current_default_thread_limiter
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import JSONResponse, Response

from clha_core.serving.admission import Admission
from clha_core.serving.answer import Answer
from clha_core.serving.chat import ChatRequest
from clha_core.serving.engine import Engine
from clha_core.serving.errors import ApiError, broken, invalid, loading, unknown_model
from clha_core.serving.gate import Gate

CHECKING_THREADS = 4  # tokenize requests while all places are taken


@dataclass(frozen=True)
class Limits:
    """What is refused, and with what status.

    Attributes:
        running: requests that generate at once.
        waiting: requests that wait for it (429 beyond).
        max_body: bytes (413 beyond).
    """

    running: int
    waiting: int
    max_body: int


class Deployment:
    """The engine that answers new requests: another may take its place while it answers the ones that it has."""

    def __init__(self) -> None:
        self.engine: Engine | None = None  # replaced whole, so that a thread may do it at any time

    def current(self) -> Engine:
        """Raises:
        ApiError: none is loaded yet.
        """
        if self.engine is None:
            raise loading()
        return self.engine


def create_app(deployment: Deployment, limits: Limits, key: str | None, names: Sequence[str]) -> FastAPI:
    """The application.

    Args:
        names: without a key, only requests to these hosts are answered. Such a server has no protection but where it
            listens, and a page of the web can have a browser send requests there under a name of its own (DNS
            rebinding).
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # Each answer computes in a thread, and anyio has 40 at most if nothing is said.
        current_default_thread_limiter().total_tokens = limits.running + CHECKING_THREADS
        yield

    # No pages of documentation: they load scripts from elsewhere.
    app = FastAPI(title="CLHA", openapi_url=None, lifespan=lifespan)
    app.add_middleware(Gate, key=key, max_body=limits.max_body)
    if key is None:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=names)
    app.add_exception_handler(RequestValidationError, _not_valid)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(Exception, _failed)
    admission = Admission(limits.running, limits.waiting)

    @app.get("/health")
    async def health() -> JSONResponse:
        engine = deployment.engine
        if engine is None:
            return JSONResponse({"status": "loading"}, 503)
        return JSONResponse({"status": "ok", "model": engine.source.version, "fingerprint": engine.source.fingerprint})

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        source = deployment.current().source
        names = dict.fromkeys([source.name, source.version])
        return {"object": "list", "data": [_model(name) for name in names]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        _require_model(name, deployment.current())
        return _model(name)

    @app.post("/v1/chat/completions", response_model=None)
    async def chat(request: ChatRequest) -> Response:
        engine = deployment.current()
        _require_model(request.model, engine)
        admission.enter()
        try:
            job = await run_in_threadpool(engine.job, request)
        except BaseException:
            admission.leave()
            raise
        return Answer(engine, request, job, admission)

    return app


def _require_model(name: str, engine: Engine) -> None:
    if name not in (engine.source.name, engine.source.version):
        raise unknown_model(name, engine.source.name)


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "clha"}


def _not_valid(request: Request, error: Exception) -> Response:
    """OpenAI answers 400 where FastAPI would answer 422; the first problem is enough."""
    assert isinstance(error, RequestValidationError)
    problem = error.errors()[0]
    param = _name(problem["loc"][1:])
    return invalid(f"{param or 'The body'}: {problem['msg']}.", param or None).response()


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error, ApiError):
        return error.response()
    return ApiError(error.status_code, str(error.detail), headers=dict(error.headers or {})).response()


def _failed(request: Request, error: Exception) -> Response:
    return broken().response()


def _name(path: Sequence[Any]) -> str:
    """messages[0].content; of a body that is no JSON, pydantic gives the place of the fault instead of a name."""
    parts = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return parts.removeprefix(".") if path and isinstance(path[0], str) else ""
