"""Training of a base model with quantization-aware weights."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..data import Augmentation, Dataset
from ..errors import FaultsimError
from ..quantization import prepare_qat
from .loop import Loop, Pace, layout, on_device, schedule


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
    schedule: str = "constant"  #: one of faultsim.training.loop.SCHEDULES; "one_cycle" with Nesterov momentum
    precision: str = "float32"  #: or "bfloat16": of the matrix products (autocast) on GPUs; on CPUs float32


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
    pace: Pace | None = None,
) -> list[Epoch]:
    """Trains `model` in place on its own device; its weights are quantization-aware afterwards (see prepare_qat).

    Order and augmentation are functions of (seed, epoch). With `state`, a file, the run is kept (see `pace`) and goes
    on from there when it is started again, to the same result. Returns the curve; `report` is called with each new
    epoch. Raises OutOfTime at the deadline of `pace`, FaultsimError for a state of another run.
    """
    device = next(model.parameters()).device
    data = data.to(device)
    prepare_qat(model).to(memory_format=layout(device)).train()
    optimizer = torch.optim.SGD(
        model.parameters(),
        **on_device(recipe.learning_rate, device),
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
        {"module": model},
        optimizer,
        step,
        2,
        data,
        recipe.batch_size,
        seed,
        augment,
        {"recipe": asdict(recipe), "seed": seed, "data": data.fingerprint},
        state,
        schedule(recipe.schedule, optimizer, recipe.learning_rate, steps * recipe.epochs),
        layout(device),
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
