"""Training with bit errors: the model computes with the weights as a chip reads them, and learns to stand it.

Random bit errors (Stutz et al., "Bit Error Robustness for Energy-Efficient DNN Accelerators", MLSys 2021): a new chip
at each step, and the mean of the clean and the perturbed gradient. The errors of one chip (Kim et al., "MATIC",
DATE 2018): the model computes with the errors of the chip that it is trained for, and of no other one.
"""

from __future__ import annotations

import contextlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from ..chips.measured_chip import AnyChip, describe_chip
from ..errors import FaultsimError
from ..faults import TRAINING, Chip, FaultKind, FaultModel
from ..formats import INT8, Format
from ..hit_table import checked_rate
from ..perturbation import perturbed, resolve_operating_point

MOST_LOSS = 1.75 / math.log(10)
"""Of a step with random bit errors, relative to the loss of guessing: the source's 1.75 for ten classes."""
TOLERATED = 1.15
"""How far the clean loss alone may exceed it, as in the source's code."""
MOST_GRADIENT = 0.05
"""Of an element of the perturbed gradient, as in the source's code."""
SEEDS = 1 << 31
"""Of trainings with random bit errors: 0 to SEEDS - 1."""


class Losses(NamedTuple):
    """What a step found; means over its images."""

    loss: Tensor
    """Cross entropy: without bit errors, or on the one chip that the model is trained for."""
    accuracy: Tensor
    """Fraction of right answers, of the same pass."""
    perturbed: Tensor | None = None
    """Cross entropy with random bit errors; None where the step had none."""


@dataclass(frozen=True)
class Task:
    """What is trained."""

    model: nn.Module
    """With quantization-aware weights."""
    measure: Callable[[Tensor, Tensor], Losses]
    """(images, labels) -> loss and accuracy of the model as it is."""
    classes: int
    """How many there are."""
    format: Format = INT8
    """What a stored weight is."""
    seed: int = 0
    """Of the training: which chips are drawn."""

    def backward(self, images: Tensor, labels: Tensor) -> Losses:
        """Compute the losses of a batch with the model as it is, and add their gradient to that of the parameters."""
        losses = self.measure(images, labels)
        losses.loss.backward()
        return losses


class BitErrors(ABC):
    """The bit errors of a training."""

    def check(self, seed: int) -> None:  # noqa: B027 (most have nothing to refuse)
        """Raise FaultsimError for a seed that a training with these errors cannot have."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return all that a training depends on, as JSON values."""

    @abstractmethod
    def backward(self, task: Task, images: Tensor, labels: Tensor, step: int) -> Losses:
        """Compute the losses of a batch, and leave their gradient in the parameters, which have none before."""


