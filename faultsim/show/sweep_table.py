"""What a sweep found, as tables and the lines below them."""

import math
from typing import TYPE_CHECKING

from ..studies.chip_statistics import compute_improvement
from .tables import Table
from .units import format_joules, format_percent

if TYPE_CHECKING:
    from ..metrics.metric import Metric
    from ..studies.sweep_result import SweepResult, SweepRow

_SHORT = {
    "mean squared error": "MSE",
    "mean absolute error": "MAE",
    "cross entropy": "CE",
    "top-5 accuracy": "top-5",
}
"""Headings that are too long for a table of 80 columns."""


def make_tables(result: "SweepResult") -> list[Table]:
    """Make a table for each variant; those behind a transform show the gain over the first."""
    (first, alone), *others = result.variants.items()
    title = f"{result.title}, {first}" if others else result.title
    return [
        _make_table(title, alone),
        *(_make_table(f"{result.title}, {name}", rows, alone) for name, rows in others),
    ]


def describe_sweep(result: "SweepResult") -> list[str]:
    """Say in lines what the columns of the tables are, and under which conditions they were measured."""
    metric, curve = result.metric, result.conditions.curve
    counts = {row.evaluation.chips for row in result}
    chips = f"{max(counts)} chip{'s' if max(counts) > 1 else ''}"
    if len(counts) > 1:
        chips = f"{min(counts)} to {chips}"
    picojoules = None if curve is None else curve.access_pj
    energy = "energy: of one read access, relative to Vmin"
    if picojoules is not None and result.accesses is not None:
        energy = f"energy: of the {result.conditions.memories} in one inference"
    gain = "in points" if metric.fraction else "in the direction that is better"
    lines = [
        f"{_describe_metric(metric)}: mean ± population std over {chips}",
        *_describe_precision(result),
        f"faults: {result.conditions}",
        *(
            [f"voltages: in the curve's unit (Vmin = {curve.v_min:g}); bit errors: failing cells"]
            if curve
            else []
        ),
        *([str(result.conditions.share)] if result.conditions.share else []),
        *([energy] if metric.fraction else []),
        *(
            [f"gain: {gain}, on the same chips, ± half of its 95 % interval"]
            if len(result.variants) > 1
            else []
        ),
    ]
    wrong = sum(row.evaluation.wrong_numbers for row in result)
    if wrong:
        lines.append(f"{wrong:,} answers were not finite (NaN or infinity): they count as wrong")
    if result.accesses is None:
        lines.append("saving: not counted, the energy model does not know a layer of this model")
        return lines
    at = "" if picojoules is None else f" of {format_joules(picojoules)}"
    lines.append(
        f"saving: {result.conditions.memories} energy of one inference ({result.accesses:,} accesses{at}) against Vmin"
    )
    for part in result.supplies.domains if result.supplies else ():
        energy = "not known" if part.energy_per_access is None else f"{part.energy_per_access:.3f}"
        share = 100 * part.accesses / result.accesses
        lines.append(f"domain {part.name}: {share:.1f} % of the accesses; energy of an access {energy}")
    if result.uncounted:
        lines.append(f"saving does not count: {', '.join(result.uncounted)}")
    return lines


def describe_cheapest(result: "SweepResult", accuracy: float) -> list[str]:
    """Say in lines at which voltage each variant takes the least energy at an accuracy, and which variant does."""
    if result.accesses is None:
        return ["voltage of least energy: not known, the accesses of this model cannot be counted"]
    lines, reached = [], []
    for name in result.variants:
        row = result.cheapest(accuracy, name)
        if row is None or row.energy_saving is None:
            lines.append(f"{name}: no voltage of this sweep keeps {format_percent(accuracy)} accuracy")
            continue
        lines.append(
            f"{name}: least energy at {format_percent(accuracy)} accuracy at voltage {row.point.voltage:.4g} "
            f"({100 * row.evaluation.mean:.2f} %, saving {'at most ' if row.uncounted else ''}"
            f"{100 * row.energy_saving:.1f} %)"
        )
        place = f"{name} at voltage {row.point.voltage:.4g}"
        reached.append((row.energy_saving, row.evaluation.mean, place, row.uncounted))
    if len(result.variants) > 1 and reached:
        lines.append(f"least energy of all: {max(reached)[2]}")
        if (full := [one for one in reached if not one[3]]) and max(reached)[3]:
            lines.append(f"least energy of those that are counted in full: {max(full)[2]}")
    return lines


