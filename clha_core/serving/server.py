"""Our own server, in one process: listens at once, loads the model, follows the registry."""

import logging
import threading
from functools import partial
from pathlib import Path

import uvicorn

from clha_core.params import Params
from clha_core.serving.address import Address, api_key
from clha_core.serving.app import Deployment, Limits, create_app
from clha_core.serving.engine import Engine
from clha_core.serving.reload import follow, load_version
from clha_core.serving.source import Registered, folder_source

GRACE_SECONDS = 30  # for running requests, when the server is told to stop


def serve(
    model: Path | Registered, params: Params, address: Address, limits: Limits, max_context: int | None, poll: float
) -> None:
    """Serve a folder, or what the registry has, until interrupted.

    Args:
        max_context: see Engine.
        poll: seconds between two questions to the registry.

    Raises:
        UserError: no such version, it cannot be loaded, or an open address without a key.
    """
    key = api_key(address.host)
    first = None if isinstance(model, Path) else model.version()  # a name that does not exist is said at once
    deployment, stop = Deployment(), threading.Event()
    # Prompts are never logged: uvicorn writes paths and statuses.
    logging.basicConfig(level=logging.INFO, format="%(levelname)s:     %(message)s")
    config = uvicorn.Config(
        create_app(deployment, limits, key, address.names()),
        host=address.host,
        port=address.port,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    server = uvicorn.Server(config)
    failures: list[Exception] = []

    def load() -> None:
        try:
            if isinstance(model, Path):
                deployment.engine = Engine(folder_source(model, params), max_context)
                return
            deployment.engine = load_version(model, first, max_context)
        except Exception as error:  # raised below, where it ends the command
            failures.append(error)
            server.should_exit = True
            return
        follow(deployment, model, partial(load_version, model, max_context=max_context), poll, stop)

    threading.Thread(target=load, daemon=True).start()
    try:
        server.run()
    finally:
        stop.set()
    if failures:
        raise failures[0]
