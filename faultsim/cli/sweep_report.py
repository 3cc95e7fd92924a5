"""How a sweep tells what it does and what came out."""

import contextlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from ..io.run_directory import without_nan
from ..voltage_sweep import summary_columns
from .options import joules, percent
from .tables import console

if TYPE_CHECKING:
    from ..conditions import Conditions
    from ..evaluation import Evaluation
    from ..metrics import Metric
    from ..subject import Subject
    from ..voltage import VoltageCurve
    from ..voltage_sweep import Result, Variant


TELL_AFTER = 2.0  # seconds between two lines within a step


@contextlib.contextmanager
def progress(steps: int, chips: int) -> Iterator[dict[str, Callable[["Result"], None]]]:
    """Yields what a sweep calls after each step ("report") and after each group of chips within one ("progress"): a bar
    with the time left on a terminal, plain lines elsewhere; on stderr."""
    if sys.stderr.isatty():
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task, whole = bar.add_task("sweep", total=steps), 0

            def advance(result: "Result") -> None:
                nonlocal whole
                whole += 1
                bar.update(task, completed=whole, description=_where(result))

            def advance_within(result: "Result") -> None:
                share = result.evaluation.chips / chips
                text = f"{_where(result)}, {result.evaluation.chips:,} of {chips:,} chips"
                bar.update(task, completed=whole + share, description=text)

            yield {"report": advance, "progress": advance_within}
        return
    started, done = time.monotonic(), 0
    told = started

    def line(result: "Result") -> None:
        nonlocal done
        done += 1
        say(done, f"[{done}/{steps}] {_where(result)}: {value_text(result.evaluation)}")

    def line_within(result: "Result") -> None:
        share = result.evaluation.chips / chips
        if share < 1 and time.monotonic() - told >= TELL_AFTER:
            counted = f"{result.evaluation.chips:,} of {chips:,} chips"
            say(
                done + share,
                f"[{done + 1}/{steps}] {_where(result)}: {counted}, {value_text(result.evaluation)}",
            )

    def say(ready: float, text: str) -> None:
        nonlocal told
        told = time.monotonic()
        left = (told - started) / ready * (steps - ready)
        print(f"{text}, {left:.0f} s left", file=sys.stderr, flush=True)

    yield {"report": line, "progress": line_within}


def value_text(evaluation: "Evaluation") -> str:
    """The mean with its unit, or its name where it has none."""
    metric = evaluation.metric
    text = metric.text(evaluation.mean)
    return f"{text} %" if metric.fraction else f"{metric.name} {text}"


def _where(result: "Result") -> str:
    point = result.point
    place = f"BER {percent(point.bit_error_rate)}" if point.voltage is None else f"V = {point.voltage:.4g}"
    return f"{place}, {result.variant}"


def summary_rows(results: Sequence["Result"], conditions: "Conditions") -> list[dict[str, object]]:
    """The rows of summary.csv: the results, with the conditions, which are alike in all."""
    columns = summary_columns(results)
    rows = (
        {name: value for name, value in result.summary().items() if name in columns} for result in results
    )
    return [row | conditions.columns for row in rows]


def report_json(
    results: Sequence["Result"], conditions: "Conditions", configuration: dict, information: dict
) -> str:
    """One JSON object: the rows of summary.csv, the configuration, where it was computed."""
    report = {"summary": summary_rows(results, conditions), "configuration": configuration, **information}
    return json.dumps(without_nan(report), indent=2, allow_nan=False)


def _table(title: str, results: Sequence["Result"], beside: Sequence["Result"] | None = None) -> Table:
    """Of one variant. With the results of another `beside` it, its gain over that one on the same chips stands in the
    place of the energy of an access and of the interval: both together are too wide for 80 columns."""
    shown = Table(title=title, title_justify="left", title_style="bold")
    metric = results[0].evaluation.metric
    common = ("voltage", "bit errors", "saving", _SHORT.get(metric.name, metric.name), "worst")
    own = ("energy", "95 % CI") if metric.fraction else ("95 % CI",)  # 80 columns have no room for more
    for header in (*common, *(("gain",) if beside else own)):
        shown.add_column(header, justify="right", no_wrap=True)
    for result, other in zip(results, beside or results, strict=True):
        e, point = result.evaluation, result.point
        low, high = e.interval
        energy = "-" if point.energy_per_access is None else f"{point.energy_per_access:.3f}"
        if result.picojoules is not None:
            energy = joules(result.picojoules)
        interval = "-" if math.isnan(low) else f"{metric.text(low, 1)}-{metric.text(high, 1)}"
        if not metric.fraction and not math.isnan(low):
            interval = f"{metric.text(low, 0)} to {metric.text(high, 0)}"
        shown.add_row(
            "-" if point.voltage is None else f"{point.voltage:.4g}",
            f"{100 * point.bit_error_rate:.2g} %",
            "-" if result.energy_saving is None else f"{100 * result.energy_saving:.1f} %",
            metric.text(e.mean)
            + (f" ±{metric.text(e.std, 2 if metric.fraction else 0)}" if math.isfinite(e.std) else ""),
            metric.text(e.worst, 1),
            *((_gain(other, result),) if beside else (energy, interval)[-len(own) :]),
        )
    return shown


