"""How cells are shown: the published row, and ours under each fault model."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from neuralfuse.paper.efficiency import Efficiency
    from neuralfuse.paper.result import Result
    from neuralfuse.paper.rows import Line


def as_json(found: "Mapping[str, Sequence[Line]]") -> str:
    """The tables as JSON; a table alone as one object."""
    from neuralfuse.paper.words import describe_tables

    tables = describe_tables(found)
    return json.dumps(tables[0] if len(tables) == 1 else tables, indent=2, allow_nan=False)


def console() -> "Console":
    """For text that is not markup, and tables whose digits are all there."""
    from . import tables

    return tables.console()


def show(name: str, lines: "Sequence[Line]") -> None:
    """A table, or the cells behind a figure, on stdout, within 80 columns."""
    from neuralfuse.paper.cells import TITLES

    full = " of the full paper" if name.startswith("full-") else ""
    short = name.removeprefix("full-")
    word = "Table" if short.startswith("table") else "Figure"
    print(f"{word} {short.removeprefix(word.lower())}{full}: {TITLES[name]}; in percent")
    show_lines(lines, efficiency=name == "table5")


def show_lines(lines: "Sequence[Line]", *, efficiency: bool = False) -> None:
    """Cells with what the paper reports of them, and how ours were obtained."""
    from neuralfuse.paper.words import title_section

    notes: list[str] = []
    if efficiency:
        _show_efficiency(lines, notes)
    else:
        for heading, section in groupby(lines, key=lambda line: title_section(line.cell)):
            _show_section(heading, list(section), notes)
    measured = sum(bool(line.results) for line in lines)
    console().print(
        f"{measured} of {len(lines)} results are there. ±: population standard deviation over chips."
    )
    for index, words in enumerate(notes, 1):
        console().print(f"[{index}] {words}")


def _show_section(heading: str, lines: "Sequence[Line]", notes: list[str]) -> None:
    from rich import box
    from rich.table import Table

    from neuralfuse.paper.words import HEADINGS, format_published, format_rate, format_result, label_row

    rates = {line.cell.bit_error_rate for line in lines if not line.cell.transferred}

    def label_of(line: "Line") -> str:
        """Name the row, with its bit error rate where the section has several."""
        rate = f" {format_rate(line.cell.bit_error_rate)}" if len(rates) > 1 else ""
        return label_row(line.cell) + rate

    title = f"\n{heading}" if heading else None
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", show_edge=False, padding=(0, 0))
    table.add_column("")
    for column in HEADINGS:
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("how", justify="right", no_wrap=True)
    for label, group in groupby(lines, key=label_of):
        of_row = list(group)
        table.add_row(label)
        known = of_row[0].published
        table.add_row("  the paper" if known else "  not in the paper", *format_published(known))
        for line in of_row:
            for result in line.results:
                table.add_row(f"  {line.cell.faults}", *format_result(result), _numbered(result, notes))
            if not line.results:
                table.add_row(f"  {line.cell.faults}")
    console().print(table)


def _numbered(result: "Result", notes: list[str]) -> str:
    from neuralfuse.paper.words import summarize_result

    words = summarize_result(result)
    if words not in notes:
        notes.append(words)
    return f"[{notes.index(words) + 1}]"


def _show_efficiency(lines: "Sequence[Line]", notes: list[str]) -> None:
    """Table 5."""
    from rich import box
    from rich.table import Table

    from neuralfuse.paper.efficiency import compute_efficiency, find_published_efficiency
    from neuralfuse.paper.words import label_row

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1))
    table.add_column("")
    for column in ("per M parameters", "per 100 M MACs", "how"):
        table.add_column(column, justify="right", no_wrap=True)
    for label, group in groupby(
        lines, key=lambda line: f"{label_row(line.cell)} {100 * line.cell.bit_error_rate:g} %"
    ):
        of_row = list(group)
        table.add_row(label)
        known = find_published_efficiency(of_row[0])
        table.add_row("  the paper" if known else "  not in the paper", *_numbers(known))
        for line in of_row:
            for result in line.results:
                cells = (*_numbers(compute_efficiency(result)), _numbered(result, notes))
                table.add_row(f"  {line.cell.faults}", *cells)
            if not line.results:
                table.add_row(f"  {line.cell.faults}")
    console().print(table)


def _numbers(values: "Efficiency | None") -> list[str]:
    return [] if values is None else [f"{value:.2f}" for value in astuple(values)]
