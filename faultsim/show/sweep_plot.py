"""The picture of a sweep: accuracy against supply voltage, and against the energy that it takes."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .plots import BLUE, GREEN, GREY, VERMILION, create_panels, label_voltage, styled

if TYPE_CHECKING:
    from ..studies.conditions import Conditions
    from ..studies.sweep_result import SweepRow

_COLORS = (VERMILION, BLUE, GREEN)


@styled()
def draw_sweep(results: Sequence["SweepRow"], title: str, conditions: "Conditions") -> Figure:
    """Draw the results of a sweep.

    Left: the mean accuracy, or what else was measured, with its 95 % interval (bars) and the range from the worst chip
    to the best (band), against voltage, or against the bit error rate if some point has no voltage. Right, if energy
    was counted: the same means against the weight memory energy of one inference, relative to the unprotected model at
    Vmin. Below: the conditions.

    Parameters
    ----------
    results : sequence of SweepRow
        All variants at all points.
    title : str
        One line.
    conditions : Conditions
        What the results depend on, with the curve that the voltages belong to.
    """
    by_voltage = all(result.point.voltage is not None for result in results)
    by_energy = [result for result in results if result.energy_saving is not None]
    variants = list(dict.fromkeys(result.variant for result in results))
    figure, (axes,) = create_panels(1, 2 if by_energy else 1, 11.0 if by_energy else 8.0, 4.8)
    figure.suptitle(title, fontweight="bold")
    figure.supxlabel(f"faults: {conditions}", fontsize=8, color=GREY)

    for color, variant in zip(_COLORS, variants, strict=False):
        mine = [result for result in results if result.variant == variant]
        voltages = [r.point.voltage for r in mine if r.point.voltage is not None]
        x = voltages if by_voltage else [r.point.bit_error_rate for r in mine]
        worst, best = ([_shown(r, getattr(r.evaluation, end)) for r in mine] for end in ("worst", "best"))
        axes[0].fill_between(x, worst, best, color=color, alpha=0.15, linewidth=0)
        _means(axes[0], x, mine, color, variant)
        counted = [result for result in by_energy if result.variant == variant]
        if counted:
            used = [100 * (1 - r.energy_saving) for r in counted if r.energy_saving is not None]
            _means(axes[1], used, counted, color, variant)

    metric = results[0].evaluation.metric
    for panel in axes:
        panel.set_ylabel(metric.label if metric.counts else f"{metric.label}, {metric.arrow}")
        if metric.fraction:
            panel.set_ylim(0, 103)
    if by_voltage and conditions.curve is not None:
        axes[0].set_xlabel(label_voltage(conditions.curve))
        _rates_on_top(axes[0], results)
    else:
        axes[0].set_xlabel("bit error rate (share of failing cells)")
        least = min(result.point.bit_error_rate or 1 for result in results)
        axes[0].set_xscale("symlog", linthresh=max(1e-7, least))
    if by_energy:
        axes[1].set_xlabel(f"{conditions.memories} energy of one inference (% of unprotected at Vmin)")
    axes[0].legend(
        loc="lower right" if by_voltage else "lower left", title="mean, 95 % interval, range of chips"
    )
    return figure


def _means(axes: Axes, x: Sequence[float], results: Sequence["SweepRow"], color: str, label: str) -> None:
    """Draw means, joined, with their intervals where there is more than one chip."""
    mean = [_shown(result, result.evaluation.mean) for result in results]
    axes.plot(x, mean, "o-", color=color, markersize=4, label=label)
    if results[0].evaluation.chips > 1:
        low, high = zip(*(result.interval for result in results), strict=True)
        below = [m - _shown(r, a) for r, m, a in zip(results, mean, low, strict=True)]
        above = [_shown(r, a) - m for r, m, a in zip(results, mean, high, strict=True)]
        axes.errorbar(x, mean, [below, above], color=color, fmt="none", capsize=2.5, linewidth=1)


def _shown(result: "SweepRow", value: float) -> float:
    """Return a value for an axis: a fraction in percent, NaN for what is infinite."""
    return (100 if result.evaluation.metric.fraction else 1) * value if math.isfinite(value) else math.nan


def _rates_on_top(axes: Axes, results: Sequence["SweepRow"]) -> None:
    """Write the bit error rates of some of the voltages along the top."""
    points = [result.point for result in results]
    shown = {point.voltage: point.bit_error_rate for point in points if point.voltage is not None}
    lowest, highest = min(shown), max(shown)
    apart = (highest - lowest) / 9  # closer labels would touch
    ticks: list[float] = []
    for voltage in sorted(shown):
        if not ticks or voltage - ticks[-1] >= apart:
            ticks.append(voltage)
    top = axes.secondary_xaxis("top")
    top.set_xticks(ticks, [_percent(shown[voltage]) for voltage in ticks], fontsize=8, color=GREY)
    top.set_xlabel("bit error rate", fontsize=8, color=GREY)
    top.spines["top"].set_visible(True)


def _percent(rate: float) -> str:
    """Return a bit error rate as a label of an axis."""
    return "0" if rate == 0 else f"{100 * rate:.2g} %"
