"""Epochs of training that can be killed at any instant, and go on to the same result."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from ..data import Augmentation, Dataset, batches
from ..errors import FaultsimError
from ..io.bounds import integers
from .graphs import Graphed
from .state import load_state, save_state

SCHEDULES = ("constant", "linear", "one_cycle")
"""Of the learning rate: "linear" falls to 0 at the end; "one_cycle": Smith and Topin, arXiv 1708.07120."""
MOST_STEPS = 100_000_000  #: of a training


class OutOfTime(FaultsimError):
    """The deadline of a training came before its end. Its state is kept, where there is a file for it."""

    def __init__(self, where: str, epoch: int, epochs: int) -> None:
        super().__init__(
            f"the time is up {where} epoch {epoch} of {epochs}: the same command goes on from here"
        )


@dataclass(frozen=True)
class Pace:
    """When a training keeps its state, besides after every epoch, and when it has to stop."""

    seconds: float = 60.0  #: between two states
    deadline: float = math.inf  #: as time.monotonic() counts


@dataclass
class Loop:
    """One training. Order and augmentation are functions of (seed, epoch), so that a run goes on to the same result."""

    modules: Mapping[
        str, nn.Module
    ]  #: what is trained, and what else is kept in the state, by their names there
    optimizer: Optimizer
    #: (images, labels, number of the step as int64 [] on the device) -> float [values], means over the images. It
    #: updates the parameters; on a GPU it is replayed as a CUDA graph (see Graphed) if it may be `captured`
    step: Callable[[Tensor, Tensor, Tensor], Tensor]
    values: int
    data: Dataset  #: on the device
    batch_size: int
    seed: int
    augment: Augmentation | None
    identity: Mapping[str, Any]  #: JSON values that a state has to agree in for a run to go on from it
    state: Path | None = None  #: file
    schedule: LRScheduler | None = None
    layout: torch.memory_format = torch.contiguous_format  #: of the images
    captured: bool = True
    writes: bool = True  #: whether this process is the one that keeps the state and reports
    pace: Pace = field(default_factory=Pace)

    def __post_init__(self) -> None:
        self.curve: list[dict] = []  #: entries of the epochs that are done
        self.done = 0  #: steps of the next epoch that are done
        self.sums = torch.zeros(self.values, dtype=torch.float64, device=self.device)  #: over their images
        self.number = torch.zeros([], dtype=torch.int64, device=self.device)
        self.kept = self.counted = time.monotonic()
        self.seconds = 0.0  #: that the steps done so far took, in all sessions

    @property
    def device(self) -> torch.device:
        return self.data.images.device

    @property
    def steps(self) -> int:
        """Of one epoch."""
        return -(-len(self.data) // self.batch_size)

    def resume(self) -> None:
        """Takes up what the state holds, where there is one. Raises FaultsimError for a state of another run."""
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
            self.optimizer._opt_called = True  # these steps were taken before the run was interrupted
            for _ in range(begun):
                self.schedule.step()

    def _progress(self, facts: Mapping[str, Any]) -> tuple[list[dict], int, float, list[float]]:
        """Entries of the epochs that are done, steps of the next, seconds of all, sums over the steps; FaultsimError
        where it can't be."""
        curve, done, sums = (facts.get(key) for key in ("curve", "done", "sums"))
        seconds = facts.get("seconds", 0.0)  # states of older versions lack it
        known = isinstance(curve, list) and all(isinstance(entry, dict) for entry in curve)
        summed = isinstance(sums, list) and all(type(value) in (int, float) for value in sums)
        timed = type(seconds) in (int, float) and seconds >= 0
        if not (known and integers([done], 0, self.steps) and timed and summed and len(sums) == self.values):
            raise FaultsimError(f"{self.state} is damaged: it doesn't say how far the training was")
        if self.schedule is not None and len(curve) * self.steps + done > MOST_STEPS:
            raise FaultsimError(f"{self.state} is damaged: it is of more than {MOST_STEPS:,} steps")
        return curve, done, float(seconds), sums

    def facts(self) -> dict[str, Any]:
        """What the state says besides tensors."""
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
        """Trains until the curve has `epochs` entries, or `ended` says so of it.

        `entry` makes an entry (JSON values) from the epoch's number, from 1, and its means; `report` is called with
        each new one. The state is kept before. Raises OutOfTime at the deadline.
        """
        self.counted = time.monotonic()
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
        parts = batches(
            self.data,
            self.batch_size,
            shuffle_seed=self.seed,
            epoch=len(self.curve),
            device=self.device,
            augment=self.augment,
        )
        for index, (images, labels) in enumerate(parts):
            if index < begun:  # done, but the augmentation of the others draws from the same stream
                continue
            call(images.contiguous(memory_format=self.layout), labels)
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


def schedule(name: str, optimizer: Optimizer, learning_rate: float, steps: int) -> LRScheduler | None:
    """One of SCHEDULES over so many steps, from the learning rate, or for "one_cycle" up to it. FaultsimError for
    other names."""
    if name == "constant":
        return None
    if name == "linear":
        return LambdaLR(optimizer, lambda step: max(0.0, 1 - step / steps))
    if name == "one_cycle":
        return OneCycleLR(optimizer, learning_rate, total_steps=steps, cycle_momentum=False)
    raise FaultsimError(f"unknown schedule {name!r}: it can be {', '.join(SCHEDULES)}")


def on_device(learning_rate: float, device: torch.device) -> dict[str, Any]:
    """Arguments of an optimizer for its parameters' device: on a GPU the learning rate lies there, where a schedule can
    change it under a captured step, and one kernel updates all parameters."""
    if device.type != "cuda":
        return {"lr": learning_rate}
    return {"lr": torch.tensor(learning_rate, device=device), "fused": True}


def layout(device: torch.device, precision: str = "float32") -> torch.memory_format:
    """Of images and convolutions: tensor cores and bfloat16 want channels last; in float32 it made VGG11 slower by a
    quarter on a CPU without AMX (benchmarks/README.md)."""
    last = device.type == "cuda" or precision == "bfloat16"
    return torch.channels_last if last else torch.contiguous_format
