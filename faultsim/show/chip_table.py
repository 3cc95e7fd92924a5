"""The failing cells of a chip, counted."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .tables import Table
from .units import format_percent

if TYPE_CHECKING:
    from ..chips.fault_map import FaultMap

_ACROSS = 8  # arrays in one row of the table


def count_cells(cells: "FaultMap", voltages: Sequence[float] = ()) -> dict[str, Any]:
    """Count the failing cells of a fault map by array, by what they do, and by voltage.

    Returns
    -------
    dict
        JSON values; the bit error rate is a fraction.
    """
    kinds = (("inverted", -1), ("stuck_at_0", 0), ("stuck_at_1", 1))
    return {
        "source": cells.source,
        "arrays": cells.arrays,
        "rows": cells.geometry.rows,
        "columns": cells.geometry.columns,
        "failing_cells": len(cells),
        "bit_error_rate": cells.bit_error_rate,
        **{name: int((cells.stuck_at == state).sum()) for name, state in kinds},
        "by_voltage": [{"voltage": v, "failing_cells": len(cells.at(v))} for v in voltages],
        "by_array": np.bincount(cells.array, minlength=cells.arrays).tolist(),
    }


def make_chip_table(counts: dict[str, Any]) -> Table:
    """Make the table of the failing cells of each array, from what count_cells returns."""
    by_array = list(map(str, counts["by_array"]))
    across = min(_ACROSS, counts["arrays"])
    rows = []
    for start in range(0, counts["arrays"], _ACROSS):
        row = [str(start), *by_array[start : start + _ACROSS]]
        rows.append((*row, *[""] * (1 + across - len(row))))
    return Table(
        f"failing cells of arrays 0 to {counts['arrays'] - 1} ({counts['rows']}x{counts['columns']})",
        ("array", *(f"+{i}" for i in range(across))),
        tuple(rows),
    )


def describe_cells(counts: dict[str, Any]) -> list[str]:
    """Say in lines how many cells fail, what they do, and at which voltages."""
    total = counts["arrays"] * counts["rows"] * counts["columns"]
    by_array, kinds = counts["by_array"], ("inverted", "stuck_at_0", "stuck_at_1")
    return [
        f"faults: {counts['source'] or 'as measured'}",
        f"{counts['failing_cells']:,} of {total:,} cells fail, {format_percent(counts['bit_error_rate'])}; in an array "
        f"{min(by_array)} to {max(by_array)}, {np.mean(by_array):.1f} on average",
        ", ".join(f"{counts[name]:,} {name.replace('_', ' ')}" for name in kinds if counts[name]) or "none",
        *(
            f"at {at['voltage']:g}: {at['failing_cells']:,} cells, {format_percent(at['failing_cells'] / total)}"
            for at in counts["by_voltage"]
        ),
    ]
