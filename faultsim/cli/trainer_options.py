"""Options of `train-generator` that say how a generator is trained, as one group."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import FaultsimError

if TYPE_CHECKING:
    from neuralfuse.stages import Staged
    from neuralfuse.training import Training

    from .option_groups import FaultOptions, PointOptions

_STAGES = {"classifier": "classifier_epochs", "patterns": "pattern_epochs", "drawing": "drawing_epochs"}
_CHOSEN = {
    "loss": "loss",
    "learning_rate": "learning_rate",
    "schedule": "schedule",
    "batch_size": "batch_size",
    "max_epochs": "epochs",
}
# of the stages that a look-up does not have
_LAST_STAGES = ("drawing_epochs", "n_models", "divided", "average", *_CHOSEN.values())


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


@dataclass(frozen=True)
class TrainerOptions:
    """How a generator is trained."""

    trainer: Annotated[
        str,
        typer.Option(
            help="eopm (random bit errors, new chips at every step), staged (classes, then a pattern for each class, "
            "then EOPM: see below), lookup (the first two of these stages) or adversarial (the --flips worst bits of "
            "every step)."
        ),
    ] = "eopm"
    n_models: Annotated[
        int | None,
        typer.Option(help="N: perturbed models per step. [default: 10; staged: 5]", show_default=False),
    ] = None
    divided: Annotated[
        bool | None,
        typer.Option(
            help="Pass each image of a step through one of the N + 1 models only: the same expected loss for a "
            "fraction of the passes. [default: no; staged: yes]",
            show_default=False,
        ),
    ] = None
    flips: Annotated[int | None, typer.Option(help="K: bits that adversarial training inverts.")] = None
    weight: Annotated[float, typer.Option("--lambda", help="Weight of the perturbed loss.")] = 5.0
    loss: Annotated[
        str | None,
        typer.Option(
            help="Loss per image: cross_entropy, as in the paper, or error_probability, 1 - p(y), which is bounded. "
            "[default: cross_entropy; staged: error_probability]",
            show_default=False,
        ),
    ] = None
    learning_rate: Annotated[
        float | None,
        typer.Option(help="Learning rate of Adam. [default: 0.001]", show_default=False),
    ] = None
    schedule: Annotated[
        str | None,
        typer.Option(
            help="Learning rate schedule: constant, or linear to 0 at the end of --epochs. "
            "[default: constant; staged: linear]",
            show_default=False,
        ),
    ] = None
    average: Annotated[
        float,
        typer.Option(
            help="Decay per step, like 0.998, of a moving average of the generator's weights, which is the result; "
            "0: no average."
        ),
    ] = 0.0
    batch_size: Annotated[
        int | None, typer.Option(help="Images per step. [default: 256; staged: 96]", show_default=False)
    ] = None
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Largest number of epochs; training stops earlier when it has converged. "
            "[default: 100; staged: 2]",
            show_default=False,
        ),
    ] = None
    classifier_epochs: Annotated[
        int | None, typer.Option(help="staged, lookup: epochs of stage 1. [default: 20]", show_default=False)
    ] = None
    pattern_epochs: Annotated[
        int | None, typer.Option(help="staged, lookup: epochs of stage 2. [default: 2]", show_default=False)
    ] = None
    drawing_epochs: Annotated[
        int | None, typer.Option(help="staged: epochs of stage 3. [default: 6]", show_default=False)
    ] = None
    reuse: Annotated[
        Path | None,
        typer.Option(
            help="staged, lookup: folder with generators trained so. A classifier of the same encoder and patterns for "
            "the same base model are taken from there; their cost is added."
        ),
    ] = None
    precision: Annotated[
        str,
        typer.Option(
            help="Precision of matrix products: float32 or bfloat16. bfloat16 was slower on an Intel CPU without AMX, "
            "and took half the time on an AMD EPYC of Zen 4; 'faultsim bench eopm --precision bfloat16' measures it."
        ),
    ] = "float32"
    in_flight: Annotated[
        int | None,
        typer.Option(
            help="Perturbed models that a GPU computes at once; fewer need less memory and more time. [default: 4]",
            show_default=False,
        ),
    ] = None
    seed: Annotated[int, typer.Option(help="Seed of initial weights, order, augmentation and chips.")] = 0

    def training(self, point: "PointOptions", faults: "FaultOptions") -> "Training":
        """Return the training, in stages its last stage; FaultsimError for options of another trainer."""
        from neuralfuse.stages import EOPM_STAGE
        from neuralfuse.training import IN_STAGES, Training

        chosen = {
            name: value for name, option in _CHOSEN.items() if (value := getattr(self, option)) is not None
        }
        return Training(
            **(EOPM_STAGE if self.trainer in IN_STAGES else {}) | self._errors(point, faults) | chosen,
            weight=self.weight,
            average=self.average,
            precision=self.precision,
            seed=self.seed,
        )

    def staged(self, last: "Training") -> "Staged | None":
        """Return the staged training with this last stage; None for another trainer, whose options must fit it."""
        from neuralfuse.stages import Staged
        from neuralfuse.training import IN_STAGES

        given = {
            stage: epochs for stage, name in _STAGES.items() if (epochs := getattr(self, name)) is not None
        }
        if self.trainer not in IN_STAGES:
            for name in [*(_STAGES[stage] for stage in given), *(["reuse"] if self.reuse else [])]:
                raise FaultsimError(f"{_option(name)} needs --trainer staged or lookup")
            return None
        if self.trainer == "lookup":
            for name in _LAST_STAGES:
                if getattr(self, name) != getattr(TrainerOptions, name):  # its default
                    raise FaultsimError(
                        f"{_option(name)} cannot be combined with --trainer lookup, which ends with the patterns"
                    )
        if self.reuse is not None and not self.reuse.is_dir():
            raise FaultsimError(f"--reuse {self.reuse} is no folder")
        staged = Staged(last, looked_up=self.trainer == "lookup")
        stages = {stage: replace(getattr(staged, stage), epochs=n, steps=0) for stage, n in given.items()}
        return replace(staged, **stages)

    def _errors(self, point: "PointOptions", faults: "FaultOptions") -> dict[str, Any]:
        """Return the arguments of Training that say which bit errors it uses."""
        from neuralfuse.training import TRAINERS

        if self.trainer not in TRAINERS:
            *first, last = TRAINERS
            raise FaultsimError(f"unknown trainer {self.trainer!r}: it can be {', '.join(first)} or {last}")
        eopm = {name: getattr(self, name) for name in ("n_models", "divided", "in_flight")}
        if self.trainer == "adversarial":
            for name, value in {**vars(point), **vars(faults), **eopm}.items():
                if value is not None:
                    raise FaultsimError(
                        f"{_option(name)} cannot be combined with --trainer adversarial; remove it"
                    )
            if self.flips is None:
                raise FaultsimError("how many bits are inverted? add --flips, for instance 1000")
            return {"flips": self.flips}
        if self.flips is not None:
            raise FaultsimError(
                f"--flips cannot be combined with --trainer {self.trainer}: add --trainer adversarial"
            )
        volts, rate = point.point()
        found = {"bit_error_rate": rate, "voltage": volts, "faults": faults.fault_model()}
        return found | {name: eopm[name] for name in ("n_models", "divided") if eopm[name] is not None}
