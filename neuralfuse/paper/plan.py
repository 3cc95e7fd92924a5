"""What is missing to compute cells: one planner for all tables and figures.

A plan is a list of files that are not there yet. Who carries it out is another matter; nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from .result import Cell, Generator


class Kind(StrEnum):
    """What a step makes; the files' names begin with it."""

    BASE = "base"
    UNPROTECTED = "unprotected"
    GENERATOR = "generator"
    RESULT = "result"
    OUTPUTS = "outputs"


@dataclass(frozen=True)
class Step:
    """One file to make. It is there, whole, when the step is done."""

    kind: Kind
    cell: Cell  #: what it is about; of a generator: as it is trained
    recipe: str  #: of the base model
    file: Path

    @property
    def description(self) -> str:
        cell = self.cell
        base = f"{cell.base} on {cell.dataset}"
        at = f"{cell.faults} at {cell.bit_error_rate:g}"
        if self.kind is Kind.BASE:
            return f"train {base}, recipe {self.recipe}"
        if self.kind is Kind.UNPROTECTED:
            return f"evaluate {base} alone, {at}"
        generator = cell.generator
        how = ""
        if self.kind is Kind.GENERATOR:
            if generator.flips is not None:
                return f"train {generator.name} for {base}, {generator.flips} chosen flips a step"
            how = "" if generator.n_models is None else f", N = {generator.n_models}"
            return f"train {generator.name} for {base}, {at}{how}{_by(generator)}"
        trained = cell.trained()
        if cell.transferred:
            how = f", trained for {trained.base} at {trained.bit_error_rate:g}"
        if generator.n_models is not None:
            how += f", N = {generator.n_models}"
        if generator.flips is not None:
            how = f", trained against {generator.flips} chosen flips"
        verb = "evaluate" if self.kind is Kind.RESULT else "keep the outputs of"
        return f"{verb} {generator.name} with {base}, {at}{how}{_by(generator)}"

    def sibling(self, kind: Kind) -> Path:
        """The file of another kind that belongs to the same cell; of a generator's step: its base model's."""
        return file_of(kind, self.cell, self.recipe, self.file.parent)


def _by(generator: Generator) -> str:
    return "" if generator.trainer is None else f", {generator.trainer}"


def file_of(kind: Kind, cell: Cell, recipe: str, directory: Path) -> Path:
    """Where a run directory holds the outcome of a step."""
    words = [kind.value]
    generator = cell.generator if kind not in (Kind.BASE, Kind.UNPROTECTED) else None
    if kind is Kind.GENERATOR:
        cell = cell.trained()
    if generator is not None:
        words.append(generator.name)
    words += [cell.base, cell.dataset, recipe]
    if kind is not Kind.BASE and not (kind is Kind.GENERATOR and generator.flips is not None):
        words += [cell.faults, f"{cell.bit_error_rate:g}"]
    if generator is not None:
        if cell.transferred:
            trained = cell.trained()
            words += ["from", trained.base, f"{trained.bit_error_rate:g}"]
        if generator.n_models is not None:
            words.append(f"N{generator.n_models}")
        if generator.flips is not None:
            words.append(f"flips{generator.flips}")
        if generator.trainer is not None:
            words.append(generator.trainer)
    suffix = {Kind.BASE: "safetensors", Kind.GENERATOR: "safetensors", Kind.OUTPUTS: "npz"}
    return directory / f"{'-'.join(words)}.{suffix.get(kind, 'json')}"


def _needs(kind: Kind, cell: Cell) -> list[tuple[Kind, Cell]]:
    """What a step needs, in the order in which it is done."""
    alone = replace(cell, generator=None)
    if kind is Kind.BASE:
        return []
    if kind in (Kind.UNPROTECTED, Kind.GENERATOR):
        return [(Kind.BASE, alone)]
    trained = cell.trained()
    bases = [(Kind.BASE, alone), (Kind.BASE, replace(trained, generator=None))]
    if kind is Kind.OUTPUTS:
        return [*bases, (Kind.GENERATOR, trained)]
    return [*bases, (Kind.UNPROTECTED, alone), (Kind.GENERATOR, trained)]


def steps(
    wanted: Iterable[Cell], recipe: str, directory: Path, kinds: Sequence[Kind] = (Kind.RESULT,)
) -> list[Step]:
    """Every step to the results of these cells (or what else of `kinds` is wanted of them), each after those that it
    needs, done or not."""
    found: dict[Path, Step] = {}

    def add(kind: Kind, cell: Cell) -> None:
        for needed in _needs(kind, cell):
            add(*needed)
        file = file_of(kind, cell, recipe, directory)
        found.setdefault(file, Step(kind, cell, recipe, file))

    for cell in wanted:
        for kind in kinds:
            add(kind, cell)
    return list(found.values())


def chain(last: Step, planned: Sequence[Step]) -> list[Step]:
    """The missing steps of a plan that lead to `last`, itself the last of them; none when it is done."""
    if last.file.exists():
        return []
    wanted = steps([last.cell], last.recipe, last.file.parent, (last.kind,))
    files = {step.file for step in wanted}
    return [step for step in planned if step.file in files and not step.file.exists()]


def missing(planned: Sequence[Step]) -> list[Step]:
    """The steps that are still to be done: those without their file, but for what only finished results would need."""
    needed = {step for last in ends(planned) for step in chain(last, planned)}
    return [step for step in planned if step in needed]


def ends(planned: Sequence[Step]) -> list[Step]:
    """The steps that a plan is made for."""
    return [step for step in planned if step.kind in (Kind.RESULT, Kind.OUTPUTS)]
