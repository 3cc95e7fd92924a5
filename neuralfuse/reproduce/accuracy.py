"""Tables 1, 9 and 10: accuracy without and with NeuralFuse (the paper, section 4.2 and Appendix J). What they hold, and
what is missing to compute them again.

Nothing here needs torch: a plan is a list of files that are not there yet. Who carries it out is another matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from faultsim.errors import FaultsimError
from neuralfuse import published
from neuralfuse.results import Cell, Result, obtained

NAMES = ("table1", "table9", "table10")
FAULTS = ("neuralfuse_2022", "iid_flips")
"""Each row is computed under both: as the paper's released code has it, and with honest independent flips."""
CHIPS = 10
"""Chips that every accuracy is measured on, as many as in the paper."""


@dataclass(frozen=True)
class Published:
    """A row of the paper's table, in percent; None where a value is unreadable in the source."""

    clean: float | None
    perturbed: float | None
    perturbed_std: float | None
    clean_fused: float | None
    perturbed_fused: float | None
    perturbed_fused_std: float | None
    improvement: float | None


def published_row(cell: Cell) -> Published | None:
    """What the paper reports for a cell, whatever its fault model; None where it doesn't."""
    key = (cell.dataset, cell.base, cell.bit_error_rate)
    alone = next((row for row in published.table("base_models") if _key(row) == key), None)
    fused = next(
        (
            row
            for row in published.table("relaxed_access")
            if _key(row) == key and row["generator"] == cell.generator
        ),
        None,
    )
    if alone is None or fused is None:
        return None
    texts = (
        alone["clean_acc"],
        alone["perturbed_acc"],
        alone["perturbed_acc_std"],
        fused["clean_acc_nf"],
        fused["perturbed_acc_nf"],
        fused["perturbed_acc_nf_std"],
        fused["improvement"],
    )
    return Published(*(float(text) if text else None for text in texts))


def _key(row: dict[str, str]) -> tuple[str, str, float]:
    return row["dataset"], row["base_model"], float(row["bit_error_rate"])


def cells(
    table: str,
    datasets: Sequence[str] = (),
    bases: Sequence[str] = (),
    generators: Sequence[str] = (),
    *,
    smoke: bool = False,
) -> list[Cell]:
    """Cells of a table, restricted to what is named (nothing named: no restriction), each under both fault models.

    smoke  the digits and DigitsNet at the table's bit error rate instead of what the paper has

    Raises FaultsimError for names that the table doesn't have.
    """
    rows = [row for row in published.table("relaxed_access") if row["table"] == table]
    if not rows:
        raise FaultsimError(f"unknown table {table!r}; known are {', '.join(NAMES)}")
    if smoke:
        rows = [row | {"dataset": "digits", "base_model": "DigitsNet"} for row in rows]
    for column, asked in (("dataset", datasets), ("base_model", bases), ("generator", generators)):
        known = list(dict.fromkeys(row[column] for row in rows))
        for name in asked:
            if name not in known:
                what = column.replace("_", " ")
                raise FaultsimError(f"{table} has no {what} {name!r}; it has {', '.join(known)}")
        if asked:
            rows = [row for row in rows if row[column] in asked]
    order = list(dict.fromkeys(row["dataset"] for row in rows))
    rows.sort(key=lambda row: order.index(row["dataset"]))  # stable: the rows of a data set stand together
    found = [
        Cell(row["dataset"], row["base_model"], row["generator"], faults, float(row["bit_error_rate"]))
        for row in rows
        for faults in FAULTS
    ]
    return list(dict.fromkeys(found))


class Kind(StrEnum):
    """What a step makes; the files' names begin with it."""

    BASE = "base"
    UNPROTECTED = "unprotected"
    GENERATOR = "generator"
    RESULT = "result"


@dataclass(frozen=True)
class Step:
    """One file to make. It is there, whole, when the step is done."""

    kind: Kind
    cell: Cell  #: one of those that need it
    recipe: str  #: of the base model
    file: Path

    @property
    def description(self) -> str:
        cell = self.cell
        base = f"{cell.base} on {cell.dataset}"
        at = f"{cell.faults} at {cell.bit_error_rate:g}"
        return {
            Kind.BASE: f"train {base}, recipe {self.recipe}",
            Kind.UNPROTECTED: f"evaluate {base} alone, {at}",
            Kind.GENERATOR: f"train {cell.generator} for {base}, {at}",
            Kind.RESULT: f"evaluate {cell.generator} with {base}, {at}",
        }[self.kind]

    def sibling(self, kind: Kind) -> Path:
        """The file of another kind that belongs to the same cell."""
        return file_of(kind, self.cell, self.recipe, self.file.parent)


def file_of(kind: Kind, cell: Cell, recipe: str, directory: Path) -> Path:
    """Where a run directory holds the outcome of a step."""
    words = [kind.value]
    if kind in (Kind.GENERATOR, Kind.RESULT):
        words.append(str(cell.generator))
    words += [cell.base, cell.dataset, recipe]
    if kind is not Kind.BASE:
        words += [cell.faults, f"{cell.bit_error_rate:g}"]
    suffix = "safetensors" if kind in (Kind.BASE, Kind.GENERATOR) else "json"
    return directory / f"{'-'.join(words)}.{suffix}"


def steps(wanted: Iterable[Cell], recipe: str, directory: Path) -> list[Step]:
    """Every step to the results of these cells, each after those that it needs, done or not."""
    found: dict[Path, Step] = {}
    for cell in wanted:
        for kind in Kind:
            file = file_of(kind, cell, recipe, directory)
            found.setdefault(file, Step(kind, cell, recipe, file))
    return list(found.values())


def missing(planned: Sequence[Step]) -> list[Step]:
    """The steps that are still to be done: those without their file, but for what only finished results would need."""
    unfinished = [step for step in planned if step.kind is Kind.RESULT and not step.file.exists()]
    needed = {result.sibling(kind) for result in unfinished for kind in Kind}
    return [step for step in planned if step.file in needed and not step.file.exists()]


@dataclass(frozen=True)
class Line:
    """One cell of a table with what there is of it."""

    cell: Cell
    published: Published | None
    results: tuple[Result, ...]  #: none, or one for each recipe (or other configuration) it was obtained with


def lines(wanted: Iterable[Cell], directory: Path | None = None, *, shipped: bool = True) -> list[Line]:
    """The cells with the results that come with faultsim (`shipped`) and those of a run directory."""
    found = obtained() if shipped else []
    if directory is not None:
        found += [result for result in obtained(directory) if result not in found]
    return [
        Line(cell, published_row(cell), tuple(result for result in found if result.cell == cell))
        for cell in wanted
    ]
