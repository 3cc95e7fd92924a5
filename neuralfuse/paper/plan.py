"""Steps to the results of cells: which files a run directory needs, and in which order.

Nothing here needs torch. neuralfuse.paper.run carries steps out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from .result import Cell, GeneratorSpec


class Kind(StrEnum):
    """What a step makes. The names of files begin with it."""

    BASE = "base"
    UNPROTECTED = "unprotected"
    GENERATOR = "generator"
    RESULT = "result"
    OUTPUTS = "outputs"


@dataclass(frozen=True)
class Step:
    """One file to make. The step is done when the file exists."""

    kind: Kind
    cell: Cell
    """What the file is about; for a generator: as it is trained, with its base models joined by plus signs."""
    recipe: str
    """Recipe of the base model."""
    file: Path

    @property
    def description(self) -> str:
        """What the step does, in one line."""
        cell = self.cell
        base = f"{cell.base} on {cell.dataset}"
        at = f"{cell.faults} at {cell.bit_error_rate:g}"
        if self.kind is Kind.BASE:
            return f"train {base}, recipe {self.recipe}"
        if cell.bits is not None:
            at += f", {cell.bits} bits"
        if self.kind is Kind.UNPROTECTED:
            return f"evaluate {base} alone, {at}"
        generator = cell.spec
        weight = "" if generator.weight is None else f", lambda = {generator.weight:g}"
        how = ""
        if self.kind is Kind.GENERATOR:
            if generator.flips is not None:
                return f"train {generator.name} for {base}, {generator.flips} chosen flips a step"
            how = "" if generator.n_models is None else f", N = {generator.n_models}"
            return f"train {generator.name} for {base}, {at}{how}{weight}{_by(generator)}"
        trained = cell.trained()
        if cell.transferred:
            how = f", trained for {trained.base} at {trained.bit_error_rate:g}"
        if generator.n_models is not None:
            how += f", N = {generator.n_models}"
        if generator.flips is not None:
            how = f", trained against {generator.flips} chosen flips"
        verb = "evaluate" if self.kind is Kind.RESULT else "keep the outputs of"
        return f"{verb} {generator.name} with {base}, {at}{how}{weight}{_by(generator)}"

    @property
    def inputs(self) -> list[Path]:
        """Files of other steps that it needs."""
        return [
            locate_file(*needed, self.recipe, self.file.parent) for needed in _needs(self.kind, self.cell)
        ]

    def sibling(self, kind: Kind) -> Path:
        """Return the file of another kind for the same cell."""
        return locate_file(kind, self.cell, self.recipe, self.file.parent)


def _by(generator: GeneratorSpec) -> str:
    return "" if generator.trainer is None else f", {generator.trainer}"


def locate_file(kind: Kind, cell: Cell, recipe: str, directory: Path) -> Path:
    """Return the file of a step in a run directory."""
    words = [kind.value]
    generator = cell.generator if kind not in (Kind.BASE, Kind.UNPROTECTED) else None
    if kind is Kind.GENERATOR:
        cell = cell.trained()
    if generator is not None:
        words.append(generator.name)
    words += [cell.base, cell.dataset, recipe]
    if cell.bits is not None and kind is not Kind.BASE:
        words.append(f"{cell.bits}bits")
    if kind is not Kind.BASE and not (kind is Kind.GENERATOR and cell.spec.flips is not None):
        words += [cell.faults, f"{cell.bit_error_rate:g}"]
    if generator is not None:
        if cell.transferred:
            trained = cell.trained()
            words += ["from", trained.base, f"{trained.bit_error_rate:g}"]
        if generator.n_models is not None:
            words.append(f"N{generator.n_models}")
        if generator.flips is not None:
            words.append(f"flips{generator.flips}")
        if generator.weight is not None:
            words.append(f"lambda{generator.weight:g}")
        if generator.trainer is not None:
            words.append(generator.trainer)
    suffix = {Kind.BASE: "safetensors", Kind.GENERATOR: "safetensors", Kind.OUTPUTS: "npz"}
    return directory / f"{'-'.join(words)}.{suffix.get(kind, 'json')}"


def _needs(kind: Kind, cell: Cell) -> list[tuple[Kind, Cell]]:
    """Return what a step needs, in the order in which it is done."""
    alone = replace(cell, generator=None)
    base = replace(alone, bits=None)  # models are trained for 8 bits
    if kind is Kind.BASE:
        return []
    if kind is Kind.UNPROTECTED:
        return [(Kind.BASE, base)]
    trained = cell.trained()
    sources = [(Kind.BASE, replace(trained, base=name, generator=None)) for name in cell.spec.sources]
    if kind is Kind.GENERATOR:
        return sources
    bases = [(Kind.BASE, base), *sources]
    if kind is Kind.OUTPUTS:
        return [*bases, (Kind.GENERATOR, trained)]
    return [*bases, (Kind.UNPROTECTED, alone), (Kind.GENERATOR, trained)]


def plan_steps(
    wanted: Iterable[Cell], recipe: str, directory: Path, kinds: Sequence[Kind] = (Kind.RESULT,)
) -> list[Step]:
    """Plan every step to the results of cells, done or not; each comes after those that it needs.

    Parameters
    ----------
    wanted
        Cells.
    recipe
        Recipe of the base models.
    directory
        Run directory.
    kinds
        What is wanted of each cell: Kind.RESULT, Kind.OUTPUTS.
    """
    found: dict[Path, Step] = {}

    def add(kind: Kind, cell: Cell) -> None:
        for needed in _needs(kind, cell):
            add(*needed)
        file = locate_file(kind, cell, recipe, directory)
        found.setdefault(file, Step(kind, cell, recipe, file))

    for cell in wanted:
        for kind in kinds:
            add(kind, cell)
    return list(found.values())


def chain_steps(last: Step, planned: Sequence[Step]) -> list[Step]:
    """Return the missing steps of a plan that lead to `last`, which is the last one; none if it is done."""
    if last.file.exists():
        return []
    wanted = plan_steps([last.cell], last.recipe, last.file.parent, (last.kind,))
    files = {step.file for step in wanted}
    return [step for step in planned if step.file in files and not step.file.exists()]


def find_missing(planned: Sequence[Step]) -> list[Step]:
    """Return the steps whose file is missing, without prerequisites of results that exist."""
    needed = {step for last in find_ends(planned) for step in chain_steps(last, planned)}
    return [step for step in planned if step in needed]


def find_ends(planned: Sequence[Step]) -> list[Step]:
    """Return the steps that a plan is made for."""
    return [step for step in planned if step.kind in (Kind.RESULT, Kind.OUTPUTS)]
