"""Training of a generator, by EOPM (the paper, section 2.2, Algorithm 1) or against worst-case flips (Appendix L)."""

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from faultsim.data import Augmentation, Dataset
from faultsim.errors import FaultsimError
from faultsim.faults import FaultModel
from faultsim.quantization import prepare_qat
from faultsim.stored import StoredWeights
from faultsim.training.loop import (
    Loop,
    Pace,
    choose_memory_format,
    choose_optimizer_arguments,
    create_schedule,
    move_module,
)

from .adversarial import Adversarial
from .cost import Cost
from .distributed import ALONE, Ranks
from .ensemble import Ensemble
from .eopm import EOPM
from .generators import NeuralFuse
from .objective import Objective

IN_STAGES = ("staged", "lookup")
"""Trainers of neuralfuse.staged."""
TRAINERS = ("eopm", "adversarial", *IN_STAGES)
SCHEDULES = ("constant", "linear")
_ONLY = {"eopm": ("bit_error_rate", "voltage", "faults", "n_models", "divided"), "adversarial": ("flips",)}


class Base(NamedTuple):
    """A frozen base model."""

    model: nn.Module
    stored: StoredWeights
    """Its int8 weights."""


@dataclass(frozen=True)
class Training:
    """How a generator is trained: by EOPM at a bit error rate, or against chosen bit flips (adversarial training).

    The defaults are the paper's (Appendix D); the betas are those of its released code.
    """

    bit_error_rate: float | None = None
    """EOPM: fraction of failing cells in the perturbed models."""
    flips: int | None = None
    """Adversarial training: K, the number of worst bits that every step inverts."""
    voltage: float | None = None
    """The voltage that the rate was computed from, for the record."""
    faults: FaultModel = field(default_factory=FaultModel)
    """EOPM: what a failing cell does, and which memory the weights lie in."""
    n_models: int = 10
    """EOPM: N, perturbed models per step."""
    weight: float = 5.0
    """Lambda, the weight of the perturbed loss."""
    loss: str = "cross_entropy"
    """Loss per image, one of neuralfuse.objective.LOSSES."""
    divided: bool = False
    """EOPM: whether each image of a step passes through one model only (see EOPM)."""
    learning_rate: float = 1e-3
    """Of Adam."""
    betas: tuple[float, float] = (0.5, 0.999)
    batch_size: int = 256
    precision: str = "float32"
    """Of matrix products (autocast): "float32" or "bfloat16"; benchmarks/README.md says which is faster where."""
    seed: int = 0
    """Of order, augmentation and chips."""
    schedule: str = "constant"
    """Learning rate schedule; "linear" falls to 0 at the end of max_epochs, where the training ends."""
    average: float = 0.0
    """Decay per step of an average of the generator's weights, which is the result; 0: no average."""
    max_epochs: int = 100
    window: int = 1000
    """Steps whose losses are averaged to detect convergence (see has_converged)."""
    tolerance: float = 0.005
    """See has_converged."""

    def __post_init__(self) -> None:
        if (self.bit_error_rate is None) == (self.flips is None):
            raise FaultsimError("give either a bit error rate (EOPM) or a number of bit flips (adversarial)")
        for name in ("max_epochs", "window", "batch_size"):
            if getattr(self, name) < 1:
                raise FaultsimError(f"{name} {getattr(self, name)}: at least 1 is needed")
        if not self.learning_rate > 0:
            raise FaultsimError(f"learning rate {self.learning_rate}: it must be above 0")
        if self.schedule not in SCHEDULES:
            raise FaultsimError(f"unknown schedule {self.schedule!r}: it can be {' or '.join(SCHEDULES)}")
        if not 0 <= self.average < 1:
            raise FaultsimError(f"average {self.average}: the decay a step must be at least 0 and below 1")

    @property
    def trainer(self) -> str:
        """Name of the trainer: "eopm" or "adversarial". Training in stages is a `Staged`."""
        return "eopm" if self.flips is None else "adversarial"

    def describe(self) -> dict:
        """Return JSON values for metadata and results, without what only the other trainer uses."""
        described = {"trainer": self.trainer, **asdict(self), "faults": self.faults.describe()}
        unused = [name for trainer in _ONLY if trainer != self.trainer for name in _ONLY[trainer]]
        return {name: value for name, value in described.items() if name not in unused}

    def create_objective(
        self, bases: Sequence[Base], ranks: Ranks = ALONE, in_flight: int | None = None
    ) -> Objective:
        """Create the objective: of one base model, or the mean over several, all on one device."""
        if len(bases) > 1:
            return Ensemble([self.create_objective([base], ranks, in_flight) for base in bases], ranks)
        common: dict[str, Any] = {
            "weight": self.weight,
            "loss": self.loss,
            "precision": self.precision,
            "ranks": ranks,
        }
        if self.flips is not None:
            return Adversarial(*bases[0], flips=self.flips, **common)
        return EOPM(
            *bases[0],
            bit_error_rate=cast(float, self.bit_error_rate),  # given where flips are not
            faults=self.faults,
            n_models=self.n_models,
            divided=self.divided,
            seed=self.seed,
            in_flight=in_flight,
            **common,
        )


