"""The picture of a sweep: accuracy and energy on one voltage axis."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from .plots import BLACK, BLUE, GREEN, GREY, VERMILION, panels, styled, voltage_label
from .sweep import UNPROTECTED, Result
from .voltage import VoltageCurve

_COLOURS = (VERMILION, BLUE, GREEN)


@styled()
def sweep_figure(results: Sequence[Result], title: str, curve: VoltageCurve) -> Figure:
    """Mean accuracy with its 95 % interval (bars) and the range from the worst chip to the best (band), and the weight
    memory energy of one inference relative to the unprotected model at Vmin (dashed, right axis). Against voltage, or
    against the bit error rate where some point has no voltage."""
    by_voltage = all(result.point.voltage is not None for result in results)
    figure, ((axes,),) = panels(1, 1, 8.0, 4.8)
    energy_axes = None
    variants = list(dict.fromkeys(result.variant for result in results))
    for colour, variant in zip(_COLOURS, variants, strict=False):
        mine = [result for result in results if result.variant == variant]
        x = [r.point.voltage if by_voltage else r.point.bit_error_rate for r in mine]
        mean = [100 * r.evaluation.mean for r in mine]
        axes.fill_between(
            x,
            [100 * r.evaluation.worst for r in mine],
            [100 * r.evaluation.best for r in mine],
            color=colour,
            alpha=0.18,
            linewidth=0,
            label="worst to best chip" if len(variants) == 1 else None,
        )
        if len(mine[0].evaluation.correct) > 1:
            low, high = zip(*(r.evaluation.interval for r in mine), strict=True)
            below = [m - 100 * a for m, a in zip(mean, low, strict=True)]
            above = [100 * a - m for m, a in zip(mean, high, strict=True)]
            axes.errorbar(x, mean, [below, above], color=colour, fmt="none", capsize=2.5, linewidth=1)
        label = "accuracy" if len(variants) == 1 else f"accuracy, {variant}"
        axes.plot(x, mean, "o-", color=colour, markersize=4, label=label)
        if all(r.energy_saving is not None for r in mine):
            energy_axes = energy_axes or axes.twinx()
            name = "energy" if variant == UNPROTECTED and len(variants) == 1 else f"energy, {variant}"
            used = [100 * (1 - r.energy_saving) for r in mine]
            line = BLACK if len(variants) == 1 else colour
            energy_axes.plot(x, used, "--", color=line, linewidth=1.3, label=name)

    axes.set(title=title, ylabel="accuracy (%)", ylim=(0, 103))
    axes.set_xlabel(voltage_label(curve) if by_voltage else "bit error rate (share of failing cells)")
    if not by_voltage:
        axes.set_xscale("symlog", linthresh=max(1e-7, min(r.point.bit_error_rate or 1 for r in results)))
    handles, labels = axes.get_legend_handles_labels()
    if energy_axes is not None:
        energy_axes.set_ylabel("weight memory energy (% of that at Vmin)")
        energy_axes.set_ylim(bottom=0)
        energy_axes.spines["right"].set_visible(True)
        energy_axes.grid(False)
        more, names = energy_axes.get_legend_handles_labels()
        handles, labels = handles + more, labels + names
    if by_voltage:
        _rates_on_top(axes, results)
    axes.legend(handles, labels, loc="lower right")
    return figure


def _rates_on_top(axes, results: Sequence[Result]) -> None:
    """The bit error rates of some of the voltages, along the top."""
    shown = {result.point.voltage: result.point.bit_error_rate for result in results}
    voltages = sorted(shown)
    step = -(-len(voltages) // 8)
    top = axes.secondary_xaxis("top")
    top.set_xticks(voltages[::step], [_percent(shown[v]) for v in voltages[::step]], fontsize=8, color=GREY)
    top.set_xlabel("bit error rate", fontsize=8, color=GREY)
    top.spines["top"].set_visible(True)


def _percent(rate: float) -> str:
    return "0" if rate == 0 else f"{100 * rate:.2g} %"