@dataclass(frozen=True)
class RandomBitErrors(BitErrors):
    """A new chip at every step: random bit error training.

    The gradient of a step is the mean of two: that without errors, and that of the same images with the weights as the
    chip reads them, each element cut to [-0.05, 0.05]. Steps whose loss is near that of guessing have no errors.

    By default batch normalization takes the statistics of the batch in both passes, and its running statistics are
    those of both. (The source has group normalization, which keeps none.)

    Raises
    ------
    FaultsimError
        For a rate out of range.
    """

    bit_error_rate: float
    """Fraction of failing cells."""
    faults: FaultModel = field(default_factory=FaultModel)
    """What a failing cell does, and which memory the weights lie in."""
    divided: bool = False
    """One half of a batch passes through the model without errors, the other half with them: the same expected gradient
    for half the passes. The source passes each image twice."""
    running_statistics: bool = False
    """Batch normalization uses its running statistics in the pass with errors, as an evaluation does, and they are
    those of the clean passes. For a trained model and a small learning rate: statistics of the batch hide the shift
    that wrong weights add to an output. At a large learning rate the running ones lag behind the weights."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "bit_error_rate", checked_rate(self.bit_error_rate))

    def check(self, seed: int) -> None:
        """Raise FaultsimError for a seed that has no chips."""
        if not 0 <= seed < SEEDS:
            raise FaultsimError(f"seed {seed}: with random bit errors it must be from 0 to 2**31 - 1")

    def describe(self) -> dict[str, Any]:
        """Return all that a training depends on, as JSON values."""
        return {
            "bit_error_rate": self.bit_error_rate,
            "faults": self.faults.describe(),
            "divided": self.divided,
            "running_statistics": self.running_statistics,
        }

    def backward(self, task: Task, images: Tensor, labels: Tensor, step: int) -> Losses:
        """Compute the losses of a batch, and leave the mean of both gradients in the parameters."""
        first = -(-len(images) // 2) if self.divided else len(images)
        found = task.backward(images[:first], labels[:first])
        rest = slice(first, None) if self.divided else slice(None)
        most = MOST_LOSS * math.log(max(task.classes, 2))
        if not len(images[rest]) or not float(found.loss.detach()) < TOLERATED * most:
            return found
        chip = Chip(TRAINING | task.seed << 32 | step)
        read = perturbed(
            task.model,
            chip,
            bit_error_rate=self.bit_error_rate,
            faults=self.faults,
            format=task.format,
            straight_through=True,
        )
        kept = _use_running_statistics(task.model) if self.running_statistics else contextlib.nullcontext()
        with read, kept:
            wrong = task.measure(images[rest], labels[rest]).loss
        if not float(found.loss.detach() + wrong.detach()) / 2 <= most:
            return found
        clean = [(parameter, parameter.grad) for parameter in task.model.parameters()]
        task.model.zero_grad(set_to_none=True)
        wrong.backward()
        for parameter, gradient in clean:
            if parameter.grad is not None and gradient is not None:
                parameter.grad.clamp_(-MOST_GRADIENT, MOST_GRADIENT).add_(gradient).mul_(0.5)
        return found._replace(perturbed=wrong.detach())


@dataclass(frozen=True)
class OneChip(BitErrors):
    """One chip, whose errors are in every pass: memory-adaptive training.

    The model is for this chip at this operating point. Statistics of normalization are those with its errors.

    Raises
    ------
    FaultsimError
        Unless there is a voltage, or for simulated chips a bit error rate, and for transient faults, which no training
        can know.
    """

    chip: AnyChip
    """Measured or simulated."""
    voltage: float | None = None
    """Of a measured chip, in the unit of its fault map."""
    bit_error_rate: float | None = None
    """Of a simulated chip: fraction of failing cells."""
    faults: FaultModel = field(default_factory=FaultModel)
    """What a failing cell of a simulated chip does, and which memory the weights lie in."""

    def __post_init__(self) -> None:
        resolve_operating_point([self.chip], self.voltage, self.bit_error_rate, None)
        if self.faults.kind is FaultKind.TRANSIENT:
            raise FaultsimError(
                "transient faults are new at every read: train with random bit errors instead"
            )

    def describe(self) -> dict[str, Any]:
        """Return all that a training depends on, as JSON values."""
        return {
            "chip": describe_chip(self.chip),
            "voltage": self.voltage,
            "bit_error_rate": self.bit_error_rate,
            "faults": self.faults.describe(),
        }

    def perturbed(
        self, model: nn.Module, stored: Format = INT8
    ) -> contextlib.AbstractContextManager[nn.Module]:
        """Run a model on the chip inside a `with` block; gradients reach its own weights."""
        return perturbed(
            model,
            self.chip,
            voltage=self.voltage,
            bit_error_rate=self.bit_error_rate,
            faults=self.faults,
            format=stored,
            straight_through=True,
        )

    def backward(self, task: Task, images: Tensor, labels: Tensor, step: int) -> Losses:
        """Compute the loss of a batch on the chip, and leave its gradient in the parameters."""
        with self.perturbed(task.model, task.format):
            return task.backward(images, labels)


@contextlib.contextmanager
def _use_running_statistics(model: nn.Module) -> Iterator[None]:
    """Let normalization use its running statistics, and leave them as they are, inside a `with` block."""
    layers = [
        module
        for module in model.modules()
        if isinstance(module, _NormBase) and module.track_running_stats and module.training
    ]
    for layer in layers:
        layer.training = False
    try:
        yield
    finally:
        for layer in layers:
            layer.training = True
