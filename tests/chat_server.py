"""Our chat server in a thread, over a tiny policy."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tiny
import uvicorn
from openai import OpenAI

from clha_core.serving.address import Address
from clha_core.serving.app import Deployment, Limits, create_app
from clha_core.serving.engine import Engine
from clha_core.serving.source import PolicySettings, Source

LIMITS = Limits(running=2, waiting=2, max_body=20_000)
QUESTION = [{"role": "user", "content": "How often should I water my basil?"}]


def source(folder: Path, version: str = "tiny/1", prompt_format: Any = "hh") -> Source:
    """A checkpoint folder as a version of the model `tiny`."""
    settings = PolicySettings(prompt_format=prompt_format, max_length=96, dtype="float32")
    return Source("tiny", version, "f00d", weights=folder, tokenizer=folder, settings=settings)


def tiny_engine(folder: Path, *, chat: bool = False, seed: int = 0, version: str = "tiny/1") -> Engine:
    """A random Llama that answers in HH's format, or in its chat template."""
    tokenizer = tiny.tokenizer(chat=chat)
    tiny.save(tiny.llama(tokenizer, seed), tokenizer, folder)
    return Engine(source(folder, version, "chat_template" if chat else "hh"))


class Pace:
    """Lets an engine make as many steps as are allowed, and counts them: all, and those at the same time."""

    def __init__(self, engine: Engine) -> None:
        self.steps = 0
        self.most_at_once = 0
        self._under_way = 0
        self._lock = threading.Lock()
        self._allowed = threading.Semaphore(0)
        self._hooks = [
            engine.model.register_forward_pre_hook(self._begin),
            engine.model.register_forward_hook(self._end),
        ]

    def _begin(self, *_: Any) -> None:
        with self._lock:
            self._under_way += 1
            self.most_at_once = max(self.most_at_once, self._under_way)
        self._allowed.acquire(timeout=20)
        self.steps += 1

    def _end(self, *_: Any) -> None:
        with self._lock:
            self._under_way -= 1

    def allow(self, steps: int) -> None:
        self._allowed.release(steps)

    def lift(self) -> None:
        """No more pace; who waits goes on."""
        for hook in self._hooks:
            hook.remove()
        self._allowed.release(1000)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(
    deployment: Deployment, limits: Limits = LIMITS, key: str | None = None, host: str = "127.0.0.1"
) -> Iterator[str]:
    """The server's address while the block runs."""
    address = Address(host, free_port())
    app = create_app(deployment, limits, key, address.names())
    config = uvicorn.Config(app, address.host, address.port, log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    eventually(lambda: server.started)
    try:
        yield f"http://{address.host}:{address.port}"
    finally:
        server.should_exit = True
        thread.join(timeout=20)


def client(url: str, key: str = "any") -> OpenAI:
    return OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=20)


def eventually(condition: Any, seconds: float = 20.0) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to hold"
        time.sleep(0.05)
