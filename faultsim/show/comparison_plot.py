"""The picture of a comparison: many variants, accuracy against voltage and against energy, with the Pareto front."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from .plots import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    create_panels,
    label_voltage,
    styled,
)

if TYPE_CHECKING:
    from ..conditions import Conditions
    from ..sweep_result import SweepResult, SweepRow

MOST_BANDS = 3
"""Most variants of a sweep whose ranges can be told apart in one picture."""
_COLORS = (VERMILION, BLUE, GREEN, PURPLE, ORANGE, SKY, GREY)
_MARKERS = ("o", "s", "^", "D", "v", "P")


@styled()
def draw_comparison(result: "SweepResult", title: str, conditions: "Conditions") -> Figure:
    """Draw means with their 95 % intervals.

    Left: against voltage, or the bit error rate where some point has no voltage. Right, where energy was counted:
    against the weight memory energy of one inference; a black line joins the rows that no other beats.
    """
    by_voltage = all(row.point.voltage is not None for row in result)
    counted = [row for row in result if row.energy_saving is not None]
    figure, (axes,) = create_panels(1, 2 if counted else 1, 13.0 if counted else 9.0, 6.0)
    figure.suptitle(title, fontweight="bold")
    figure.supxlabel(f"faults: {conditions}", fontsize=8, color=GREY)
    for index, (variant, rows) in enumerate(result.variants.items()):
        style = {
            "color": _COLORS[index % len(_COLORS)],
            "marker": _MARKERS[(index + index // len(_COLORS)) % len(_MARKERS)],
            "markersize": 4,
            "linewidth": 1.2,
            "capsize": 2,
            "label": variant,
        }
        x = [row.point.voltage if by_voltage else row.point.bit_error_rate for row in rows]
        axes[0].errorbar(x, *_means(rows), **style)
        known = [row for row in rows if row.energy_saving is not None]
        if known:
            axes[1].errorbar(_energies(known), *_means(known), **style)
    if counted:
        front = result.pareto()
        axes[1].plot(
            _energies(front),
            _means(front)[0],
            color=BLACK,
            linewidth=3.5,
            alpha=0.35,
            zorder=0,
            label="Pareto front",
        )
        axes[1].set_xlabel("weight memory energy of one inference (% of unprotected at Vmin)")
    metric = result.metric
    for panel in axes:
        panel.set_ylabel(metric.label if metric.counts else f"{metric.label}, {metric.arrow}")
        if metric.fraction:
            panel.set_ylim(0, 103)
    axes[0].set_xlabel(
        label_voltage(conditions.curve) if by_voltage and conditions.curve else "bit error rate"
    )
    if not by_voltage:
        axes[0].set_xscale("symlog", linthresh=1e-6)
    figure.legend(*axes[-1].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    return figure


def _energies(rows: Sequence["SweepRow"]) -> list[float]:
    """Return the energies of rows where it was counted, in percent of unprotected at Vmin."""
    return [100 * (1 - row.energy_saving) for row in rows if row.energy_saving is not None]


def _means(rows: Sequence["SweepRow"]) -> tuple[list[float], list[list[float]] | None]:
    """Means and the lengths of their intervals, fractions in percent; no intervals for one chip."""
    scale = 100 if rows[0].evaluation.metric.fraction else 1
    means = [row.evaluation.mean for row in rows]
    if rows[0].evaluation.chips < 2:
        return [scale * mean for mean in means], None
    ends = [row.interval for row in rows]
    below = [scale * (mean - low) for mean, (low, _) in zip(means, ends, strict=True)]
    above = [scale * (high - mean) for mean, (_, high) in zip(means, ends, strict=True)]
    return [scale * mean for mean in means], [below, above]