def _describe_precision(result: "SweepResult") -> list[str]:
    """How well the means are known, where the sweep stopped at a precision."""
    if result.precision is None:
        return []
    asked = f"{100 * result.precision:g} points" if result.metric.fraction else f"{result.precision:g}"
    points = {row.point for row in result}
    missed = {row.point for row in result if not _is_known(row, result.precision)}
    more = f"; not reached at {len(missed)} of {len(points)} points: more chips are needed" if missed else ""
    return [f"95 % intervals: ±{asked}, valid at each look of the sweep (confidence sequence){more}"]


def _is_known(row: "SweepRow", precision: float) -> bool:
    """Whether the intervals of a row, and of its gain, are as narrow as asked for."""
    return not any(width > precision for width in (row.half_width, row.gain_half_width) if width is not None)


def _make_table(title: str, rows: list["SweepRow"], baseline: list["SweepRow"] | None = None) -> Table:
    """Make the table of one variant.

    With a `baseline`, the paired gain over it replaces the energy of an access and the interval: 80 columns have no
    room for all three.
    """
    metric = rows[0].evaluation.metric
    own = ("energy", "95 % CI") if metric.fraction else ("95 % CI",)
    common = ("voltage", "bit errors", "saving", _SHORT.get(metric.name, metric.name), "worst")
    cells = []
    for row, before in zip(rows, baseline or rows, strict=True):
        e, point = row.evaluation, row.point
        low, high = row.interval
        energy = "-" if point.energy_per_access is None else f"{point.energy_per_access:.3f}"
        if row.picojoules is not None:
            energy = format_joules(row.picojoules)
        interval = "-" if math.isnan(low) else f"{metric.text(low, 1)}-{metric.text(high, 1)}"
        if not metric.fraction and not math.isnan(low):
            interval = f"{metric.text(low, 0)} to {metric.text(high, 0)}"
        spread = f" ±{metric.text(e.std, 2 if metric.fraction else 0)}" if math.isfinite(e.std) else ""
        cells.append(
            (
                "-" if point.voltage is None else f"{point.voltage:.4g}",
                f"{100 * point.bit_error_rate:.2g} %",
                "-" if row.energy_saving is None else f"{100 * row.energy_saving:.1f} %",
                metric.text(e.mean) + spread,
                metric.text(e.worst, 1),
                *((_gain(before, row),) if baseline else (energy, interval)[-len(own) :]),
            )
        )
    return Table(title, (*common, *(("gain",) if baseline else own)), tuple(cells))


def _gain(before: "SweepRow", after: "SweepRow") -> str:
    """Format a gain, in points for fractions, with half of its 95 % interval where there is more than one chip."""
    gain = compute_improvement(before.evaluation, after.evaluation)
    half = gain.interval[1] - gain.mean if after.gain_half_width is None else after.gain_half_width
    scale = 100 if before.evaluation.metric.fraction else 1
    number, spread = ("{:+.1f}", "{:.1f}") if scale == 100 else ("{:+.3g}", "{:.2g}")
    return number.format(scale * gain.mean) + (
        "" if not math.isfinite(half) else f" ±{spread.format(scale * half)}"
    )


def _describe_metric(metric: "Metric") -> str:
    """Name the metric with its unit and direction."""
    if metric.counts:
        return f"{metric.name} in %"
    short = f"{_SHORT[metric.name]}: " if metric.name in _SHORT else ""
    return f"{short}{metric.label.replace('(%)', 'in %')} ({metric.arrow})"
