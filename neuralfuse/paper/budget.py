"""What missing steps cost, and which of them are worth the time there is."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import cache
from typing import TYPE_CHECKING

from .cells import CHIPS
from .plan import Kind, Step, chain, ends
from .result import TRAINING_IMAGES, Cell

if TYPE_CHECKING:
    import torch

TEST_IMAGES = {"digits": 359, "cifar10": 10_000, "cifar100": 10_000, "gtsrb": 12_630}
"""Of each data set (the paper, Appendix C; scikit-learn's digits)."""


@cache
def macs(name: str) -> int:
    """Multiply-accumulate operations of one image through a base model or generator."""
    import torch

    from energy.costs import count_costs
    from faultsim import models

    from .. import generators

    with torch.device("meta"):
        network = generators.create(name) if name in generators.NAMES else models.create(name)
    return count_costs(network, (3, 32, 32)).macs


def operations(step: Step, *, base_epochs: int, epochs: int, n_models: int) -> int:
    """Multiply-accumulate operations of a whole step, training at its full length. A backward pass counts twice a
    forward pass; to the input of a frozen model alone, once."""
    cell = step.cell
    train, test = TRAINING_IMAGES[cell.dataset], TEST_IMAGES[cell.dataset]
    base = macs(cell.base)
    if step.kind is Kind.BASE:
        return 3 * base * train * base_epochs
    if step.kind is Kind.UNPROTECTED:
        return (CHIPS + 1) * base * test
    generator = macs(cell.generator.name)
    if step.kind is Kind.GENERATOR and cell.generator.trainer == "staged":
        from ..staged import Staged

        defaults = {field.name: field.default for field in fields(Staged)}
        first, patterns, drawing = (
            defaults[name].epochs_of(train) for name in ("classifier", "patterns", "drawing")
        )
        alone = 3 * generator * train * (first + drawing)  # the encoder counts as the whole generator
        # the images of a step are divided among the models
        return alone + 2 * base * train * patterns + (2 * base + 3 * generator) * train * epochs
    if step.kind is Kind.GENERATOR:
        # chosen flips: the clean model, one perturbed model, and the gradient that chooses
        passes = (
            2 * (1 + (cell.generator.n_models or n_models)) if cell.generator.flips is None else 2 * 2 + 3
        )
        return (passes * base + 3 * generator) * train * epochs
    if step.kind is Kind.OUTPUTS:
        return 2 * (2 * base + generator) * test
    return (CHIPS + 1) * (base + generator) * test


def operations_per_second(device: torch.device, precision: str = "float32", seconds: float = 1.0) -> float:
    """Multiply-accumulate operations a second of this device in training, from a few steps of a small network."""
    import torch
    from torch import nn

    from faultsim.training.loop import layout

    count = (
        2048 if device.type == "cuda" else 64
    )  # so much that a GPU computes longer than it takes to launch
    layers = [nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU()]
    network = nn.Sequential(*layers, nn.MaxPool2d(2), nn.Conv2d(64, 256, 3, padding=1))
    network = network.to(device, memory_format=layout(device, precision))
    images = torch.zeros(count, 64, 16, 16, device=device).to(memory_format=layout(device, precision))
    work = 3 * count * 9 * (64 * 64 * 256 + 64 * 256 * 64)  # images x kernel x channels x places

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            loss = network(images).float().mean()
        loss.backward()

    def timed() -> float:
        began = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - began

    timed()
    until, best = time.perf_counter() + seconds, timed()
    while time.perf_counter() < until:  # the fastest: what else the machine does is not the device's speed
        best = min(best, timed())
    return work / best


def most_valuable(
    planned: Sequence[Step],
    wanted: Mapping[Cell, int],
    seconds_of: Callable[[Step], float],
    budget: float,
) -> list[Step]:
    """The missing steps to that result which is wanted by the most tables for its time, if it fits into `budget`
    seconds; none when nothing fits. What earlier steps left costs nothing more."""
    best: list[Step] = []
    best_worth = 0.0
    for last in ends(planned):
        todo = chain(last, planned)
        seconds = sum(seconds_of(step) for step in todo)
        if not todo or seconds > budget:
            continue
        worth = wanted.get(last.cell, 1) / max(seconds, 1e-9)
        if worth > best_worth:
            best, best_worth = todo, worth
    return best


def duration(seconds: float) -> str:
    """In words: 40 s, 25 min, 3.5 h, 12 days."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days"
