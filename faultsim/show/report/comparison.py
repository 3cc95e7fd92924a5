"""A sweep of many variants on the page: what takes the least energy, and tables by operating point."""

from collections.abc import Mapping, Sequence
from typing import Any

from ...metrics.metric import Metric
from ...studies.pareto import find_front
from .document import DASH, Row, Table, Tile, format_error_rate, format_share

KEPT = 0.01
"""Accuracy that may be lost where the page says what takes the least energy."""


def compute_energy_used(row: Mapping[str, Any]) -> float:
    """Compute the weight memory energy of one inference in percent of the unprotected model's at Vmin."""
    return 100 * (1 - row["energy_saving"])


def summarize(of: Mapping[str, Sequence[dict]], metric: Metric) -> tuple[Tile, ...]:
    """Say what takes the least energy at nearly the accuracy without bit errors, in few words.

    Parameters
    ----------
    of
        The rows of each variant; the first is the plain one.
    metric
        What was measured.
    """
    first = min(next(iter(of.values())), key=lambda row: row["bit_error_rate"])
    rate = format_error_rate(first["bit_error_rate"])
    value = format_share(first["mean"]) if metric.fraction else metric.text(first["mean"])
    tiles = [Tile(value, f"{first['variant']}: {metric.name} at a bit error rate of {rate}")]
    if not metric.counts:  # how much of another metric may be lost is the reader's to say
        return tuple(tiles)
    rows = [row for group in of.values() for row in group if row["energy_saving"] is not None]
    good = [row for row in rows if row["mean"] >= first["mean"] - KEPT]
    for chosen, words in (
        (good, "least energy"),
        ([row for row in good if not row["uncounted"]], "least energy of those that are counted in full"),
    ):
        if chosen:
            best = max(chosen, key=lambda row: row["energy_saving"])
            at_least = "≥ " if best["uncounted"] else ""
            tiles.append(
                Tile(
                    f"{at_least}{compute_energy_used(best):.1f} %",
                    f"{words}, at most 1 point of accuracy lost: {best['variant']} at voltage {best['voltage']:.4g}",
                )
            )
    return tuple(tiles)


def make_tables(rows: Sequence[dict], metric: Metric) -> tuple[Table, ...]:
    """Make a table for each operating point, from the least energy to the most.

    Parameters
    ----------
    rows
        All of them.
    metric
        What was measured.
    """
    sign = 1 if metric.higher_is_better else -1

    def front(chosen: Sequence[dict]) -> set[int]:
        known = [row for row in chosen if row["mean"] is not None]
        found = find_front(
            known,
            lambda row: None if row["energy_saving"] is None else -row["energy_saving"],
            lambda row: sign * row["mean"],
        )
        return {id(row) for row in found}

    best, counted = front(rows), front([row for row in rows if not row["uncounted"]])
    points: dict[tuple, list[dict]] = {}
    for row in rows:
        points.setdefault((row["voltage"], row["bit_error_rate"]), []).append(row)
    tables = []
    for (voltage, rate), found in points.items():
        found = sorted(found, key=lambda row: (row["energy_saving"] is None, -(row["energy_saving"] or 0)))
        place = "no voltage" if voltage is None else f"voltage {voltage:.4g}"
        tables.append(
            Table(
                f"{place}, bit error rate {format_error_rate(rate)}",
                ("variant", "energy", metric.label, "95 % interval", "worst chip", "front"),
                tuple(_make_row(row, metric, id(row) in best, id(row) in counted) for row in found),
                notes=_describe(found),
                words=("front",),
            )
        )
    return tuple(tables)


def _describe(rows: Sequence[dict]) -> tuple[str, ...]:
    """Say what the columns are, and what is not counted of which energy."""
    without: dict[str, list[str]] = {}
    for row in rows:
        if row["uncounted"]:
            without.setdefault(row["uncounted"], []).append(row["variant"])
    energy = (
        "Energy: of the weight memory in one inference, in % of the unprotected model's at Vmin. Front: no other "
        "variant is as good for less energy, at any voltage."
    )
    if not without:
        return (energy,)
    missing = "; ".join(f"{what}: {', '.join(names)}" for what, names in without.items())
    return (
        f"{energy} Counted: of those whose energy is counted in full.",
        f"≥: a lower bound. Not counted: {missing}.",
    )


def _make_row(row: dict, metric: Metric, best: bool, counted: bool) -> Row:
    def text(value: float | None) -> str:
        if value is None:
            return DASH
        return f"{100 * value:.2f}" if metric.fraction else metric.text(value)

    low, high = row["ci95_low"], row["ci95_high"]
    at_least = "≥ " if row["uncounted"] else ""
    return Row(
        (
            row["variant"],
            DASH if row["energy_saving"] is None else f"{at_least}{compute_energy_used(row):.1f} %",
            text(row["mean"]),
            DASH if None in (low, high) else f"{text(low)} to {text(high)}",
            text(row["worst"]),
            ", ".join(["all"] * best + ["counted"] * counted),
        )
    )
