"""How much of the paper is reproduced: for each table and figure the cells with results, and how far off they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from .cells import NAMES, TITLES, select_cells
from .rows import Line, collect_lines


@dataclass(frozen=True)
class Status:
    """Status of one table or figure under one fault model, with one trainer of generators."""

    name: str
    title: str
    faults: str
    trainer: str
    """"eopm", "staged", "lookup" or "adversarial"."""
    cells: int
    obtained: int
    """Cells with at least one result."""
    compared: int
    """Of those, cells that the paper reports."""
    off: float | None
    """Mean of |P.A.+N.F. - published|, in percentage points."""
    at_or_above: int
    """Of the compared cells, those whose P.A.+N.F. is not below the published one."""
    devices: tuple[str, ...]
    """Devices of the evaluations."""
    recipes: tuple[str, ...]
    """Recipes of the base models."""


def count_status(found: Mapping[str, Sequence[Line]]) -> list[Status]:
    """Count the results of tables and figures.

    Parameters
    ----------
    found
        Lines of each table, by its name (see rows.collect_lines).

    Returns
    -------
    list of Status
        One per table, fault model and trainer that has results. Of several results of a cell the last one counts.
    """
    counted = []
    for name, of_table in found.items():
        for faults in dict.fromkeys(line.cell.faults for line in of_table):
            of_faults = [line for line in of_table if line.cell.faults == faults]
            for trainer in _distinct(result.trainer for line in of_faults for result in line.results) or (
                "eopm",
            ):
                counted.append(_status(name, faults, trainer, of_faults))
    return counted


def _status(name: str, faults: str, trainer: str, of_faults: Sequence[Line]) -> Status:
    by_trainer = [
        replace(line, results=tuple(result for result in line.results if result.trainer == trainer))
        for line in of_faults
    ]
    there = [line for line in by_trainer if line.results]
    compared = [
        (line.results[-1].mean("perturbed_fused"), line.published.perturbed_fused)
        for line in there
        if line.published is not None and line.published.perturbed_fused is not None
    ]
    return Status(
        name,
        TITLES[name],
        faults,
        trainer,
        len(of_faults),
        len(there),
        len(compared),
        fmean(abs(ours - theirs) for ours, theirs in compared) if compared else None,
        sum(ours >= theirs for ours, theirs in compared),
        _distinct(line.results[-1].provenance["device"] for line in there),
        _distinct(line.results[-1].configuration["base"]["recipe"]["name"].split(",")[0] for line in there),
    )


def collect_everything(directory: Path | None = None) -> dict[str, list[Line]]:
    """Collect the lines of every table and figure that needs trained models, from results/ and a run directory."""
    return {name: collect_lines(select_cells(name), directory) for name in NAMES}


def _distinct(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(words))
