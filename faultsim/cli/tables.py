"""Results on the terminal: words are folded where there is little room, and no digit is ever cut."""

import json
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Column, Table

if TYPE_CHECKING:
    from ..show.tables import Table as Data

_ROOM = 10_000  # columns: more than any table takes
_NAME = 7  # columns that a name gets at least, folded


def print_json(value: object) -> None:
    """Print JSON, with null for numbers that JSON cannot say."""
    from ..io.run_directory import without_nan

    print(json.dumps(without_nan(value), indent=2, allow_nan=False))


def print_table(table: "Data") -> None:
    """Print a table of results."""
    shown = Table(title=table.title, title_justify="left", title_style="bold")
    for i, header in enumerate(table.header):
        shown.add_column(header, justify="left" if i in table.words else "right", no_wrap=True)
    for row in table.rows:
        shown.add_row(*row)
    console().print(shown)


def console() -> Console:
    """Prints text that is no markup, and tables so that all of them can be read."""
    return _Tables(highlight=False, markup=False)


class _Tables(Console):
    def print(self, *objects: Any, **options: Any) -> None:
        terminal = self.width
        for table in objects:
            if isinstance(table, Table):
                # a terminal that is narrower still breaks the lines itself: nothing is lost
                self.width = max(self.width, _fit(table, self))
        super().print(*objects, **options)
        self.width = terminal


def _fit(table: Table, on: Console) -> int:
    """Makes a table that is too wide as narrow as it can be: without its frame, numbers (what is flushed right) below
    headings that break between words, and names that break anywhere. Returns the width that it needs."""
    for column in table.columns:
        column.overflow = "fold"
    wanted = Measurement.get(on, on.options.update(width=_ROOM), table).maximum
    if wanted <= on.width:
        return wanted
    table.box, table.show_edge, table.padding = box.SIMPLE_HEAD, False, 0
    least = len(table.columns) - 1
    for column in table.columns:
        column.no_wrap = False
        if column.justify == "right":
            column.width = max(_widest(column), *map(len, str(column.header).split()), 1)
        least += column.width or min(_NAME, max(_widest(column), len(str(column.header))))
    return least


def _widest(column: Column) -> int:
    return max((len(line) for cell in column.cells for line in str(cell).splitlines()), default=0)
