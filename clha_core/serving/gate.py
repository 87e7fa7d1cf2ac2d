"""What is refused before anything is parsed: wrong keys and large bodies."""

import secrets

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clha_core.serving.errors import ApiError, too_large, wrong_key

DRAINED = 16  # times the limit


class Gate:
    """ASGI middleware; a key is asked for below /v1 alone, so that a health check needs none.

    Args:
        key: None lets everybody in.
        max_body: bytes of a request's body.
    """

    def __init__(self, app: ASGIApp, *, key: str | None, max_body: int) -> None:
        self.app = app
        self._authorization = None if key is None else f"Bearer {key}".encode()
        self._max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            self._check(scope)
        except ApiError as error:
            await self._drain(receive)
            await error.response()(scope, receive, send)
            return
        size = 0

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._max_body:  # of a length that was not announced
                if message.get("more_body"):
                    await self._drain(receive)
                raise too_large(self._max_body)
            return message

        await self.app(scope, counted, send)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        if self._authorization is not None and scope["path"].startswith("/v1/"):
            given = headers.get("authorization", "").encode("latin-1")
            if not secrets.compare_digest(given, self._authorization):
                raise wrong_key()
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self._max_body:
            raise too_large(self._max_body)

    async def _drain(self, receive: Receive) -> None:
        """Read a body to throw it away: a client that is still sending when the connection closes sees no answer."""
        size = 0
        while size <= DRAINED * self._max_body:
            message = await receive()
            size += len(message.get("body", b""))
            if not message.get("more_body"):
                return
