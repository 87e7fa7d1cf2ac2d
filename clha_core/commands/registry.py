"""`clha compare` and `clha registry ...`: who is better, who is champion, and why."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.markdown import Markdown
from rich.table import Table
from rich.text import Text

from clha_core.params import load_params
from clha_core.terminal import say, terminal

HERE = Path()
console = terminal()
registry = typer.Typer(help="Who is champion, and why: list, show, promote, rollback.", no_args_is_help=True)

Reference = Annotated[str, typer.Argument(help="A version or an alias: 3, candidate, NAME/3, NAME@candidate.")]
Model = Annotated[str | None, typer.Option(help="Registered model, if not registry.model_name.")]
Why = Annotated[str, typer.Option(help="One sentence for whoever looks at the registry next year.")]
By = Annotated[str | None, typer.Option(help="Who wants it, if not the git user.")]


def compare(
    a: Annotated[
        str,
        typer.Argument(
            help="A version (3, champion, NAME/3, NAME@champion), a run (its id, the beginning of it, or its name), or "
            "here for reports/evaluation. With :base, :sft or :human after it, another system of that evaluation."
        ),
    ],
    b: Annotated[str, typer.Argument(help="The same.")],
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures to this file.")] = None,
    page: Annotated[Path | None, typer.Option(help="Write an HTML page with the answers side by side.")] = None,
) -> None:
    """Compare two evaluated models prompt by prompt, wherever they were trained."""
    from clha_core.comparison.table import comparison_table, verdict
    from clha_core.tracking import operations

    params = load_params()
    comparison = operations.compare(params, a, b, HERE)
    for sentence in comparison.sentences():
        say(console, sentence)
    console.print(comparison_table(comparison))
    say(console, verdict(comparison))
    if json_file is not None:
        figures = {"A": comparison.a.name, "B": comparison.b.name, "metrics": comparison.metrics}
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    if page is not None:
        from clha_core.comparison.page import comparison_page

        page.parent.mkdir(parents=True, exist_ok=True)
        comparison_page(comparison, params.evaluate, page)


@registry.command("list")
def list_(model: Model = None) -> None:
    """All versions, the newest first: alias, reward, the gate's figures, data, commit."""
    from clha_core.tracking import operations
    from clha_core.tracking.listing import COLUMNS

    # Two facts a cell: all of it fits 80 columns.
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for lines in _pairs(COLUMNS):
        table.add_column(lines)
    for row in operations.listing(load_params(), model, HERE):
        table.add_row(*map(Text, _pairs(row)))
        table.add_section()
    console.print(table)


@registry.command()
def show(version: Reference = "champion") -> None:
    """Where a version comes from, how to get its data back, and everything noted on it."""
    from clha_core.tracking import operations

    found = operations.show(load_params(), version, HERE)
    say(console, f"{found.name} version {found.version}, {', '.join(found.aliases) or 'no alias'}; run {found.run_id}")
    console.print(Markdown(found.description or "No page: it was not registered by `clha register`."))
    table = Table("Tag", "Value", box=box.SIMPLE_HEAD, show_edge=False)
    for key, value in sorted(found.tags.items()):
        table.add_row(Text(key), Text(value))
    console.print(table)


@registry.command()
def promote(version: Reference, why: Why, by: By = None) -> None:
    """Make a version champion. What the gate says of it is noted, but you decide."""
    from clha_core.tracking import operations

    say(console, operations.promote(load_params(), version, why, HERE, by=by).sentence())


@registry.command()
def rollback(why: Why, model: Model = None, by: By = None) -> None:
    """Make the champion before the present one champion again."""
    from clha_core.tracking import operations

    say(console, operations.rollback(load_params(), model, why, HERE, by=by).sentence())


def _pairs(cells: list[str]) -> list[str]:
    return [f"{first}\n{second}" for first, second in zip(cells[::2], cells[1::2], strict=True)]
