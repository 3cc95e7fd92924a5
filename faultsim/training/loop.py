"""Training loop: epochs that can be interrupted at any time and continue to the same result."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from ..data import Augmentation, Dataset, iterate_batches
from ..errors import FaultsimError
from ..inference.graphs import Graphed
from ..io.bounds import are_integers
from .state import load_state, save_state

M = TypeVar("M", bound=nn.Module)

SCHEDULES = ("constant", "linear", "one_cycle")
"""Learning rate schedules: constant; linear to 0 at the end; one-cycle (Smith and Topin, arXiv 1708.07120)."""
MOST_STEPS = 100_000_000
"""Steps of one training; a state that claims more is damaged."""


class OutOfTime(FaultsimError):
    """A training reached its deadline. Its state is written, if it has a state file."""

    def __init__(self, where: str, epoch: int, epochs: int) -> None:
        super().__init__(
            f"the time is up {where} epoch {epoch} of {epochs}: the same command goes on from here"
        )


@dataclass(frozen=True)
class Pace:
    """How often a training writes its state, besides after every epoch, and when it has to stop."""

    seconds: float = 60.0
    """Between two states."""
    deadline: float = math.inf
    """As time.monotonic() counts."""

    @classmethod
    def within(cls, seconds: float | None) -> Self:
        """Return the pace of a training that starts now and may take this long; None: as long as it takes."""
        return cls() if seconds is None else cls(deadline=time.monotonic() + seconds)


@dataclass(kw_only=True)
class Loop:
    """One training. Order and augmentation are functions of (seed, epoch), so that it continues to the same result."""

    modules: Mapping[str, nn.Module]
    """What is trained, and what else belongs to the state, by their names in the state file."""
    optimizer: Optimizer
    step: Callable[[Tensor, Tensor, Tensor], Tensor]
    """(images, labels, number of the step: int64 [] on the device) -> float [values], means over the images.

    It updates the parameters. On a GPU it is replayed as a CUDA graph (see Graphed) if `captured`."""
    values: int
    """How many numbers `step` returns."""
    data: Dataset
    """Training data, on the device."""
    batch_size: int
    seed: int
    augment: Augmentation | None
    identity: Mapping[str, Any]
    """JSON values that a state must contain for the training to continue from it."""
    state: Path | None = None
    """State file; None: the training cannot be continued."""
    schedule: LRScheduler | None = None
    memory_format: torch.memory_format = torch.contiguous_format
    """Of the images."""
    captured: bool = True
    writes: bool = True
    """Whether this process writes the state and reports."""
    pace: Pace = field(default_factory=Pace)

    def __post_init__(self) -> None:
        self.curve: list[dict[str, Any]] = []  # entries of the finished epochs
        self.done = 0  # steps of the next epoch
        self.sums = torch.zeros(
            self.values, dtype=torch.float64, device=self.device
        )  # over the images of those steps
        self.number = torch.zeros([], dtype=torch.int64, device=self.device)
        self.kept = self.counted = time.monotonic()
        self.seconds = 0.0  # of all sessions

    @property
    def device(self) -> torch.device:
        """Where the training computes: the device of the data."""
        return self.data.images.device

    @property
    def steps(self) -> int:
        """Steps of one epoch."""
        return -(-len(self.data) // self.batch_size)

    def resume(self) -> None:
        """Continue from the state file, if there is one. Raises FaultsimError for the state of another training."""
        facts = None if self.state is None else load_state(self.state, self.modules, self.optimizer)
        if facts is None:
            return
        if facts.get("run") != self.identity:
            raise FaultsimError(
                f"{self.state} belongs to a run with other options, base model or data: choose another file, or the "
                "same options to go on"
            )
        self.curve, self.done, self.seconds, sums = self._progress(facts)
        self.sums.copy_(torch.tensor(sums, dtype=torch.float64))
        begun = len(self.curve) * self.steps + self.done
        self.number.fill_(begun)
        if self.schedule is not None:
            # the optimizer took these steps before the interruption
            self.optimizer._opt_called = True  # type: ignore[attr-defined]
            for _ in range(begun):
                self.schedule.step()

    def _progress(self, facts: Mapping[str, Any]) -> tuple[list[dict], int, float, list[float]]:
        """Return finished entries, steps of the next epoch, seconds, sums; FaultsimError for impossible values."""
        curve: Any = facts.get("curve")
        done: Any = facts.get("done")
        sums: Any = facts.get("sums")
        seconds = facts.get("seconds", 0.0)  # states of older versions lack it
        known = isinstance(curve, list) and all(isinstance(entry, dict) for entry in curve)
        summed = isinstance(sums, list) and all(type(value) in (int, float) for value in sums)
        timed = type(seconds) in (int, float) and seconds >= 0
        if not (
            known and are_integers([done], 0, self.steps) and timed and summed and len(sums) == self.values
        ):
            raise FaultsimError(f"{self.state} is damaged: it doesn't say how far the training was")
        if self.schedule is not None and len(curve) * self.steps + done > MOST_STEPS:
            raise FaultsimError(f"{self.state} is damaged: it is of more than {MOST_STEPS:,} steps")
        return curve, done, float(seconds), sums

    def facts(self) -> dict[str, Any]:
        """Return what the state contains besides tensors, without the seconds."""
        progress = {"curve": self.curve, "done": self.done, "sums": self.sums.tolist()}
        return {"run": dict(self.identity), **progress}

    def _count_seconds(self) -> None:
        now = time.monotonic()
        self.seconds += now - self.counted
        self.counted = now

    def run(
        self,
        epochs: int,
        entry: Callable[[int, Sequence[float]], dict],
        report: Callable[[dict], None] = lambda entry: None,
        ended: Callable[[Sequence[dict]], bool] = lambda curve: False,
    ) -> None:
        """Train until the curve has `epochs` entries or `ended(curve)` is true.

        Parameters
        ----------
        epochs
            Number of epochs, counted from the first session.
        entry
            (epoch from 1, means) -> the record of an epoch, as JSON values.
        report
            Called with each new record, after the state is written.
        ended
            Called with all records so far; true ends the training early.

        Raises
        ------
        OutOfTime
            At the deadline of `pace`.
        """
        call = Graphed(self._one, self.device) if self.captured else self._one
        while len(self.curve) < epochs and not ended(self.curve):
            self._epoch(call, epochs)
            means = (self.sums / len(self.data)).tolist()
            self.curve.append(entry(len(self.curve) + 1, means))
            self.done = 0
            self.sums.zero_()
            self._keep()
            if self.writes:
                report(self.curve[-1])
            if time.monotonic() > self.pace.deadline and len(self.curve) < epochs:
                raise OutOfTime("after", len(self.curve), epochs)

    def _one(self, images: Tensor, labels: Tensor) -> None:
        self.sums += self.step(images, labels, self.number).detach().double() * len(labels)
        self.number += 1

    def _epoch(self, call: Callable[[Tensor, Tensor], None], epochs: int) -> None:
        begun = self.done
        parts = iterate_batches(
            self.data,
            self.batch_size,
            shuffle_seed=self.seed,
            epoch=len(self.curve),
            device=self.device,
            augment=self.augment,
        )
        for index, (images, labels) in enumerate(parts):
            if index < begun:  # done; iterated because the augmentation draws from one stream
                continue
            call(images.contiguous(memory_format=self.memory_format), labels)
            if self.schedule is not None:
                self.schedule.step()
            self.done = index + 1
            now = time.monotonic()
            if self.done == self.steps or now < min(self.kept + self.pace.seconds, self.pace.deadline):
                continue
            self._keep()
            if now >= self.pace.deadline:
                raise OutOfTime("in", len(self.curve) + 1, epochs)

    def _keep(self) -> None:
        self._count_seconds()
        if self.state is not None and self.writes:
            facts = {**self.facts(), "seconds": self.seconds}
            save_state(self.state, self.modules, self.optimizer, facts)
        self.kept = time.monotonic()


def create_schedule(name: str, optimizer: Optimizer, learning_rate: float, steps: int) -> LRScheduler | None:
    """Create one of SCHEDULES over `steps` steps; None for "constant".

    Parameters
    ----------
    name
        One of SCHEDULES.
    learning_rate
        Where the linear schedule starts; the peak of the one-cycle schedule.

    Raises
    ------
    FaultsimError
        For another name.
    """
    if name == "constant":
        return None
    if name == "linear":
        return LambdaLR(optimizer, lambda step: max(0.0, 1 - step / steps))
    if name == "one_cycle":
        return OneCycleLR(optimizer, learning_rate, total_steps=steps, cycle_momentum=False)
    raise FaultsimError(f"unknown schedule {name!r}: it can be {', '.join(SCHEDULES)}")


def choose_optimizer_arguments(learning_rate: float, device: torch.device) -> dict[str, Any]:
    """Return the optimizer arguments that suit the device of the parameters.

    On a GPU the learning rate is a tensor, so that a schedule can change it under a captured step, and one fused
    kernel updates all parameters.
    """
    if device.type != "cuda":
        return {"lr": learning_rate}
    return {"lr": torch.tensor(learning_rate, device=device), "fused": True}


def move_module(module: M, device: torch.device, precision: str = "float32") -> M:
    """Move a module, in place, to a device and to the memory format that suits it (see choose_memory_format)."""
    return module.to(device, memory_format=choose_memory_format(device, precision))  # type: ignore[call-overload]


def choose_memory_format(device: torch.device, precision: str = "float32") -> torch.memory_format:
    """Choose the memory format of images and convolutions.

    Channels last for tensor cores and bfloat16. In float32 it made VGG11 slower by a quarter on a CPU without AMX
    (benchmarks/README.md).
    """
    last = device.type == "cuda" or precision == "bfloat16"
    return torch.channels_last if last else torch.contiguous_format
