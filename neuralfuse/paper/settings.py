"""Settings of a reproduction: how everything in one run directory is trained."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self

from faultsim.errors import FaultsimError

TRAINERS = ("eopm", "staged", "lookup")
"""Trainers of a reproduction's generators; tables about chosen flips use adversarial training besides."""

_STAGED = {"epochs": 2, "n_models": 5, "batch_size": 96, "schedule": "linear"}
_OF_EOPM = ("epochs", "n_models", "batch_size", "learning_rate", "schedule", "average")
_SMOKE = {"recipe": "modern", "base_epochs": 4, "epochs": 2, "n_models": 2}


@dataclass(frozen=True)
class Settings:
    """How base models and generators are trained. The defaults are the paper's.

    A run directory that was begun with other settings is refused.
    """

    recipe: str = "paper"
    """Recipe of the base models (faultsim.training.classifier.RECIPES); part of the names of files."""
    trainer: str = "eopm"
    """Of generators: one of TRAINERS. With "staged" the others are those of its last stage, which "lookup" lacks."""
    base_epochs: int | None = None
    """Epochs of base models; None: the recipe's."""
    epochs: int = 100
    """Largest number of epochs of generators."""
    n_models: int = 10
    """N: perturbed models per step."""
    batch_size: int = 256
    """Images per step of generators."""
    precision: str = "float32"
    """Of generators: "float32" or "bfloat16"."""
    learning_rate: float = 1e-3
    """Of generators."""
    schedule: str = "constant"
    """Learning rate schedule of generators: "constant" or "linear"."""
    average: float = 0.0
    """Decay per step of the average of a generator's weights; 0: no average."""
    seed: int = 0
    """Of all trainings."""
    compute: str = "float32"
    """What models and generators compute in where they are evaluated, as for faultsim.evaluate."""

    def __post_init__(self) -> None:
        """Raise FaultsimError now for what a training would refuse hours later."""
        from faultsim.inference.passes import check_compute
        from faultsim.training.classifier import choose_recipe

        from ..objective import PRECISIONS
        from ..training import Training

        choose_recipe(self.recipe, "cifar10", self.base_epochs)
        if self.trainer not in TRAINERS:
            raise FaultsimError(f"unknown trainer {self.trainer!r}: it can be {' or '.join(TRAINERS)}")
        for name in ("epochs", "n_models", "batch_size"):
            if getattr(self, name) < 1:
                raise FaultsimError(f"{name.replace('_', '-')} {getattr(self, name)}: at least 1 is needed")
        if self.precision not in PRECISIONS:
            raise FaultsimError(f"unknown precision {self.precision!r}: it can be {' or '.join(PRECISIONS)}")
        if not 0 <= self.seed < 2**31:
            raise FaultsimError(f"seed {self.seed}: it must be from 0 to 2**31 - 1")
        Training(bit_error_rate=0.0, **self.optimization)
        check_compute(self.compute)

    @classmethod
    def choose(cls, *, smoke: bool = False, **given: Any) -> Self:
        """Create settings from those given; None stands for a default.

        Parameters
        ----------
        smoke
            Take defaults that try every step in minutes.
        **given
            Fields. With ``trainer="staged"`` the other defaults are those of its last stage.

        Raises
        ------
        FaultsimError
            For values that no training accepts.
        """
        chosen = {name: value for name, value in given.items() if value is not None}
        if chosen.get("trainer") == "lookup":
            for name in _OF_EOPM:
                if name in chosen:
                    raise FaultsimError(
                        f"--{name.replace('_', '-')} cannot be combined with --trainer lookup, which has no EOPM stage"
                    )
        staged = _STAGED if chosen.get("trainer", "eopm") != "eopm" else {}
        defaults = _SMOKE if smoke else staged
        return cls(**{**defaults, **chosen})

    def describe(self) -> dict[str, Any]:
        """Return the configuration in a run directory, without the recipe, of which it may hold several."""
        described = asdict(self)
        del described["recipe"]
        if self.trainer == "lookup":
            for name in _OF_EOPM:
                del described[name]
        for name in ("trainer", "compute"):  # directories of older versions do not have them
            if described[name] == getattr(Settings, name):
                del described[name]
        return described

    @property
    def optimization(self) -> dict[str, Any]:
        """Arguments of neuralfuse.Training about learning rate and averaging."""
        return {name: getattr(self, name) for name in ("learning_rate", "schedule", "average")}
