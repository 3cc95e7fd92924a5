"""Table 5: improvement per million parameters and per 100 million MACs of the generator (the paper, Appendix F)."""

from __future__ import annotations

from dataclasses import dataclass

from .. import published
from .result import Result
from .rows import Line


@dataclass(frozen=True)
class Efficiency:
    """Improvement (IP) of a generator divided by its size, in percentage points."""

    per_million_parameters: float
    per_100_million_macs: float


def find_published_efficiency(line: Line) -> Efficiency | None:
    """Return the published efficiency of a cell; None if Table 5 lacks it."""
    cell = line.cell
    for row in published.read_table("efficiency_ratio"):
        key = (row["base_model"], row["generator"], float(row["bit_error_rate"]))
        if cell.dataset == "cifar10" and key == (cell.base, cell.spec.name, cell.bit_error_rate):
            return Efficiency(
                float(row["improvement_per_million_params"]), float(row["improvement_per_100m_macs"])
            )
    return None


def compute_efficiency(result: Result) -> Efficiency:
    """Compute the efficiency of a result, with the parameters and MACs that Table 8 prints."""
    costs = next(row for row in published.read_table("model_costs") if row["model"] == result.cell.spec.name)
    return Efficiency(
        result.improvement / (int(costs["parameters"]) / 1e6), result.improvement / (int(costs["macs"]) / 1e8)
    )
