"""Refusals in OpenAI's words: its clients make exceptions of the status, and show the message."""

from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse


class ApiError(HTTPException):
    """An answer that is not one: status, and the body that OpenAI's clients expect."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, headers)
        self.body: dict[str, Any] = {"error": {"message": message, "type": type, "param": param, "code": code}}

    def response(self) -> JSONResponse:
        return JSONResponse(self.body, self.status_code, self.headers)


def invalid(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """A request that does not fit (400)."""
    return ApiError(400, message, param=param, code=code)


def too_long(message: str, param: str = "messages") -> ApiError:
    """More tokens than the model takes (400)."""
    return invalid(message, param, "context_length_exceeded")


def wrong_key() -> ApiError:
    """No API key, or another one (401)."""
    message = "Incorrect API key: send the server's CLHA_SERVE_API_KEY as `Authorization: Bearer KEY`."
    return ApiError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})


def unknown_model(asked: str, served: str) -> ApiError:
    """Another model than the one that is served (404)."""
    return ApiError(
        404, f"The model {asked!r} is not served here; {served!r} is.", param="model", code="model_not_found"
    )


def too_large(limit: int) -> ApiError:
    """A body over the limit (413)."""
    return ApiError(413, f"The request is larger than {limit} bytes.", code="request_too_large")


def busy(seconds: int) -> ApiError:
    """As many requests as fit are under way or waiting (429)."""
    return ApiError(
        429,
        "The server is busy: ask again later.",
        type="rate_limit_error",
        code="rate_limit_exceeded",
        headers={"Retry-After": str(seconds)},
    )


def loading() -> ApiError:
    """The model is not in memory yet (503)."""
    return ApiError(
        503, "The model is being loaded.", type="server_error", code="model_loading", headers={"Retry-After": "5"}
    )


def broken() -> ApiError:
    """A fault of the server (500); its log says which."""
    return ApiError(500, "The server failed; its log says why.", type="server_error", code="internal_error")
