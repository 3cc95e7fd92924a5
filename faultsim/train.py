"""Training of a base model with quantisation-aware weights."""

import contextlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from .data import Augmentation, Dataset, batches
from .errors import FaultsimError
from .quantization import prepare_qat
from .trainstate import load_state, save_state

SCHEDULES = ("constant", "linear", "one_cycle")


@dataclass(frozen=True)
class Recipe:
    """How a base model is trained. Robustness to bit errors depends on it as much as on the fault model, so every
    result names it."""

    name: str
    epochs: int
    batch_size: int = 256
    learning_rate: float = 1e-3  #: of SGD; the peak where there is a schedule
    momentum: float = 0.9
    weight_decay: float = 0.0
    #: of the learning rate: "constant"; "linear", down to 0 at the end; or "one_cycle" (Smith and Topin, arXiv
    #: 1708.07120), with Nesterov momentum
    schedule: str = "constant"
    precision: str = "float32"  #: or "bfloat16": of the matrix products (autocast) on GPUs; on CPUs float32


RECIPES = {
    # The paper, Appendix C and the released code; 200 epochs for CIFAR-100.
    "paper": Recipe("paper", epochs=100),
    # The same optimiser for machines without a GPU. The sum of the learning rates over all steps, which is how far
    # gradient descent goes, is 12 * 391 * 1e-2 / 2 = 23 for 50,000 images, near the paper's 100 * 196 * 1e-3 = 20.
    "paper_short": Recipe("paper_short", epochs=12, batch_size=128, learning_rate=1e-2, schedule="linear"),
    # The paper's clean accuracy in far fewer epochs, and more robust weights.
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


def recipe(name: str, dataset: str, epochs: int | None = None) -> Recipe:
    """A named recipe for a data set; with another number of epochs its name says so. FaultsimError for other names."""
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
    """What one epoch of training came to."""

    epoch: int
    loss: float  #: mean cross entropy over the training images, as they were augmented
    accuracy: float  #: fraction, on the same


def train_classifier(
    model: nn.Module,
    data: Dataset,
    recipe: Recipe,
    *,
    seed: int,
    augment: Augmentation | None = None,
    state: Path | None = None,
    report: Callable[[Epoch], None] = lambda epoch: None,
) -> list[Epoch]:
    """Trains `model` in place on its own device; its weights are quantisation-aware afterwards (see prepare_qat).

    Order and augmentation are functions of (seed, epoch). With `state`, a file, the run is kept after every epoch and
    goes on from there when it is started again, to the same result. Returns the curve; `report` is called with each
    new epoch.
    """
    device = next(model.parameters()).device
    data = data.to(device)
    # Tensor cores want channels last and bfloat16; on a CPU without AMX each made VGG11 slower (benchmarks/README.md).
    layout = torch.channels_last if device.type == "cuda" else torch.contiguous_format
    prepare_qat(model).to(memory_format=layout).train()
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.schedule == "one_cycle",
    )
    steps = -(-len(data) // recipe.batch_size)
    curve: list[Epoch] = []
    if state is not None:
        facts = load_state(state, model, optimizer)
        ours = {"recipe": asdict(recipe), "seed": seed, "data": data.fingerprint}
        if facts is not None and {key: facts.get(key) for key in ours} != ours:
            raise FaultsimError(f"{state} belongs to another recipe, seed or data set: choose another file")
        curve = [Epoch(**entry) for entry in (facts or {}).get("curve", [])]
    schedule = _schedule(optimizer, recipe, steps, done=len(curve))
    mixed = (
        torch.autocast(device.type, torch.bfloat16)
        if recipe.precision == "bfloat16" and device.type == "cuda"
        else contextlib.nullcontext()
    )

    for epoch in range(len(curve), recipe.epochs):
        loss_sum = torch.zeros([], device=device)
        right = torch.zeros([], device=device)
        for images, labels in batches(
            data, recipe.batch_size, shuffle_seed=seed, epoch=epoch, device=device, augment=augment
        ):
            with mixed:
                logits = model(images.contiguous(memory_format=layout))
            loss = functional.cross_entropy(logits.float(), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            if schedule is not None:
                schedule.step()
            loss_sum += loss.detach() * len(labels)
            right += (logits.detach().argmax(1) == labels).sum()
        curve.append(Epoch(epoch + 1, float(loss_sum) / len(data), float(right) / len(data)))
        if state is not None:
            save_state(state, model, optimizer, {**ours, "curve": [asdict(entry) for entry in curve]})
        report(curve[-1])
    model.eval()
    return curve


def _schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int, done: int):
    total = steps * recipe.epochs
    if recipe.schedule == "constant":
        return None
    if recipe.schedule == "linear":
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=total)
    elif recipe.schedule == "one_cycle":
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, recipe.learning_rate, total_steps=total, cycle_momentum=False
        )
    else:
        raise FaultsimError(f"unknown schedule {recipe.schedule!r}: it can be {', '.join(SCHEDULES)}")
    for _ in range(steps * done):
        optimizer._opt_called = True  # these steps were taken before the run was interrupted
        schedule.step()
    return schedule
