"""How much of the paper is reproduced: of each table and figure the cells that are there, how far off, and where they
were computed. Reads files only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from .cells import NAMES, TITLES, select_cells
from .rows import Line, collect_lines


@dataclass(frozen=True)
class Status:
    """Of one table or figure under one fault model, by one trainer of generators."""

    name: str
    title: str
    faults: str
    trainer: str  #: "eopm", "staged" or "adversarial"
    cells: int
    obtained: int  #: cells with at least one result
    compared: int  #: of those, cells that the paper reports
    off: float | None  #: mean of |P.A.+N.F. - published|, in percentage points
    at_or_above: int  #: of the compared, those whose P.A.+N.F. is not below the published one
    devices: tuple[str, ...]  #: where they were evaluated
    recipes: tuple[str, ...]  #: of their base models


def count_status(found: Mapping[str, Sequence[Line]]) -> list[Status]:
    """Of tables and figures with their lines (rows.lines), under each fault model, by each trainer that there are
    results of. Of several results of a cell the last one counts."""
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
    """The lines of every table and figure that needs trained models: with the results that come with faultsim, and
    those of a run directory."""
    return {name: collect_lines(select_cells(name), directory) for name in NAMES}


def _distinct(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(words))
