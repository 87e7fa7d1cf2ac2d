"""What vLLM has to be told of every request, as ASGI middleware that vLLM loads (`--middleware`).

vLLM has no option for texts that end every answer. It may live in an environment of its own, so this file is copied to
where it finds it, and imports nothing but the standard library.
"""

import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

VARIABLE = "CLHA_VLLM_CONTRACT"  # JSON: {"stop": [...], "stop_token_ids": [...], "max_body": bytes}
PATH = "/v1/chat/completions"

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Contract:
    """Adds the endings of training to chat requests, and refuses bodies over the limit."""

    def __init__(self, app: Callable[[Message, Receive, Send], Awaitable[None]]) -> None:
        self.app = app
        contract = json.loads(os.environ[VARIABLE])
        self._max_body = contract.pop("max_body")
        self._endings: dict[str, list[Any]] = contract

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != PATH:
            await self.app(scope, receive, send)
            return
        body, more = b"", True
        while more and len(body) <= self._max_body:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        if len(body) > self._max_body:
            await _refuse(send, f"The request is larger than {self._max_body} bytes.")
            return
        body = self._with_endings(body)
        headers = [(name, value) for name, value in scope["headers"] if name.lower() != b"content-length"]
        scope = {**scope, "headers": [*headers, (b"content-length", str(len(body)).encode())]}
        given = False

        async def once() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, once, send)

    def _with_endings(self, body: bytes) -> bytes:
        try:
            request = json.loads(body)
            for name, endings in self._endings.items():
                own = request.get(name) or []
                request[name] = [*([own] if isinstance(own, str) else own), *endings]
        except (ValueError, AttributeError, TypeError):
            return body  # not a chat request: vLLM says what is wrong with it
        return json.dumps(request).encode()


async def _refuse(send: Send, text: str) -> None:
    error = {"message": text, "type": "invalid_request_error", "param": None, "code": "request_too_large"}
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps({"error": error}).encode()})
