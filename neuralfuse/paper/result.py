"""Measured accuracies as data. results/README.md documents the file format.

Nothing here needs torch.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from faultsim.errors import FaultsimError
from faultsim.io.bounds import parse_json

FORMAT = 1
KEPT = Path(__file__).parents[2] / "results"
"""Where a source tree keeps the results that its documents show."""
ALONE = ("clean", "perturbed")
"""Counts of a base model: right answers without bit errors, and on each chip."""
FUSED = ("clean_fused", "perturbed_fused")
"""The same behind a generator."""
JOINED = "+"
"""Between base models that a generator is trained for at once."""
TRAINING_IMAGES = {"digits": 1438, "cifar10": 50_000, "cifar100": 50_000, "gtsrb": 39_209}
"""Of each dataset (the paper, Appendix C; scikit-learn's digits)."""


@dataclass(frozen=True)
class GeneratorSpec:
    """How a generator is trained: by EOPM at a bit error rate, or against chosen bit flips."""

    name: str
    """Architecture: ConvL, ..."""
    source: str
    """Base model that it is trained for; several, by plus signs: all at once, as surrogates of others."""
    bit_error_rate: float | None = None
    """Fraction of failing cells in training; None: against chosen flips."""
    n_models: int | None = None
    """N of EOPM, in cells that study N; None: as the settings say."""
    flips: int | None = None
    """Chosen bit flips per step."""
    trainer: str | None = None
    """"staged", "lookup", or None: EOPM from the beginning to the end, or against chosen flips."""
    weight: float | None = None
    """Lambda, in cells that study it; None: 5, as in all others."""

    @property
    def sources(self) -> tuple[str, ...]:
        """Base models that it is trained for."""
        return tuple(self.source.split(JOINED))

    @property
    def in_stages(self) -> bool:
        """Whether it is trained by neuralfuse.staged."""
        return self.trainer is not None


@dataclass(frozen=True)
class Cell:
    """What one measured accuracy is about: one cell of a table."""

    dataset: str
    base: str
    """Base model that is measured."""
    generator: GeneratorSpec | None
    """Generator in front; None: the base model alone."""
    faults: str
    """Preset of faultsim.FaultModel, in training and evaluation."""
    bit_error_rate: float
    """Fraction of failing cells in evaluation."""
    bits: int | None = None
    """Bits of a stored weight in evaluation, quantized after training; None: 8, as in training."""

    def describe(self) -> dict[str, Any]:
        """Return JSON values. `bits` and the generator's `weight` are there only in cells that study them."""
        found = asdict(self)
        if self.bits is None:
            del found["bits"]
        if self.generator is not None and self.generator.weight is None:
            del found["generator"]["weight"]
        return found

    @property
    def spec(self) -> GeneratorSpec:
        """The generator. Raises FaultsimError in a cell that is about the base model alone."""
        if self.generator is None:
            raise FaultsimError(f"{self.base} alone has no generator")
        return self.generator

    @property
    def transferred(self) -> bool:
        """Whether the generator was trained for another model or another bit error rate."""
        trained = self.trained()
        return (trained.base, trained.bit_error_rate) != (self.base, self.bit_error_rate)

    def trained(self) -> Cell:
        """Return the cell of the generator's training: its own base models and bit error rate, 8 bits."""
        rate = self.spec.bit_error_rate
        return replace(
            self,
            base=self.spec.source,
            bit_error_rate=self.bit_error_rate if rate is None else rate,
            bits=None,
        )


@dataclass(frozen=True)
class Result:
    """One cell, measured."""

    cell: Cell
    images: int
    """Test images."""
    correct: dict[str, list[int]]
    """Right answers: of ALONE, and of FUSED if there is a generator, on each chip, in one order throughout."""
    configuration: dict[str, Any]
    """Everything that the counts depend on."""
    provenance: dict[str, Any]
    """Where and when they were computed."""

    def accuracies(self, part: str) -> list[float]:
        """Return the accuracy on each chip, in percent."""
        return [100 * count / self.images for count in self.correct[part]]

    def mean(self, part: str) -> float:
        """Return the mean accuracy over the chips, in percent."""
        return fmean(self.accuracies(part))

    def std(self, part: str) -> float:
        """Return the population standard deviation over the chips, as the paper reports it, in percent."""
        return pstdev(self.accuracies(part))

    @property
    def improvement(self) -> float:
        """IP: P.A.+N.F. minus P.A., in percentage points."""
        return self.mean("perturbed_fused") - self.mean("perturbed")

    def is_of(self, cell: Cell) -> bool:
        """Tell whether this is a result of a cell, by any trainer; if the cell studies N, one with this N."""
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
        """Trainer of the generator: "eopm", "staged", "lookup" or "adversarial"."""
        return self.configuration["generator"]["training"].get("trainer", "eopm")

    @property
    def base_passes(self) -> int:
        """Image passes through the base model (each forward and backward) in the generator's training."""
        generator = self.configuration["generator"]
        cost = generator.get("cost") or self.provenance["generator"].get("cost")
        if cost is not None:
            return cost["base_forward"]
        # older results: EOPM alone, whose passes follow from its options
        models = 1 + generator["training"]["n_models"] if self.trainer == "eopm" else 2
        return models * TRAINING_IMAGES[self.cell.dataset] * generator["epochs"]

    def text(self) -> str:
        """Return the content of the result's file."""
        found = {"format": FORMAT, **asdict(self), "cell": self.cell.describe()}
        return json.dumps(found, indent=2, allow_nan=False) + "\n"


def read(path: Path) -> Result:
    """Read a result's file. Raises FaultsimError for a damaged file or another format."""
    try:
        found = parse_json(path.read_text(encoding="utf-8"))
        if found.pop("format") != FORMAT:
            raise FaultsimError(
                f"{path} was written by another version of faultsim (this one reads format {FORMAT})"
            )
        about = found["cell"]
        generator = about["generator"] and GeneratorSpec(**about["generator"])
        result = Result(**{**found, "cell": Cell(**{**about, "generator": generator})})
        parts = ALONE if result.cell.generator is None else ALONE + FUSED
        complete = set(result.correct) == set(parts) and len(result.correct["perturbed"]) >= 1
        if not complete or not all(0 <= n <= result.images for part in parts for n in result.correct[part]):
            raise ValueError("the counts are not complete")
    except FaultsimError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FaultsimError(
            f"{path} is no result that faultsim wrote ({error}): delete or rename it"
        ) from None
    return result


def read_results(directory: Path | None = None, kind: str = "result") -> list[Result]:
    """Read all results of a directory.

    Parameters
    ----------
    directory
        Run directory. Default: results/ of the source tree; an installed copy has none.
    kind
        "result", or "unprotected" for base models alone.

    Returns
    -------
    list of Result
        In the order of their files' names.

    Raises
    ------
    FaultsimError
        For a damaged file.
    """
    folder = KEPT if directory is None else directory
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if path.name.startswith(f"{kind}-")]
    return [read(path) for path in sorted(found, key=lambda p: p.name) if path.name.endswith(".json")]
