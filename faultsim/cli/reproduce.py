"""`faultsim reproduce`: the paper's tables, ours beside the published values."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from faultsim.cli.options import JsonOption

if TYPE_CHECKING:
    from neuralfuse.reproduce import Reproduction


def reproduce(
    name: Annotated[str, typer.Argument(help="table6, table7 or table8.")],
    as_json: JsonOption = False,
) -> None:
    """Compute a table of the paper again and lay it beside the published values.

    Exit status 1 when a value doesn't agree.
    """
    from neuralfuse.reproduce import reproduce as compute

    result = compute(name)
    if as_json:
        rows = [{**asdict(row), "difference": row.difference} for row in result.rows]
        typer.echo(json.dumps({**asdict(result), "rows": rows, "agrees": result.agrees}, indent=2))
    else:
        _print(result)
    if not result.agrees:
        raise typer.Exit(1)


def _print(result: Reproduction) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    table = Table(box=box.SIMPLE_HEAD, title=result.title, title_justify="left", show_edge=False, padding=0)
    table.add_column("")
    table.add_column("")
    for heading in ("ours", "published", "difference"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("agrees")
    if result.note:
        table.add_column(result.note, justify="right", no_wrap=True)
    for row in result.rows:
        cells = [f"{row.ours:,.{result.decimals}f}", f"{row.published:,.{result.decimals}f}"]
        cells.append(f"{row.difference:+,.{result.decimals}f}" if row.difference else "0")
        agrees = "yes" if row.agrees else "NO"
        table.add_row(row.subject, row.quantity, *cells, agrees, *([row.note] if result.note else []))
    console.print(table)
    agreeing = sum(row.agrees for row in result.rows)
    console.print(f"{agreeing} of {len(result.rows)} values agree ({result.criterion}).")
