"""Accuracies that were obtained, as data. README.md in this folder says what a file holds.

Reading them needs no torch.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from statistics import fmean, pstdev
from typing import TYPE_CHECKING

from faultsim.errors import FaultsimError

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

FORMAT = 1
ALONE = ("clean", "perturbed")
"""What is counted of a base model: right answers without bit errors, and on each chip."""
FUSED = ("clean_fused", "perturbed_fused")
"""The same behind a generator."""


@dataclass(frozen=True)
class Cell:
    """What one result is about."""

    dataset: str
    base: str
    generator: str | None  #: None: the base model alone
    faults: str  #: a preset of faultsim.faults
    bit_error_rate: float  #: fraction of failing cells


@dataclass(frozen=True)
class Result:
    """One cell, measured."""

    cell: Cell
    images: int
    correct: dict[
        str, list[int]
    ]  #: ALONE, and FUSED where there is a generator; chips in one order throughout
    configuration: dict  #: everything that the counts depend on
    provenance: dict  #: where and when they were computed

    def accuracies(self, part: str) -> list[float]:
        """Of each chip, in percent."""
        return [100 * count / self.images for count in self.correct[part]]

    def mean(self, part: str) -> float:
        """Over the chips, in percent."""
        return fmean(self.accuracies(part))

    def std(self, part: str) -> float:
        """Population standard deviation over the chips, as the paper reports it, in percent."""
        return pstdev(self.accuracies(part))

    @property
    def improvement(self) -> float:
        """IP: P.A.+N.F. minus P.A., in percentage points."""
        return self.mean("perturbed_fused") - self.mean("perturbed")

    def text(self) -> str:
        """The file's content."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2, allow_nan=False) + "\n"


def read(path: Path | Traversable) -> Result:
    """The result in a file; FaultsimError when it holds none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found.pop("format") != FORMAT:
            raise FaultsimError(
                f"{path} was written by another version of faultsim (this one reads format {FORMAT})"
            )
        result = Result(**{**found, "cell": Cell(**found["cell"])})
        parts = ALONE if result.cell.generator is None else ALONE + FUSED
        complete = set(result.correct) == set(parts) and len(result.correct["perturbed"]) >= 1
        if not complete or not all(0 <= n <= result.images for part in parts for n in result.correct[part]):
            raise ValueError("the counts are not complete")
    except FaultsimError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FaultsimError(f"{path} is no result that faultsim wrote ({error}): move it away") from None
    return result


def obtained(directory: Path | None = None) -> list[Result]:
    """All results that a run directory holds (result-*.json), in the order of their names; without a directory those
    that come with faultsim. Raises FaultsimError for a damaged file."""
    folder = files(__package__) if directory is None else directory
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if path.name.startswith("result-")]
    return [read(path) for path in sorted(found, key=lambda p: p.name) if path.name.endswith(".json")]
