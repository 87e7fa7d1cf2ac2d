"""An OpenAI-compatible server on 127.0.0.1, over real HTTP, that answers and fails as it is told."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-test-4f1c"


@dataclass(frozen=True)
class Reply:
    """What the server sends."""

    body: str
    status: int = 200
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0  # seconds, before the first byte


@dataclass(frozen=True)
class Call:
    """A request as it came; `nth` counts those with the same messages or prompt, from 0."""

    body: dict[str, Any]
    nth: int

    @property
    def asked(self) -> str:
        """The last message."""
        return self.body["messages"][-1]["content"]


def said(text: str | None, *, refusal: str | None = None, finish_reason: str = "stop", usage: bool = True) -> Reply:
    """A chat completion; tokens are counted as words."""
    message = {"role": "assistant", "content": text, "refusal": refusal}
    counts = {"prompt_tokens": 10, "completion_tokens": len((text or "").split())}
    return Reply(
        json.dumps(
            {
                "id": "chatcmpl-1",
                "object": "chat.completion",
                "created": 0,
                "model": "tiny-1-0613",
                "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
                "usage": counts | {"total_tokens": sum(counts.values())} if usage else None,
            }
        )
    )


def continued(text: str, finish_reason: str, *, tokens: int = 1) -> Reply:
    """A completion of token ids."""
    usage = {"prompt_tokens": 10, "completion_tokens": tokens, "total_tokens": 10 + tokens}
    choices = [{"index": 0, "text": text, "finish_reason": finish_reason, "logprobs": None}]
    body = {"id": "cmpl-1", "object": "text_completion", "created": 0, "model": "tiny", "choices": choices}
    return Reply(json.dumps(body | {"usage": usage}))


def failed(status: int, message: str, *, headers: Mapping[str, str] | None = None, **fields: str) -> Reply:
    """An error as OpenAI words them."""
    return Reply(json.dumps({"error": {"message": message, **fields}}), status, headers=headers or {})


def rate_limited(retry_after: float = 0.05) -> Reply:
    return failed(429, "slow down", headers={"Retry-After": str(retry_after)})


def broken() -> Reply:
    return failed(500, "something broke", headers={"Retry-After": "0.05"})


def late(seconds: float) -> Reply:
    return Reply(said("too late").body, delay=seconds)


def not_json() -> Reply:
    return Reply("<html>the proxy says hello</html>", content_type="text/html")


def broken_json() -> Reply:
    return Reply('{"choices": [')


def no_choices() -> Reply:
    return Reply(json.dumps({"id": "x", "object": "chat.completion", "created": 0, "model": "tiny", "choices": []}))


def refusal(words: str = "I will not.") -> Reply:
    return said(None, refusal=words)


class OpenAIServer:
    """The server's address and what it was asked."""

    def __init__(self, url: str, answer: Callable[[Call], Reply], models: Sequence[str]) -> None:
        self.url = url
        self.answer = answer
        self.models = models
        self.calls: list[Call] = []
        self.most_at_once = 0
        self._now = 0
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()

    @property
    def environment(self) -> dict[str, str]:
        """What a client has to find in its environment."""
        return {"OPENAI_BASE_URL": self.url, "OPENAI_API_KEY": KEY}

    def take(self, body: dict[str, Any]) -> Reply:
        """The reply to a request."""
        said_so_far = json.dumps(body.get("messages") or body["prompt"])
        with self._lock:
            call = Call(body, self._seen[said_so_far])
            self._seen[said_so_far] += 1
            self.calls.append(call)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            reply = self.answer(call)
            time.sleep(reply.delay)
        finally:
            with self._lock:
                self._now -= 1
        return reply


def echo(call: Call) -> Reply:
    """The same answer to the same question, whatever was asked before."""
    return said(f"You asked: {call.asked} (seed {call.body.get('seed')})")


@contextmanager
def openai_server(
    answer: Callable[[Call], Reply] = echo, *, models: Sequence[str] = (), path: str = "/v1/chat/completions"
) -> Iterator[OpenAIServer]:
    """A server of chats, or of completions, that runs until the block ends; every request has to bring KEY."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            listed = [{"id": model, "object": "model", "created": 0, "owned_by": "tiny"} for model in server.models]
            self.reply("/v1/models", lambda: Reply(json.dumps({"object": "list", "data": listed})))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.reply(path, lambda: server.take(body))

        def reply(self, expected: str, make: Callable[[], Reply]) -> None:
            if self.path != expected:
                reply = failed(404, f"no {self.path} here")
            elif self.headers["Authorization"] != f"Bearer {KEY}":
                reply = failed(401, f"Incorrect API key provided: {self.headers['Authorization']}")
            else:
                reply = make()
            content = reply.body.encode()
            try:
                self.send_response(reply.status)
                self.send_header("Content-Type", reply.content_type)
                self.send_header("Content-Length", str(len(content)))
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)
            except (BrokenPipeError, ConnectionResetError):
                pass  # a client that did not wait

        def log_message(self, format: str, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    server = OpenAIServer(f"http://127.0.0.1:{http.server_address[1]}/v1", answer, models)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        thread.join()
        http.server_close()
