"""What stands between clients and vLLM, as ASGI middleware that vLLM loads (`--middleware`).

vLLM has no option for texts that end every answer, and its key guards only some of what it answers. It may live in an
environment of its own, so this file is copied to where it finds it, and imports nothing but the standard library.
"""

import json
import os
import re
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

VARIABLE = "CLHA_VLLM_CONTRACT"  # JSON: {"stop": [...], "stop_token_ids": [...], "max_body": bytes, "hosts": see below}
KEY_VARIABLE = "VLLM_API_KEY"
HEALTH = "/health"
CHAT = "/v1/chat/completions"
PATHS = (HEALTH, "/v1/models", CHAT)
HOST = re.compile(rb"(\[.*\]|[^:]*)(:\d*)?")  # a name and a port

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Refusal(Exception):
    """An answer in vLLM's stead: HTTP status, OpenAI's code of the error, and a sentence."""

    def __init__(self, status: int, code: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.code = code

    async def answer(self, send: Send) -> None:
        error = {"message": str(self), "type": "invalid_request_error", "param": None, "code": self.code}
        headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps({"error": error}).encode()})


class Contract:
    """Lets through what our own server has too, and adds the endings of training to chat requests.

    Of all else that vLLM answers nothing is needed, and some of it loads weights or stops the server. Refused are also
    bodies over the limit; with a key, clients without it; without one, requests to other `hosts` than this machine (a
    page of the web can have a browser send them under a name of its own).
    """

    def __init__(self, app: Callable[[Message, Receive, Send], Awaitable[None]]) -> None:
        self.app = app
        contract = json.loads(os.environ[VARIABLE])
        self._max_body: int = contract.pop("max_body")
        hosts = contract.pop("hosts")  # None lets all through
        self._hosts = None if hosts is None else {host.lower().encode() for host in hosts}
        self._endings: dict[str, list[Any]] = contract
        key = os.environ.get(KEY_VARIABLE)
        self._authorization = f"Bearer {key}".encode() if key else None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            try:
                self._check(scope)
                body = await self._body(receive)
            except Refusal as refusal:
                await refusal.answer(send)
                return
            await self._pass_on(scope, body, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    def _check(self, scope: Message) -> None:
        if self._hosts is not None:
            parsed = HOST.fullmatch(_header(scope, b"host"))
            if parsed is None or parsed[1].lower() not in self._hosts:
                raise Refusal(400, "unknown_host", "This server is asked under a name of this machine alone.")
        if scope["path"] not in PATHS:
            raise Refusal(404, "not_found", f"Served here are {', '.join(PATHS)}.")
        # vLLM asks for its key too; which paths it guards, and how it finds them out, changes between its versions.
        if self._authorization is None or scope["path"] == HEALTH:
            return
        if not secrets.compare_digest(_header(scope, b"authorization"), self._authorization):
            raise Refusal(401, "invalid_api_key", "Incorrect API key: send it as `Authorization: Bearer KEY`.")

    async def _body(self, receive: Receive) -> bytes:
        body, more = b"", True
        while more and len(body) <= self._max_body:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        if len(body) > self._max_body:
            raise Refusal(413, "request_too_large", f"The request is larger than {self._max_body} bytes.")
        return body

    async def _pass_on(self, scope: Message, body: bytes, receive: Receive, send: Send) -> None:
        if scope["path"] == CHAT:
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
        except (ValueError, AttributeError, TypeError, RecursionError):
            return body  # not a chat request: vLLM says what is wrong with it
        return json.dumps(request).encode()


def _header(scope: Message, name: bytes) -> bytes:
    """Its value, empty where there is none; where there are several, a value that is none of them."""
    return b",".join(value for found, value in scope["headers"] if found.lower() == name)
