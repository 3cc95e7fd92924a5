"""How far a command is, on stderr."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from ..evaluation import Evaluation
    from ..studies.sweep_result import SweepRow

REPORT_SECONDS = 2.0
"""Least seconds between two lines about one step."""


@contextlib.contextmanager
def show_sweep(
    steps: int, chips: int, precision: float | None = None
) -> Iterator[dict[str, Callable[["SweepRow"], None]]]:
    """Yield what a sweep calls after each step ("report") and after each group of chips within one ("progress"): on a
    terminal they move a bar with the time left, elsewhere they print lines. With a `precision`, nobody knows before how
    many of the chips a step takes."""

    def count(row: "SweepRow") -> str:
        return f"{row.evaluation.chips:,} {'' if precision else f'of {chips:,} '}chips"

    if sys.stderr.isatty():
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task, whole = bar.add_task("sweep", total=steps), 0

            def advance(row: "SweepRow") -> None:
                nonlocal whole
                whole += 1
                bar.update(task, completed=whole, description=_step(row))

            def advance_within(row: "SweepRow") -> None:
                share = row.evaluation.chips / chips
                bar.update(task, completed=whole + share, description=f"{_step(row)}, {count(row)}")

            yield {"report": advance, "progress": advance_within}
        return
    started, done = time.monotonic(), 0
    last = started

    def print_step(row: "SweepRow") -> None:
        nonlocal done
        done += 1
        print_line(done, f"[{done}/{steps}] {_step(row)}: {_value(row.evaluation)}")

    def print_within(row: "SweepRow") -> None:
        share = row.evaluation.chips / chips
        if share < 1 and time.monotonic() - last >= REPORT_SECONDS:
            text = f"[{done + 1}/{steps}] {_step(row)}: {count(row)}, {_value(row.evaluation)}"
            print_line(done + share, text)

    def print_line(ready: float, text: str) -> None:
        nonlocal last
        last = time.monotonic()
        left = (last - started) / ready * (steps - ready)
        print(f"{text}, {left:.0f} s left", file=sys.stderr, flush=True)

    yield {"report": print_step, "progress": print_within}


def show_chips(chips: int) -> Callable[["Evaluation"], None]:
    """Return what an evaluation calls after each group of chips: it prints a line from time to time."""
    last = time.monotonic()

    def report(found: "Evaluation") -> None:
        nonlocal last
        if found.chips < chips and time.monotonic() - last >= REPORT_SECONDS:
            last = time.monotonic()
            print(f"{found.chips:,} of {chips:,} chips: {_value(found)}", file=sys.stderr, flush=True)

    return report


def _step(row: "SweepRow") -> str:
    """The operating point and the variant."""
    return f"{row.point}, {row.variant}"


def _value(evaluation: "Evaluation") -> str:
    """The mean of the chips so far."""
    metric, text = evaluation.metric, evaluation.metric.text(evaluation.mean)
    return f"{text} %" if metric.fraction else f"{metric.name} {text}"
