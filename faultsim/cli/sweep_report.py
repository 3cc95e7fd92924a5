"""How a sweep tells what it does and what came out."""

import contextlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ..faultmap import MeasuredChip
from ..results import without_nan

if TYPE_CHECKING:
    from ..faults import Chip, FaultModel
    from ..sweep import Result, Variant
    from ..voltage import VoltageCurve
    from .subject import Subject


@contextlib.contextmanager
def progress(steps: int) -> Iterator[Callable[["Result"], None]]:
    """Yields what to call after each step: a bar with the time left on a terminal, plain lines elsewhere; on stderr."""
    if sys.stderr.isatty():
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("sweep", total=steps)

            def advance(result: "Result") -> None:
                bar.update(task, advance=1, description=_where(result))

            yield advance
        return
    started, done = time.monotonic(), 0

    def line(result: "Result") -> None:
        nonlocal done
        done += 1
        left = (time.monotonic() - started) / done * (steps - done)
        accuracy = f"{100 * result.evaluation.mean:.2f} %"
        print(
            f"[{done}/{steps}] {_where(result)}: {accuracy}, {left:.0f} s left", file=sys.stderr, flush=True
        )

    yield line


def _where(result: "Result") -> str:
    point = result.point
    place = f"BER {point.bit_error_rate:.3g}" if point.voltage is None else f"V = {point.voltage:.4g}"
    return f"{place}, {result.variant}"


def report_json(results: Sequence["Result"], configuration: dict, information: dict) -> str:
    """One JSON object: the summary rows, the configuration, where it was computed."""
    rows = [result.summary() for result in results]
    report = {"summary": rows, "configuration": configuration, **information}
    return json.dumps(without_nan(report), indent=2, allow_nan=False)


def _table(title: str, results: Sequence["Result"], beside: Sequence["Result"] | None = None) -> Table:
    """Of one variant. With the results of another `beside` it, its gain over that one on the same chips stands in the
    place of the energy of an access and of the interval: both together are too wide for 80 columns."""
    shown = Table(title=title, title_justify="left", title_style="bold")
    own, common = ("energy", "95 % CI"), ("voltage", "bit errors", "saving", "accuracy", "worst")
    for header in (*common, *(("gain",) if beside else own)):
        shown.add_column(header, justify="right", no_wrap=True)
    for result, other in zip(results, beside or results, strict=True):
        e, point = result.evaluation, result.point
        low, high = e.interval
        energy = "-" if point.energy_per_access is None else f"{point.energy_per_access:.3f}"
        interval = "-" if math.isnan(low) else f"{100 * low:.1f}-{100 * high:.1f}"
        shown.add_row(
            "-" if point.voltage is None else f"{point.voltage:.4g}",
            f"{100 * point.bit_error_rate:.2g} %",
            "-" if result.energy_saving is None else f"{100 * result.energy_saving:.1f} %",
            f"{100 * e.mean:.2f} ± {100 * e.std:.2f}",
            f"{100 * e.worst:.1f}",
            *((_gain(other, result),) if beside else (energy, interval)),
        )
    return shown


def _gain(before: "Result", after: "Result") -> str:
    """In points, with half of its 95 % interval where there is more than one chip."""
    from neuralfuse.protection import improvement

    gain = improvement(before.evaluation, after.evaluation)
    half = gain.interval[1] - gain.mean
    return f"{100 * gain.mean:+.1f}" + ("" if math.isnan(half) else f" ± {100 * half:.1f}")


def cheapest(
    results: Sequence["Result"],
    variants: Sequence["Variant"],
    subject: "Subject",
    curve: "VoltageCurve",
    floor: float,
) -> list[str]:
    """For each variant, the voltage of least energy among those whose mean accuracy is at least `floor` percent; then
    which of the variants takes the least."""
    from energy.saving import energy_optimal_voltage

    if subject.accesses is None:
        return ["which voltage takes the least energy: not known, the model's accesses can't be counted"]
    lines, reached = [], []
    for variant in variants:
        mine = {
            r.point.voltage: r for r in results if r.variant == variant.name and r.point.voltage is not None
        }
        rows = [result.summary() for result in mine.values()]
        best = energy_optimal_voltage(rows, floor / 100, subject.accesses, curve, variant.transform_accesses)
        if best is None:
            lines.append(f"{variant.name}: no voltage of this sweep keeps {floor:g} % accuracy")
            continue
        accuracy, saving = mine[best].evaluation.mean, mine[best].energy_saving
        lines.append(
            f"{variant.name}: least energy at {floor:g} % accuracy at voltage {best:.4g} "
            f"({100 * accuracy:.2f} %, saving {100 * saving:.1f} %)"
        )
        reached.append((saving, accuracy, f"{variant.name} at voltage {best:.4g}"))
    if len(variants) > 1 and reached:
        lines.append(f"least energy of all: {max(reached)[-1]}")
    return lines


def _faults(model: "FaultModel", chips: "Sequence[Chip | MeasuredChip]") -> str:
    memory = model.memory
    if isinstance(chips[0], MeasuredChip):
        words = [f"as measured ({', '.join(chip.label for chip in chips)}), {memory.placement} placement"]
    else:
        words = [f"{model.kind}, {memory.placement} placement"]
    if memory.placement.startswith("tiled"):
        words.append(f"{memory.capacity_bytes // 1024} KiB of weight memory")
    if model.kind == "stuck_at_random" and model.polarity != 0.5:
        words.append(f"stuck at 1 with probability {model.polarity:g}")
    if model.kind == "transient":
        words.append(f"each read wrong with probability {model.read_error:g}")
    return ", ".join(words)


def table(
    results: Sequence["Result"],
    subject: "Subject",
    faults: "FaultModel",
    chips: "Sequence[Chip | MeasuredChip]",
    curve: "VoltageCurve",
) -> None:
    """A table for each variant on the terminal; each fits 80 columns."""
    console = Console()
    by_variant: dict[str, list[Result]] = {}
    for result in results:
        by_variant.setdefault(result.variant, []).append(result)
    first, *others = by_variant
    console.print(_table(f"{subject.title}, {first}" if others else subject.title, by_variant[first]))
    for variant in others:
        console.print(_table(f"{subject.title}, {variant}", by_variant[variant], by_variant[first]))
    lines = [
        f"accuracy in %: mean ± population std over {len(chips)} chip{'s' if len(chips) > 1 else ''}",
        f"faults: {_faults(faults, chips)}",
        f"curve '{curve.name}', voltages in its unit (Vmin = {curve.v_min:g}); bit errors: failing cells",
        str(subject.stored.share),
        "energy: of one read access, relative to Vmin",
        *(["gain: in points, on the same chips, ± half of its 95 % interval"] if others else []),
    ]
    if subject.accesses is None:
        lines.append("saving: not counted, the energy model doesn't know a layer of this model")
    else:
        lines.append(
            f"saving: weight memory energy of one inference ({subject.accesses:,} accesses) against Vmin"
        )
        if subject.uncounted:
            lines.append(f"saving doesn't count: {', '.join(subject.uncounted)}")
    print("\n".join(lines))
