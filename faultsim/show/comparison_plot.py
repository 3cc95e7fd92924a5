"""The picture of a comparison: many variants, accuracy against voltage and against energy, with the Pareto front."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .plots import BLACK, GREY, create_panels, label_voltage, styled
from .series_styles import COLORS, MARKERS, choose_styles

if TYPE_CHECKING:
    from ..studies.conditions import Conditions
    from ..studies.sweep_result import SweepResult, SweepRow

MOST_BANDS = 3
"""Most variants of a sweep whose ranges can be told apart in one picture."""


@styled()
def draw_comparison(result: "SweepResult", title: str, conditions: "Conditions") -> Figure:
    """Draw means with their 95 % intervals.

    Left: against voltage, or the bit error rate where some point has no voltage. Right, where energy was counted:
    against the weight memory energy of one inference. Markers are hollow where the energy is a lower bound. A gray line
    joins the rows that no other beats, a dashed one those that no other beats whose energy is counted in full.
    """
    by_voltage = all(row.point.voltage is not None for row in result)
    counted = [row for row in result if row.energy_saving is not None]
    figure, (axes,) = create_panels(1, 2 if counted else 1, 13.0 if counted else 9.0, 6.0)
    figure.suptitle(title, fontweight="bold")
    figure.supxlabel(f"faults: {conditions}", fontsize=8, color=GREY)
    styles = choose_styles(list(result.variants))
    for chosen, (variant, rows) in zip(styles, result.variants.items(), strict=True):
        hollow = rows[0].uncounted != ""
        style: dict[str, Any] = {
            "color": COLORS[chosen.color],
            "marker": MARKERS[chosen.marker],
            "markersize": 6,
            "markerfacecolor": "white" if hollow else COLORS[chosen.color],
            "markeredgewidth": 1.4,
            "linewidth": 0.9 if hollow else 1.3,
            "capsize": 2,
            "label": f"{variant} (≥)" if hollow else variant,
        }
        x = [row.point.voltage if by_voltage else row.point.bit_error_rate for row in rows]
        axes[0].errorbar(x, *_means(rows), **style)
        known = [row for row in rows if row.energy_saving is not None]
        if known:
            axes[1].errorbar(_energies(known), *_means(known), **style)
    if counted:
        partly = any(row.uncounted for row in result)
        front = {"color": BLACK, "linewidth": 3.5, "alpha": 0.3, "zorder": 0}
        _draw_front(axes[1], result.pareto(), label="Pareto front", **front)
        if partly:
            of_counted = {**front, "linewidth": 1.6, "alpha": 0.9, "linestyle": (0, (4, 2))}
            _draw_front(
                axes[1], result.pareto(lower_bounds=False), label="of those counted in full", **of_counted
            )
            axes[1].set_title("hollow (≥): part of the energy is not counted", fontsize=9, color=GREY)
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


def _draw_front(axes: Axes, rows: Sequence["SweepRow"], **style: Any) -> None:
    """Join the rows of a front."""
    axes.plot(_energies(rows), _means(rows)[0] if rows else [], **style)


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
