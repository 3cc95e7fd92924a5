"""What `reproduce` prints besides tables of accuracies: the status of all tables, and computed tables."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING

from .accuracy_table import console

if TYPE_CHECKING:
    from neuralfuse.paper.comparison import Reproduction
    from neuralfuse.paper.rows import Line


def show_status(found: "Mapping[str, Sequence[Line]]", as_json: bool) -> None:
    """Print for each table and fault model what is reproduced, how far off, and on what hardware."""
    from rich import box
    from rich.table import Table

    from neuralfuse.paper.status import count_status

    rows = count_status(found)
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1))
    table.add_column("", no_wrap=True)
    for column in ("cells", "off", "reached"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("how", justify="right")
    notes: list[str] = []
    for name, of_table in groupby(rows, key=lambda row: row.name):
        for row in of_table:
            where = ""
            if row.obtained:
                note = f"base recipe {', '.join(row.recipes)}; {', '.join(row.devices)}"
                notes += [note] if note not in notes else []
                where = f"[{notes.index(note) + 1}]"
            off = "" if row.off is None else f"{row.off:.2f}"
            reached = f"{row.at_or_above}/{row.compared}" if row.compared else ""
            table.add_row(
                f"{name:8} {row.faults:15} {row.trainer}", f"{row.obtained}/{row.cells}", off, reached, where
            )
    console().print(table)
    print(
        "cells: with a result / all. off: mean distance of P.A.+N.F. from the published one, in\n"
        "percentage points. reached: P.A.+N.F. at or above the published one / cells compared.\n"
        "Generators by EOPM from the beginning to the end (eopm) or in stages (staged).\n"
        "figure2, table6, table7 and table8 need no trained model: faultsim reproduce NAME."
    )
    for number, note in enumerate(notes, 1):
        console().print(f"[{number}] {note}")


def show_computed(result: "Reproduction", as_json: bool) -> None:
    """Print a table that needs no trained model."""
    from rich import box
    from rich.table import Table

    if as_json:
        rows = [{**asdict(row), "difference": row.difference} for row in result.rows]
        print(json.dumps({**asdict(result), "rows": rows, "agrees": result.agrees}, indent=2))
        return
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
    console().print(table)
    console().print(result.summary)
