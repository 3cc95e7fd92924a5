"""Training of a base model with quantization-aware weights."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..data import Augmentation, Dataset
from ..errors import FaultsimError
from ..formats import INT8, AnyFormat, as_format
from ..quantization import prepare_qat
from .loop import Loop, Pace, choose_memory_format, choose_optimizer_arguments, create_schedule, move_module


@dataclass(frozen=True)
class Recipe:
    """How a base model is trained.

    Robustness to bit errors depends on it as much as on the fault model, so every result names its recipe.
    """

    name: str
    epochs: int
    batch_size: int = 256
    learning_rate: float = 1e-3
    """Of SGD; the peak if there is a schedule."""
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: str = "constant"
    """One of faultsim.training.loop.SCHEDULES; "one_cycle" uses Nesterov momentum."""
    precision: str = "float32"
    """Or "bfloat16": precision of matrix products (autocast) on GPUs; CPUs always use float32."""


RECIPES = {
    # The paper, Appendix C and the released code; 200 epochs for CIFAR-100.
    "paper": Recipe("paper", epochs=100),
    # The same optimizer for machines without a GPU. The sum of the learning rates over all steps, which is how far
    # gradient descent goes, is 12 * 391 * 1e-2 / 2 = 23 for 50,000 images, near the paper's 100 * 196 * 1e-3 = 20.
    "paper_short": Recipe("paper_short", epochs=12, batch_size=128, learning_rate=1e-2, schedule="linear"),
    # The paper's clean accuracy in far fewer epochs.
    "modern": Recipe(
        "modern",
        epochs=20,
        batch_size=128,
        learning_rate=0.1,
        weight_decay=5e-4,
        schedule="one_cycle",
        precision="bfloat16",
    ),
}


def choose_recipe(name: str, dataset: str, epochs: int | None = None) -> Recipe:
    """Return a recipe for a dataset.

    Parameters
    ----------
    name
        One of RECIPES.
    dataset
        Name of the dataset; the paper trains twice as long on "cifar100".
    epochs
        Another number of epochs, which becomes part of the recipe's name.

    Raises
    ------
    FaultsimError
        For an unknown recipe, and for fewer than 1 epoch.
    """
    if name not in RECIPES:
        raise FaultsimError(f"unknown recipe {name!r}: it can be {', '.join(RECIPES)}")
    found = RECIPES[name]
    if name.startswith("paper") and dataset == "cifar100":
        found = replace(found, epochs=2 * found.epochs)
    if epochs is None or epochs == found.epochs:
        return found
    if epochs < 1:
        raise FaultsimError(f"{epochs} epochs: at least 1 is needed")
    return replace(found, name=f"{name}, {epochs} epochs", epochs=epochs)


@dataclass(frozen=True)
class Epoch:
    """Means over the training images of one epoch, as they were augmented."""

    epoch: int
    """From 1."""
    loss: float
    """Cross entropy."""
    accuracy: float
    """Fraction of right answers."""


def train_classifier(
    model: nn.Module,
    data: Dataset,
    recipe: Recipe,
    *,
    seed: int,
    format: AnyFormat = INT8,
    augment: Augmentation | None = None,
    state: Path | None = None,
    report: Callable[[Epoch], None] = lambda epoch: None,
    pace: Pace | None = None,
) -> list[Epoch]:
    """Train a base model in place, on its own device. Its weights become quantization-aware (see prepare_qat).

    Parameters
    ----------
    model
        Takes images float32 [B, C, H, W] and returns logits [B, classes].
    data
        Training images and labels.
    recipe
        Optimizer, learning rate, epochs.
    seed
        Order and augmentation are functions of (seed, epoch).
    format
        What a stored weight is, or its name; training rounds the weights to it.
    augment
        Augmentation of the images. Default: none.
    state
        State file. If it exists, the training continues from it, to the same result.
    report
        Called after every epoch.
    pace
        How often the state is written, and the deadline.

    Returns
    -------
    list of Epoch

    Raises
    ------
    OutOfTime
        At the deadline of `pace`.
    FaultsimError
        For the state of another training.
    """
    device = next(model.parameters()).device
    data, stored = data.to(device), as_format(format)
    move_module(prepare_qat(model, format=stored), device).train()
    optimizer = torch.optim.SGD(
        model.parameters(),
        **choose_optimizer_arguments(recipe.learning_rate, device),
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.schedule == "one_cycle",
    )
    # Tensor cores want bfloat16; on a CPU without AMX it made VGG11 slower (benchmarks/README.md).
    mixed = torch.autocast(
        device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16" and device.type == "cuda"
    )

    def step(images: Tensor, labels: Tensor, number: Tensor) -> Tensor:
        with mixed:
            logits = model(images)
        loss = functional.cross_entropy(logits.float(), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        right = (logits.argmax(1) == labels).float().mean()
        return torch.stack([loss, right])

    steps = -(-len(data) // recipe.batch_size)
    loop = Loop(
        modules={"module": model},
        optimizer=optimizer,
        step=step,
        values=2,
        data=data,
        batch_size=recipe.batch_size,
        seed=seed,
        augment=augment,
        identity={
            "recipe": asdict(recipe),
            "seed": seed,
            "data": data.fingerprint,
            **({} if stored == INT8 else {"format": stored.name}),
        },
        state=state,
        schedule=create_schedule(recipe.schedule, optimizer, recipe.learning_rate, steps * recipe.epochs),
        memory_format=choose_memory_format(device),
        pace=pace or Pace(),
    )
    loop.resume()
    loop.run(
        recipe.epochs,
        lambda epoch, means: asdict(Epoch(epoch, *means)),
        lambda entry: report(Epoch(**entry)),
    )
    model.eval()
    return [Epoch(**entry) for entry in loop.curve]
