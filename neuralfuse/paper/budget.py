"""What missing steps cost, and which of them a budget is spent on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Self

from .cells import CHIPS
from .plan import Kind, Step, chain_steps, find_ends
from .result import JOINED, TRAINING_IMAGES, Cell

if TYPE_CHECKING:
    import torch

    from .settings import Settings

TEST_IMAGES = {"digits": 359, "cifar10": 10_000, "cifar100": 10_000, "gtsrb": 12_630}
"""Of each dataset (the paper, Appendix C; scikit-learn's digits)."""


@cache
def count_macs(name: str) -> int:
    """Count the multiply-accumulate operations of one image through a base model or generator."""
    from energy.costs import count_costs
    from faultsim import models

    from .. import generators
    from ..network_energy import create_shapes

    names = (*models.NAMES, *generators.KNOWN, *generators.BASELINES)
    return count_costs(create_shapes(name, names), (3, 32, 32)).macs


def count_operations(step: Step, *, base_epochs: int, epochs: int, n_models: int) -> int:
    """Count the multiply-accumulate operations of a whole step, with trainings at their full length.

    A backward pass counts as two forward passes; one to the input of a frozen model only, as one.
    """
    cell = step.cell
    train, test = TRAINING_IMAGES[cell.dataset], TEST_IMAGES[cell.dataset]
    base = sum(map(count_macs, cell.base.split(JOINED)))
    if step.kind is Kind.BASE:
        return 3 * base * train * base_epochs
    if step.kind is Kind.UNPROTECTED:
        return (CHIPS + 1) * base * test
    generator = count_macs(cell.spec.name)
    if step.kind is Kind.GENERATOR and cell.spec.in_stages:
        # the encoder counts as the whole generator; the images of a step are divided among the models
        costs = {"patterns": 2 * base, "eopm": 2 * base + 3 * generator}
        lengths = count_stage_epochs(cell, epochs)
        return sum(costs.get(name, 3 * generator) * train * length for name, length in lengths.items())
    if step.kind is Kind.GENERATOR:
        # chosen flips: the clean model, one perturbed model, and the gradient that chooses
        passes = 2 * (1 + (cell.spec.n_models or n_models)) if cell.spec.flips is None else 2 * 2 + 3
        return (passes * base + 3 * generator) * train * epochs
    if step.kind is Kind.OUTPUTS:
        return 2 * (2 * base + generator) * test
    return (CHIPS + 1) * (base + generator) * test


def count_stage_epochs(cell: Cell, epochs: int) -> dict[str, int]:
    """Return the number of epochs of each stage of a cell's generator, `epochs` of the last one of staged training."""
    from ..stages import Staged
    from ..training import Training

    last = Training(bit_error_rate=0.0, max_epochs=epochs)
    return Staged(last, looked_up=cell.spec.trainer == "lookup").count_epochs(TRAINING_IMAGES[cell.dataset])


def measure_speed(device: torch.device, precision: str = "float32", seconds: float = 1.0) -> float:
    """Measure multiply-accumulate operations per second of a device, in a few training steps of a small network."""
    import torch
    from torch import nn

    from faultsim.training.loop import choose_memory_format, move_module

    count = 2048 if device.type == "cuda" else 64  # enough that a GPU computes longer than a launch takes
    layers = [nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU()]
    network = nn.Sequential(*layers, nn.MaxPool2d(2), nn.Conv2d(64, 256, 3, padding=1))
    move_module(network, device, precision)
    images = torch.zeros(count, 64, 16, 16, device=device).to(
        memory_format=choose_memory_format(device, precision)
    )
    work = 3 * count * 9 * (64 * 64 * 256 + 64 * 256 * 64)  # images x kernel x channels x places

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            loss = network(images).float().mean()
        loss.backward()

    def time_step() -> float:
        began = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - began

    time_step()
    until, best = time.perf_counter() + seconds, time_step()
    while time.perf_counter() < until:  # the fastest: the others were slowed down by something else
        best = min(best, time_step())
    return work / best


@dataclass
class Clock:
    """Estimates how long steps take: their operations over the device's speed, corrected by every finished step."""

    settings: Settings
    speed: float
    """Multiply-accumulate operations per second."""
    expected: float = 0.0
    taken: float = 0.0

    @classmethod
    def of(cls, settings: Settings, device: torch.device) -> Self:
        """Measure the device's speed."""
        return cls(settings, measure_speed(device, settings.precision))

    def estimate(self, step: Step) -> float:
        """Estimate the seconds of what is left of a step; of a training, the largest possible."""
        from faultsim.training.classifier import choose_recipe
        from faultsim.training.epoch_log import ENDING

        base_epochs = choose_recipe(step.recipe, step.cell.dataset, self.settings.base_epochs).epochs
        epochs = self.settings.epochs
        work: float = count_operations(
            step, base_epochs=base_epochs, epochs=epochs, n_models=self.settings.n_models
        )
        if step.kind in (Kind.BASE, Kind.GENERATOR):
            log = step.file.with_suffix(ENDING)
            done = len(log.read_text(encoding="utf-8", errors="replace").splitlines()) if log.exists() else 0
            total = base_epochs if step.kind is Kind.BASE else epochs
            if step.kind is Kind.GENERATOR and step.cell.spec.in_stages:
                total = sum(count_stage_epochs(step.cell, epochs).values())
            work *= max(0.0, 1 - done / total)
        return work / self.speed * self._correction

    def learn(self, expected: float, taken: float) -> None:
        """Correct further estimates by a finished step: `expected` is its estimate, `taken` its seconds."""
        self.expected += expected / self._correction
        self.taken += taken

    @property
    def _correction(self) -> float:
        # less than a minute tells nothing about how fast this machine is
        return self.taken / self.expected if self.expected > 60 else 1.0


def choose_next(
    planned: Sequence[Step],
    wanted: Mapping[Cell, int],
    seconds_of: Callable[[Step], float],
    budget: float,
) -> list[Step]:
    """Choose the missing steps to the result that most tables need for its time, if it fits into `budget` seconds.

    Returns
    -------
    list of Step
        Empty if nothing fits.
    """
    best: list[Step] = []
    best_worth = 0.0
    for last in find_ends(planned):
        todo = chain_steps(last, planned)
        seconds = sum(seconds_of(step) for step in todo)
        if not todo or seconds > budget:
            continue
        worth = wanted.get(last.cell, 1) / max(seconds, 1e-9)
        if worth > best_worth:
            best, best_worth = todo, worth
    return best
