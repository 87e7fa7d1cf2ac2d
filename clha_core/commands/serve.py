"""`clha serve`: the champion behind OpenAI's chat API."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from clha_core import paths
from clha_core.params import load_params

console = Console()


class Server(StrEnum):
    """What answers."""

    auto = "auto"
    vllm = "vllm"
    own = "own"


def serve(
    model: Annotated[
        str, typer.Argument(help="A version or an alias (3, champion, NAME/3, NAME@champion), or a folder.")
    ] = "champion",
    host: Annotated[str, typer.Option(help="Others than this machine need CLHA_SERVE_API_KEY.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    server: Annotated[Server, typer.Option(help="auto: vLLM where it is on the path, else our own.")] = Server.auto,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests that are answered at once.")] = 4,
    queue: Annotated[int, typer.Option(min=0, help="Requests that wait for it; more get status 429.")] = 16,
    max_context: Annotated[
        int | None, typer.Option(min=2, help="Tokens of prompt and answer; as many as in training without it.")
    ] = None,
    max_body: Annotated[int, typer.Option(min=1, help="KiB of a request's body.")] = 256,
    poll: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks at the registry.")] = 10.0,
) -> None:
    """Answer /v1/chat/completions with a registered model; a newly promoted champion takes over by itself."""
    from clha_core.serving import vllm
    from clha_core.serving.address import Address
    from clha_core.serving.app import Limits
    from clha_core.serving.server import serve as serve_own
    from clha_core.serving.source import Registered, folder_source

    params = load_params()
    address, limits = Address(host, port), Limits(concurrency, queue, max_body * 1024)
    chosen = Path(model) if Path(model).is_dir() else Registered(model, params, Path())
    executable = vllm.require() if server is Server.vllm else vllm.installed() if server is Server.auto else None
    if executable is None:
        serve_own(chosen, params, address, limits, max_context, poll)
        return
    folder = (paths.SCRATCH / "vllm").resolve()
    source = (
        folder_source(chosen, params) if isinstance(chosen, Path) else chosen.source(chosen.version(), folder / "model")
    )
    console.print(f"vLLM serves {source.version}; it follows no promotion: start it again after one.", soft_wrap=True)
    vllm.become(vllm.vllm_command(executable, source, address, limits, max_context, folder))
