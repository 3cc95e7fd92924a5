"""The stages of staged training and of look-ups: their lengths, learning rates and losses."""

from dataclasses import asdict, dataclass

from faultsim.errors import FaultsimError

from .training import Training

STAGES = ("classifier", "patterns", "drawing", "eopm")
LOOKUP_STAGES = STAGES[:2]
"""Of a look-up, which adds the patterns as they were found."""
# what all stages have of EOPM
_COMMON = ("bit_error_rate", "voltage", "faults", "weight", "seed", "precision")
PATTERN_CHIPS = 1 << 30
"""Added to the seed of the search for patterns, so that the last stage uses other chips."""


@dataclass(frozen=True)
class Stage:
    """Length and steps of one stage."""

    epochs: int
    batch_size: int
    learning_rate: float
    """The peak of the one-cycle schedule (classifier, drawing), or the start of the linear schedule (patterns)."""
    steps: int = 0
    """Smallest number of steps: a small dataset is repeated more often."""

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1 or not self.learning_rate > 0:
            raise FaultsimError(
                f"a stage needs at least one epoch, one image and a learning rate above 0: {self}"
            )

    def epochs_of(self, images: int) -> int:
        """Return the number of epochs for a dataset of so many images."""
        return max(self.epochs, -(-self.steps // -(-images // self.batch_size)))


@dataclass(frozen=True)
class Staged:
    """How a generator is trained in stages. The defaults were chosen by experiment (results/README.md)."""

    eopm: Training
    """The last stage. Its bit errors, lambda, seed and precision are those of all stages."""
    classifier: Stage = Stage(20, 128, 0.01, 400)
    patterns: Stage = Stage(2, 48, 0.05, 1000)
    pattern_models: int = 3
    """Perturbed models per step of the search for patterns."""
    drawing: Stage = Stage(6, 128, 0.02, 400)
    smoothing: float = 0.05
    """Label smoothing of the classifier."""
    weight_decay: float = 0.01
    """Of AdamW (classifier and drawing)."""
    temperature: float = 0.03
    """Of the softmax over the distances to all patterns, in the loss of drawing."""
    choice: float = 0.02
    """Weight of the cross entropy of that softmax; the squared error has weight 1."""
    looked_up: bool = False
    """Only LOOKUP_STAGES: the result is a neuralfuse.lookup.PatternLookup, which needs nothing else. Its patterns are
    as fine as the images."""

    def __post_init__(self) -> None:
        if self.eopm.bit_error_rate is None:
            raise FaultsimError("staged training needs a bit error rate, not a number of chosen flips")
        if self.eopm.seed >= PATTERN_CHIPS:
            raise FaultsimError(f"seed {self.eopm.seed}: staged training takes seeds below {PATTERN_CHIPS}")

    def describe(self) -> dict:
        """Return JSON values for metadata and results."""
        last = self.eopm.describe()
        if self.looked_up:
            return {
                **{name: last[name] for name in _COMMON},
                "trainer": self.trainer,
                "n_models": self.pattern_models,
                "stages": self.stages(),
            }
        return {**last, "trainer": self.trainer, "stages": self.stages()}

    @property
    def trainer(self) -> str:
        """Name of the trainer: "staged" or "lookup"."""
        return "lookup" if self.looked_up else "staged"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its stages, in their order."""
        return LOOKUP_STAGES if self.looked_up else STAGES

    def count_epochs(self, images: int) -> dict[str, int]:
        """Return the largest number of epochs of each stage, for a dataset of so many images."""
        return {
            stage: self.eopm.max_epochs if stage == "eopm" else getattr(self, stage).epochs_of(images)
            for stage in self.names
        }

    def of(self, stage: str) -> dict:
        """Return what a stage before EOPM depends on. A finished stage stays valid when later ones change."""
        used = {
            "classifier": ("smoothing", "weight_decay"),
            "patterns": ("pattern_models", "looked_up") if self.looked_up else ("pattern_models",),
            "drawing": ("weight_decay", "temperature", "choice"),
        }[stage]
        eopm = ("seed", "precision", *(("bit_error_rate", "faults", "weight") if stage == "patterns" else ()))
        described, last = asdict(self), self.eopm.describe()
        return {name: described[name] for name in (stage, *used)} | {name: last[name] for name in eopm}

    def stages(self) -> dict:
        """Return the settings of the stages before EOPM, for metadata and results."""
        left_out = {"eopm", "looked_up"}
        if self.looked_up:
            left_out |= {"drawing", "temperature", "choice"}
        return {key: value for key, value in asdict(self).items() if key not in left_out}


EOPM_STAGE = {
    "n_models": 5,
    "loss": "error_probability",
    "divided": True,
    "learning_rate": 1e-3,
    "schedule": "linear",
    "batch_size": 96,
    "max_epochs": 2,
}
"""Default arguments of Training for the last stage."""