_SHORT = {
    "mean squared error": "MSE",
    "mean absolute error": "MAE",
    "cross entropy": "CE",
    "top-5 accuracy": "top-5",
}
"""Headings, of which 80 columns have room for no more."""


def _gain(before: "Result", after: "Result") -> str:
    """In points, with half of its 95 % interval where there is more than one chip."""
    from neuralfuse.protection import compute_improvement

    gain = compute_improvement(before.evaluation, after.evaluation)
    half = gain.interval[1] - gain.mean
    scale = 100 if before.evaluation.metric.fraction else 1
    number, spread = ("{:+.1f}", "{:.1f}") if scale == 100 else ("{:+.3g}", "{:.2g}")
    return number.format(scale * gain.mean) + ("" if math.isnan(half) else f" ±{spread.format(scale * half)}")


def cheapest(
    results: Sequence["Result"],
    variants: Sequence["Variant"],
    subject: "Subject",
    curve: "VoltageCurve",
    floor: float,
) -> list[str]:
    """For each variant, the voltage of least energy among those whose mean accuracy is at least `floor`, a fraction;
    then which of the variants takes the least."""
    from energy.saving import find_optimal_voltage

    if subject.accesses is None:
        return ["which voltage takes the least energy: not known, the model's accesses can't be counted"]
    lines, reached = [], []
    for variant in variants:
        mine = {
            r.point.voltage: r for r in results if r.variant == variant.name and r.point.voltage is not None
        }
        rows = [result.summary() for result in mine.values()]
        best = find_optimal_voltage(rows, floor, subject.accesses, curve, variant.transform_accesses)
        if best is None:
            lines.append(f"{variant.name}: no voltage of this sweep keeps {percent(floor)} accuracy")
            continue
        accuracy, saving = mine[best].evaluation.mean, mine[best].energy_saving
        lines.append(
            f"{variant.name}: least energy at {percent(floor)} accuracy at voltage {best:.4g} "
            f"({100 * accuracy:.2f} %, saving {100 * saving:.1f} %)"
        )
        reached.append((saving, accuracy, f"{variant.name} at voltage {best:.4g}"))
    if len(variants) > 1 and reached:
        lines.append(f"least energy of all: {max(reached)[-1]}")
    return lines


def _measured(metric: "Metric") -> str:
    """What stands in the table."""
    if metric.counts:
        return f"{metric.name} in %"
    short = f"{_SHORT[metric.name]}: " if metric.name in _SHORT else ""
    return f"{short}{metric.label.replace('(%)', 'in %')} ({metric.arrow})"


def _points(metric: "Metric") -> str:
    return "in points" if metric.fraction else "in the direction that is better"


def table(
    results: Sequence["Result"],
    subject: "Subject",
    conditions: "Conditions",
    chips: int,
) -> None:
    """A table for each variant on the terminal; each fits 80 columns."""
    curve = conditions.curve
    by_variant: dict[str, list[Result]] = {}
    for result in results:
        by_variant.setdefault(result.variant, []).append(result)
    first, *others = by_variant
    console().print(_table(f"{subject.title}, {first}" if others else subject.title, by_variant[first]))
    for variant in others:
        console().print(_table(f"{subject.title}, {variant}", by_variant[variant], by_variant[first]))
    metric = results[0].evaluation.metric
    energy = "energy: of one read access, relative to Vmin"
    if curve.access_pj is not None and subject.accesses is not None:
        energy = "energy: of the weight memory in one inference"
    lines = [
        f"{_measured(metric)}: mean ± population std over {chips} chip{'s' if chips > 1 else ''}",
        f"faults: {conditions}",
        f"voltages: in the curve's unit (Vmin = {curve.v_min:g}); bit errors: failing cells",
        str(subject.stored.share),
        *([energy] if metric.fraction else []),
        *([f"gain: {_points(metric)}, on the same chips, ± half of its 95 % interval"] if others else []),
    ]
    wrong = sum(result.evaluation.wrong_numbers for result in results)
    if wrong:
        lines.append(f"{wrong:,} answers were not finite (NaN or infinity): they count as wrong")
    if subject.accesses is None:
        lines.append("saving: not counted, the energy model doesn't know a layer of this model")
    else:
        at = "" if curve.access_pj is None else f" of {joules(curve.access_pj)}"
        lines.append(
            f"saving: weight memory energy of one inference ({subject.accesses:,} accesses{at}) against Vmin"
        )
        if subject.uncounted:
            lines.append(f"saving doesn't count: {', '.join(subject.uncounted)}")
    print("\n".join(lines))
