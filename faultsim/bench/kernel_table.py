"""Times of the fault kernel as tables."""

from collections.abc import Iterable, Iterator
from itertools import groupby

from ..show.tables import Table
from ..show.units import format_percent
from .kernel import RATES, Row

NOTES = (
    "for each bit error rate: ratio, GB/s, and in parentheses the ratio to reach",
    "ratio: time of the baseline over time of the operation, measured in turn; 1 is as fast",
)
"""What the numbers of a table are."""


def make_kernel_tables(rows: Iterable[Row]) -> Iterator[Table]:
    """Make a table for each buffer, vector path and number of threads, as soon as its rows are there.

    Parameters
    ----------
    rows : iterable of Row
        As `time_kernel` yields them.

    Yields
    ------
    Table
        One row for each operation and baseline, one column for each bit error rate.
    """
    for (size, path, threads), group in groupby(rows, key=lambda row: (row.weights, row.path, row.threads)):
        title = f"{size:,} int8 weights, {path}" + ("" if path == "cuda" else f", threads: {threads}")
        cells = [
            (operation, baseline, *map(_format_row, of_rates))
            for (operation, baseline), of_rates in groupby(group, key=lambda row: (row.operation, row.beside))
        ]
        header = ("operation", "baseline", *map(format_percent, RATES))
        yield Table(title, header, tuple(cells), words=(0, 1))


def _format_row(row: Row) -> str:
    target = "" if row.target is None else f" ({row.target:.2f})"
    return f"{row.ratio:.2f} {row.gigabytes_per_second:4.0f}{target}"
