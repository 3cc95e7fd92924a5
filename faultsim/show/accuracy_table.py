"""Accuracies without and with bit errors, as a table."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..metrics.metric import ACCURACY, Metric
from .tables import Table


def make_accuracy_table(rows: Sequence[Mapping[str, Any]], title: str, metric: Metric = ACCURACY) -> Table:
    """Make a table of rows with a name and a mean, some of them with std and interval, all of them fractions."""
    cells = []
    for row in rows:
        value, interval = metric.text(row["mean"]), ""
        if "std" in row:
            low, high = row["interval"]
            if math.isfinite(row["std"]):
                value += f" ± {metric.text(row['std'], 2 if metric.fraction else 0)}"
            interval = "-" if math.isnan(low) else f"{metric.text(low)} to {metric.text(high)}"
        cells.append((row["name"], value, interval))
    return Table(title, ("", "%" if metric.counts else metric.label, "95 % CI"), tuple(cells), words=(0,))