@dataclass(frozen=True)
class Epoch:
    """Means of one epoch, over its images (as augmented) and its chips."""

    epoch: int
    """From 1."""
    loss: float
    """clean + lambda * perturbed."""
    clean: float
    """Loss of the base model without bit errors."""
    perturbed: float
    """Mean loss of the perturbed models."""


class Trained(NamedTuple):
    """What a training returns besides the generator."""

    curve: list[Epoch]
    cost: Cost


def has_converged(losses: Sequence[float], window: int, tolerance: float) -> bool:
    """Tell whether a training has converged.

    It has if the mean loss of the last `window` epochs is less than `tolerance` (a fraction) below that of the `window`
    epochs before. Training.window is in steps and rounded up to whole epochs.

    Every step draws new chips, and the loss of single chips varies by half its mean. A mean over 1,000 steps with 10
    chips each is precise to about the default tolerance of 0.5 %.
    """
    if len(losses) < 2 * window:
        return False
    last, before = sum(losses[-window:]), sum(losses[-2 * window : -window])
    return last > (1 - tolerance) * before


def train_generator(
    generator: nn.Module,
    bases: Sequence[Base],
    data: Dataset,
    training: Training,
    *,
    augment: Augmentation | None = None,
    state: Path | None = None,
    context: dict | None = None,
    report: Callable[[Epoch], None] = lambda epoch: None,
    ranks: Ranks = ALONE,
    pace: Pace | None = None,
    in_flight: int | None = None,
) -> Trained:
    """Train a generator in place. Its weights become quantization-aware (see faultsim.prepare_qat).

    Parameters
    ----------
    generator
        The network G, as `neuralfuse.create` returns it. It moves to the device of the base models.
    bases
        The frozen base model, or several as surrogates of a model that cannot be reached; their losses are averaged.
    data
        Training images and labels.
    training
        How to train.
    augment
        Augmentation of the images. Default: none.
    state
        State file. If it exists, the training continues from it, to the same result. More epochs are allowed then,
        unless the learning rate depends on their number.
    context
        JSON values that a state must agree with, such as the base model's fingerprint.
    report
        Called after every epoch.
    ranks
        This process among those that share the training. Each calls this function with the same arguments and gets the
        same generator; the first one writes the state and reports. The number of processes may change when a training
        continues: only the order in which sums are rounded depends on it.
    pace
        How often the state is written, and the deadline.
    in_flight
        Perturbed models that a GPU computes at once (see EOPM). It may change when a training continues, too.

    Returns
    -------
    Trained
        The curve, and the cost.

    Raises
    ------
    OutOfTime
        At the deadline of `pace`.
    FaultsimError
        For the state of another training, if the processes differ, and if a loss is not finite.

    Notes
    -----
    Order, augmentation and chips are functions of (seed, epoch, step). With a constant learning rate the training stops
    when it converged (see `has_converged`); it always stops after `max_epochs`.
    """
    device = bases[0].stored.layers[0].values.device
    data = data.to(device)
    fuse = move_module(NeuralFuse(prepare_qat(generator)), device, training.precision).train()
    modules: dict[str, nn.Module] = {"module": fuse}
    if training.average:
        modules["average"] = copy.deepcopy(fuse)
        average, now = (_numbers(module) for module in (modules["average"], fuse))
    optimizer = torch.optim.Adam(
        fuse.parameters(),
        **choose_optimizer_arguments(training.learning_rate, device),
        betas=training.betas,
        capturable=device.type == "cuda",
    )
    steps = -(-len(data) // training.batch_size)
    window = -(-training.window // steps)
    constant = training.schedule == "constant"
    with training.create_objective(bases, ranks, in_flight) as objective:

        def step(images: Tensor, labels: Tensor, number: Tensor) -> Tensor:
            optimizer.zero_grad(set_to_none=True)
            losses = objective.backward(fuse, images, labels, number)
            optimizer.step()
            if training.average:
                # torch's AveragedModel waits for the device at every step
                torch._foreach_lerp_(average, now, 1 - training.average)
            return torch.stack(losses)

        loop = Loop(
            modules=modules,
            optimizer=optimizer,
            step=step,
            values=2,
            data=data,
            batch_size=training.batch_size,
            seed=training.seed,
            augment=augment,
            identity=_identity(training, data, context or {}),
            state=state,
            schedule=create_schedule(
                training.schedule, optimizer, training.learning_rate, steps * training.max_epochs
            ),
            memory_format=choose_memory_format(device, training.precision),
            captured=ranks.count == 1,
            writes=ranks.first,
            pace=pace or Pace(),
        )
        loop.resume()
        start = json.dumps(loop.facts(), sort_keys=True).encode() + _bytes(fuse)
        ranks.agree(start, device, "options, files or initial weights")
        loop.run(
            training.max_epochs,
            lambda epoch, means: asdict(_entry(epoch, means, training.weight)),
            lambda entry: report(Epoch(**entry)),
            lambda curve: (
                constant and has_converged([entry["loss"] for entry in curve], window, training.tolerance)
            ),
        )
    if training.average:
        fuse.load_state_dict(modules["average"].state_dict())
    generator.eval()
    cost = Cost.of(len(data) * len(loop.curve), objective.passes, 1, loop.seconds)
    return Trained([Epoch(**entry) for entry in loop.curve], cost)


def _numbers(module: nn.Module) -> list[Tensor]:
    """Return the parameters, and the statistics of batch normalization that belong to them."""
    return [value for value in module.state_dict().values() if value.is_floating_point()]


def _entry(epoch: int, means: Sequence[float], weight: float) -> Epoch:
    clean, perturbed = means
    loss = clean + weight * perturbed
    if loss != loss:
        raise FaultsimError(f"the loss of epoch {epoch} is not finite: try a lower learning rate")
    return Epoch(epoch, loss, clean, perturbed)


def _identity(training: Training, data: Dataset, context: dict) -> dict:
    """Return what must be equal for a training to continue, as JSON values.

    That is everything but when it ends, unless the learning rate depends on that.
    """
    described = training.describe()
    ends = (
        ("window", "tolerance") if training.schedule != "constant" else ("max_epochs", "window", "tolerance")
    )
    for name in ("trainer", *ends):  # the trainer follows from the other values
        del described[name]
    if training.loss == "cross_entropy":  # states of older versions lack it
        del described["loss"]
    if not training.divided:
        described.pop("divided", None)
    return json.loads(json.dumps({"training": described, "data": data.fingerprint, "context": context}))


def _bytes(module: nn.Module) -> bytes:
    return b"".join(value.cpu().numpy().tobytes() for value in module.state_dict().values())
