"""Training of a classifier with quantisation-aware weights."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from .data import Augmentation, Dataset, batches
from .quantization import prepare_qat


@dataclass(frozen=True)
class Recipe:
    """How a base model is trained. Robustness to bit errors depends on it: results name it."""

    name: str
    epochs: int
    batch_size: int = 256
    learning_rate: float = 0.1  #: peak of the one-cycle schedule
    momentum: float = 0.9
    weight_decay: float = 5e-4
    per_channel: bool = False


def train_classifier(
    model: nn.Module,
    data: Dataset,
    recipe: Recipe,
    *,
    seed: int,
    augment: Augmentation | None = None,
    report: Callable[[int, float], None] | None = None,
) -> nn.Module:
    """Trains `model` in place on its own device with SGD and a one-cycle schedule; its weights are quantisation-aware
    afterwards (see prepare_qat). `report(epoch, mean loss)` is called after each epoch. Returns the model."""
    device = next(model.parameters()).device
    data = data.to(device)
    prepare_qat(model, recipe.per_channel)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=True,
    )
    steps = recipe.epochs * -(-len(data) // recipe.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, total_steps=steps)
    model.train()
    for epoch in range(recipe.epochs):
        losses = []
        for images, labels in batches(
            data, recipe.batch_size, shuffle_seed=seed, epoch=epoch, device=device, augment=augment
        ):
            loss = functional.cross_entropy(model(images), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.detach())
        if report is not None:
            report(epoch + 1, float(torch.stack(losses).mean()))
    return model.eval()
