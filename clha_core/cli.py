"""The command line. One command a stage; each imports what it uses and nothing else, so that help is instant."""

import os
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from clha_core.commands.assess import app as assess
from clha_core.commands.judge import judge
from clha_core.commands.registry import compare, registry
from clha_core.commands.serve import serve
from clha_core.errors import UserError
from clha_core.explain import sentence_for
from clha_core.params import load_params
from clha_core.terminal import say, terminal

app = typer.Typer(
    name="clha",
    help="From preference data to an aligned, evaluated, registered model. `dvc repro` runs the stages in order.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
console = terminal()

# Before any library starts: no telemetry, no warnings about forked tokenizers, the same bits every time.
QUIET = {
    "DO_NOT_TRACK": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "TOKENIZERS_PARALLELISM": "false",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # without it, deterministic algorithms are not so on CUDA
}

PR_SET_PDEATHSIG = 1

STAGES = {
    "ingest": "Split preference data into turns, and into train, validation and test.",
    "validate": "Check the ingested tables with Great Expectations.",
    "policy": "Train the base policy from scratch, or pin the one named in params.yaml.",
    "reward-models": "Train or pin the two reward models: one rescores, the other evaluates.",
    "sft": "Fine-tune the base on the chosen responses: the baseline.",
    "candidates": "Add responses from files, policies and endpoints to the two of the data.",
    "rescore": "Rate every candidate with the reward model and rank rows by reward.",
    "train": "Align with CLHA (or the method in train.method); one MLflow run.",
    "evaluate": "Answer the test prompts with base, SFT and aligned model, and judge.",
}


def _stage_command(name: str) -> Callable[[], None]:
    def command() -> None:
        params = load_params()
        import_module(f"clha_core.stages.{name.replace('-', '_')}").run(params)

    return command


for _name, _help in STAGES.items():
    app.command(_name, help=_help, rich_help_panel="Stages (dvc.yaml)")(_stage_command(_name))


@app.command()
def register(
    against_base: Annotated[
        bool, typer.Option(help="Judge against the base model even if there is a champion to beat.")
    ] = False,
) -> None:
    """Register the aligned model in MLflow; the alias champion only if it is better, else candidate."""
    from clha_core.stages.register import run

    say(console, run(load_params(), against_base=against_base).sentence())


@app.command()
def summary() -> None:
    """Print the table of results and where to look next."""
    from clha_core.stages.summary import print_summary

    print_summary(load_params(), console)


@app.command()
def use(
    preset: Annotated[str, typer.Argument(help="A file of presets/, without .yaml; without it, all are named.")] = "",
) -> None:
    """Rewrite params.yaml for a preset; comments and all other keys stay."""
    from clha_core.presets import apply_preset, preset_names

    if not preset:
        say(console, f"Presets: {', '.join(preset_names())}. What they are: docs/presets.md.")
        return
    changed = apply_preset(preset, Path("params.yaml"))
    say(console, f"params.yaml is now the preset {preset!r}: {len(changed)} keys changed.")
    for key, value in changed.items():
        say(console, f"  {key}: {value}")
    data = load_params().data
    if data.source == "local" and not Path(data.path).exists():
        say(console, f"Next: put your data into {data.path} (HH layout: SUBSET/train.jsonl.gz), then `dvc repro`.")


app.command()(compare)
app.add_typer(registry, name="registry")
app.command()(judge)
app.command()(serve)
app.add_typer(assess)


def main() -> None:
    """Run the command line; a UserError, a full disk or a server that is down is a sentence and exit status 1."""
    for key, value in QUIET.items():
        os.environ.setdefault(key, value)
    # A stage that is cancelled ends as one that fails: its MLflow run is closed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if "DVC_STAGE" in os.environ and sys.platform == "linux":
        _end_with_parent()
    try:
        app()
    except Exception as error:
        sentence = str(error) if isinstance(error, UserError) else sentence_for(error)
        if sentence is None:
            raise
        terminal(stderr=True).print(f"[bold red]error:[/] {escape(sentence)}", highlight=False, soft_wrap=True)
        sys.exit(1)


def _end_with_parent() -> None:
    """DVC that is killed leaves its stage running: the next `dvc repro` would write the same files beside it."""
    import ctypes

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
