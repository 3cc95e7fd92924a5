"""Carrying out a plan: the missing steps of tables and figures, one after the other, in a run directory."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from faultsim.cluster.workers import AnyClient, open_workers
from faultsim.errors import FaultsimError
from faultsim.io.provenance import record_provenance
from faultsim.io.run_directory import RunDirectory
from faultsim.kernel.devices import choose_device
from faultsim.show.units import format_duration
from faultsim.training.loop import OutOfTime

from .actions import Actions
from .budget import Clock, choose_next
from .cells import NEED_OUTPUTS, change_trainer, count_cells
from .plan import Kind, Step, find_missing, plan_steps
from .result import Cell
from .settings import Settings


@dataclass(frozen=True)
class Plan:
    """Every step to some tables and figures, done or not."""

    steps: tuple[Step, ...]
    wanted: Mapping[Cell, int]
    """How many tables and figures each cell belongs to."""
    settings: Settings

    @classmethod
    def of(cls, tables: Mapping[str, Sequence[Cell]], directory: Path, settings: Settings) -> Plan:
        """Plan tables and figures, given their cells by their names, in a run directory."""
        tables = {
            name: [change_trainer(cell, settings.trainer) for cell in cells] for name, cells in tables.items()
        }
        wanted = count_cells(tables.values())
        outputs = [cell for name, cells in tables.items() if name in NEED_OUTPUTS for cell in cells]
        found = plan_steps(wanted, settings.recipe, directory)
        more = plan_steps(outputs, settings.recipe, directory, (Kind.OUTPUTS,))
        return cls((*found, *(step for step in more if step not in found)), wanted, settings)

    def describe(self, clock: Clock | None = None) -> Iterator[str]:
        """Yield lines: what is done, what is missing and, with a clock, how long it takes."""
        todo = find_missing(self.steps)
        done = sum(step.file.exists() for step in self.steps)
        seconds = [clock.estimate(step) for step in todo] if clock else []
        cost = f", at most {format_duration(sum(seconds))} on this device" if seconds else ""
        yield f"{done} of {len(self.steps)} steps are done, {len(todo)} are missing{cost}"
        for number, step in enumerate(todo):
            cost = f" ({format_duration(seconds[number])})" if seconds else ""
            yield f"  {number + 1}. {step.description}{cost} -> {step.file.name}"


def carry_out(
    plan: Plan,
    directory: Path,
    *,
    data_dir: Path | None = None,
    device: str = "auto",
    budget: float | None = None,
    report: Callable[[str], None] = lambda line: None,
    client: AnyClient | None = None,
) -> None:
    """Do the missing steps of a plan.

    Each step can be interrupted at any time and continues when the plan is carried out again. One process at a time
    uses a run directory.

    Parameters
    ----------
    plan
        What to do.
    directory
        Run directory; it is created.
    data_dir
        Folder of the datasets. Default: they are downloaded.
    device
        "auto", "cpu", "cuda" or "cuda:N".
    budget
        Seconds. Steps to the most valuable results that fit come first: those that most tables need for their time.
        The rest goes to a training that does not fit, whose state is written. Default: everything is done.
    report
        Called with lines about the progress.
    client
        A client of a Dask cluster (or ``faultsim.cluster.workers.Workers``) whose workers do the steps, each of them on
        one worker. They find the datasets in a `data_dir` of the same path, or download them.

    Raises
    ------
    FaultsimError
        If the directory is in use, was begun with other settings, or holds files that do not belong together; for a
        budget with a client.
    """
    if client is not None and budget is not None:
        raise FaultsimError("a budget cannot be combined with workers: their steps run at the same time")
    where = choose_device(device)
    began = time.monotonic()

    def left() -> float | None:
        return None if budget is None else budget - (time.monotonic() - began)

    with RunDirectory(directory, "reproduce", plan.settings.describe(), ()) as run:
        _remove_leftovers(directory)
        run.begin(record_provenance(str(where)))
        todo = find_missing(plan.steps)
        clock = Clock.of(plan.settings, where) if todo else None
        for line in plan.describe(clock):
            report(line)
        if clock is None:
            return
        if client is not None:
            from .spread import spread_steps

            with open_workers(client, where.type) as workers:
                spread_steps(todo, len(plan.steps), plan.settings, data_dir, workers, run, report)
            return
        actions = Actions(plan.settings, data_dir, where, report)
        total, number = len(todo), 0
        before = len(plan.steps) - total
        while todo:
            remaining = left()
            if remaining is not None:
                todo = _choose(plan, clock, remaining, report)
            for step in todo:
                number += 1
                report(f"[{number}/{total}] {step.description}")
                run.status.update(
                    before + number - 1, len(plan.steps), unit="steps", running=[step.description]
                )
                run.status.write()
                expected, started = clock.estimate(step), time.monotonic()
                try:
                    actions.carry_out(step, left())
                except OutOfTime as stop:
                    report(str(stop))
                    return
                clock.learn(expected, time.monotonic() - started)
                run.check()
            if budget is None:
                break


def _choose(plan: Plan, clock: Clock, left: float, report: Callable[[str], None]) -> list[Step]:
    """Choose the steps that the rest of a budget is spent on next.

    They are those to the most valuable result that fits; if none fits, the next training on the way to the most
    valuable result, which continues another time. Reports why if there are none.
    """
    found = choose_next(plan.steps, plan.wanted, clock.estimate, left)
    if found or not find_missing(plan.steps):
        return found
    best = choose_next(plan.steps, plan.wanted, clock.estimate, math.inf)
    trainings = [step for step in best if step.kind in (Kind.BASE, Kind.GENERATOR)]
    if trainings and left > 0:
        return trainings[:1]
    needed = sum(clock.estimate(step) for step in best)
    report(
        f"{format_duration(max(left, 0))} of the budget are left: the next result, {best[-1].description}, takes up to "
        f"{format_duration(needed)}"
    )
    return []


def _remove_leftovers(directory: Path) -> None:
    """Remove temporary files of a run that was killed while it wrote."""
    for kind in Kind:
        for leftover in directory.glob(f".{kind.value}-*"):
            with contextlib.suppress(OSError):
                leftover.unlink()
