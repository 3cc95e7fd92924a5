"""Accuracies that were measured, as data. results/README.md says what a file holds.

Reading them needs no torch.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean, pstdev

from faultsim.errors import FaultsimError
from faultsim.io.bounds import parse_json

FORMAT = 1
KEPT = Path(__file__).parents[2] / "results"
"""Where a source tree keeps the results that its documents show."""
ALONE = ("clean", "perturbed")
"""What is counted of a base model: right answers without bit errors, and on each chip."""
TRAINING_IMAGES = {"digits": 1438, "cifar10": 50_000, "cifar100": 50_000, "gtsrb": 39_209}
"""Of each data set (the paper, Appendix C; scikit-learn's digits)."""
FUSED = ("clean_fused", "perturbed_fused")
"""The same behind a generator."""


@dataclass(frozen=True)
class Generator:
    """How a generator came about: by EOPM at a bit error rate, or against chosen bit flips."""

    name: str  #: ConvL, ...
    source: str  #: the base model that it was trained for
    bit_error_rate: float | None = (
        None  #: fraction of failing cells it was trained at; None: against chosen flips
    )
    n_models: int | None = None  #: N of EOPM, where N is what is studied; None: as the configuration says
    flips: int | None = None  #: chosen bit flips a step
    trainer: str | None = None  #: "staged"; None: EOPM from the beginning to the end, or against chosen flips


@dataclass(frozen=True)
class Cell:
    """What one result is about."""

    dataset: str
    base: str
    generator: Generator | None  #: None: the base model alone
    faults: str  #: a preset of faultsim.faults, for training and evaluation
    bit_error_rate: float  #: fraction of failing cells

    @property
    def transferred(self) -> bool:
        """Whether the generator was trained for another model or another bit error rate."""
        trained = self.trained()
        return (trained.base, trained.bit_error_rate) != (self.base, self.bit_error_rate)

    def trained(self) -> Cell:
        """The same where its generator was trained: with its own base model and bit error rate."""
        rate = self.generator.bit_error_rate
        return replace(
            self, base=self.generator.source, bit_error_rate=self.bit_error_rate if rate is None else rate
        )


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

    def is_of(self, cell: Cell) -> bool:
        """Whether this is a result of that cell, by whatever trainer: where N of EOPM is what is studied, one that was
        trained with this N."""
        ours, theirs = self.cell.generator, cell.generator
        if ours is None or theirs is None:
            return self.cell == cell
        if ours.n_models != theirs.n_models:
            n_models = ours.n_models or self.configuration["generator"]["training"].get("n_models")
            if ours.trainer is not None or theirs.n_models != n_models:
                return False
        same = replace(theirs, n_models=ours.n_models, trainer=ours.trainer)
        return self.cell == replace(cell, generator=same)

    @property
    def trainer(self) -> str:
        """Of the generator: "eopm", "staged" or "adversarial"."""
        return self.configuration["generator"]["training"].get("trainer", "eopm")

    @property
    def base_passes(self) -> int:
        """Image passes through the base model, each forward and backward, that training the generator took."""
        generator = self.configuration["generator"]
        cost = generator.get("cost") or self.provenance["generator"].get("cost")
        if cost is not None:
            return cost["base_forward"]
        # older results: EOPM alone, whose passes follow from its options
        models = 1 + generator["training"]["n_models"] if self.trainer == "eopm" else 2
        return models * TRAINING_IMAGES[self.cell.dataset] * generator["epochs"]

    def text(self) -> str:
        """The file's content."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2, allow_nan=False) + "\n"


def read(path: Path) -> Result:
    """The result in a file; FaultsimError when it holds none."""
    try:
        found = parse_json(path.read_text(encoding="utf-8"))
        if found.pop("format") != FORMAT:
            raise FaultsimError(
                f"{path} was written by another version of faultsim (this one reads format {FORMAT})"
            )
        about = found["cell"]
        generator = about["generator"] and Generator(**about["generator"])
        result = Result(**{**found, "cell": Cell(**{**about, "generator": generator})})
        parts = ALONE if result.cell.generator is None else ALONE + FUSED
        complete = set(result.correct) == set(parts) and len(result.correct["perturbed"]) >= 1
        if not complete or not all(0 <= n <= result.images for part in parts for n in result.correct[part]):
            raise ValueError("the counts are not complete")
    except FaultsimError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FaultsimError(f"{path} is no result that faultsim wrote ({error}): move it away") from None
    return result


def obtained(directory: Path | None = None, kind: str = "result") -> list[Result]:
    """All results that a run directory holds (result-*.json; of base models alone: kind "unprotected"), in the order of
    their names; without a directory those of the source tree
    (an installed copy has none). Raises FaultsimError for a damaged file."""
    folder = KEPT if directory is None else directory
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if path.name.startswith(f"{kind}-")]
    return [read(path) for path in sorted(found, key=lambda p: p.name) if path.name.endswith(".json")]
