"""Training of a base model with quantization-aware weights."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..data import Augmentation, Dataset
from ..errors import FaultsimError
from ..formats import INT8, AnyFormat, as_format
from ..quantization import prepare_qat
from .bit_errors import BitErrors, Losses, RandomBitErrors, Task
from .clipping import Clipping, clip_weights
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
    """Or "bfloat16": precision of matrix products (autocast) on GPUs; CPUs use float32 unless asked otherwise."""


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
    # A base model that is trained already, made robust or fit for another format.
    "fine_tune": Recipe("fine_tune", epochs=3, batch_size=128, schedule="linear"),
}


def choose_recipe(
    name: str, dataset: str, epochs: int | None = None, learning_rate: float | None = None
) -> Recipe:
    """Return a recipe for a dataset.

    Parameters
    ----------
    name
        One of RECIPES.
    dataset
        Name of the dataset; the paper trains twice as long on "cifar100".
    epochs
        Another number of epochs, which becomes part of the recipe's name.
    learning_rate
        Another learning rate (the peak of a schedule), likewise.

    Raises
    ------
    FaultsimError
        For an unknown recipe, for fewer than 1 epoch, and for a learning rate that is not a number above 0.
    """
    if name not in RECIPES:
        raise FaultsimError(f"unknown recipe {name!r}: it can be {', '.join(RECIPES)}")
    found = RECIPES[name]
    if name.startswith("paper") and dataset == "cifar100":
        found = replace(found, epochs=2 * found.epochs)
    if epochs is not None and epochs != found.epochs:
        if epochs < 1:
            raise FaultsimError(f"{epochs} epochs: at least 1 is needed")
        found = replace(found, name=f"{found.name}, {epochs} epochs", epochs=epochs)
    if learning_rate is not None and learning_rate != found.learning_rate:
        if not 0 < learning_rate < math.inf:
            raise FaultsimError(f"learning rate {learning_rate}: it must be above 0")
        name = f"{found.name}, learning rate {learning_rate:g}"
        found = replace(found, name=name, learning_rate=learning_rate)
    return found


@dataclass(frozen=True)
class Epoch:
    """Means over the training images of one epoch, as they were augmented."""

    epoch: int
    """From 1."""
    loss: float
    """Cross entropy."""
    accuracy: float
    """Fraction of right answers."""
    perturbed_loss: float | None = None
    """Cross entropy with random bit errors, over the steps that had some."""
    steps_with_errors: float | None = None
    """Fraction of them (by images); None in a training without random bit errors."""

    def as_dict(self) -> dict[str, float]:
        """Return the means that there are."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def train_classifier(
    model: nn.Module,
    data: Dataset,
    recipe: Recipe,
    *,
    seed: int,
    format: AnyFormat = INT8,
    clipping: Clipping | None = None,
    errors: BitErrors | None = None,
    precision: str | None = None,
    context: Mapping[str, Any] | None = None,
    augment: Augmentation | None = None,
    state: Path | None = None,
    report: Callable[[Epoch], None] = lambda epoch: None,
    pace: Pace | None = None,
) -> list[Epoch]:
    """Train a base model in place, on its own device. Its weights become quantization-aware (see prepare_qat).

    With `clipping` and `errors` it becomes robust to bit errors.

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
    clipping
        Bounds of the stored weights. Default: none.
    errors
        Bit errors that the weights have in training (`RandomBitErrors`, `OneChip`). Default: none.
    precision
        Precision of matrix products, also on a CPU: "float32" or "bfloat16". Default: the recipe's on a GPU, else
        float32.
    context
        Further JSON values that a state must contain for the training to continue from it.
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
        For the state of another training, an unknown precision, and a seed that does not go with the errors.
    """
    if precision not in (None, "float32", "bfloat16"):
        raise FaultsimError(f"unknown precision {precision!r}: it can be float32 or bfloat16")
    if errors is not None:
        errors.check(seed)
    device = next(model.parameters()).device
    data, stored = data.to(device), as_format(format)
    # on a CPU, bfloat16 wants the channels last as tensor cores do
    memory_format = choose_memory_format(device, precision or "float32")
    move_module(prepare_qat(model, format=stored), device, precision or "float32").train()
    bounds = [] if clipping is None else clipping.find_bounds(model)
    optimizer = torch.optim.SGD(
        model.parameters(),
        **choose_optimizer_arguments(recipe.learning_rate, device),
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.schedule == "one_cycle",
    )
    # Tensor cores want bfloat16; a CPU without AMX is slower with it for some models (benchmarks/README.md).
    wanted = precision or (recipe.precision if device.type == "cuda" else "float32")
    mixed = torch.autocast(device.type, torch.bfloat16, enabled=wanted == "bfloat16")

    def measure(images: Tensor, labels: Tensor) -> Losses:
        with mixed:
            logits = model(images)
        right = (logits.argmax(1) == labels).float().mean()
        return Losses(functional.cross_entropy(logits.float(), labels), right)

    random = isinstance(errors, RandomBitErrors)
    task = Task(model, measure, data.num_classes, stored, seed)

    def step(images: Tensor, labels: Tensor, number: Tensor) -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        found = (
            task.backward(images, labels)
            if errors is None
            else errors.backward(task, images, labels, int(number))
        )
        optimizer.step()
        clip_weights(bounds)
        values = [found.loss.detach(), found.accuracy]
        if random:
            none, lost = torch.zeros_like(values[0]), found.perturbed
            values += [none, none] if lost is None else [lost, torch.ones_like(none)]
        return torch.stack(values)

    def summarize(epoch: int, means: Sequence[float]) -> dict[str, float]:
        loss, accuracy, *perturbed = means
        if not random:
            return Epoch(epoch, loss, accuracy).as_dict()
        total, share = perturbed
        return Epoch(epoch, loss, accuracy, total / share if share else None, share).as_dict()

    steps = -(-len(data) // recipe.batch_size)
    loop = Loop(
        modules={"module": model},
        optimizer=optimizer,
        step=step,
        values=4 if random else 2,
        data=data,
        batch_size=recipe.batch_size,
        seed=seed,
        augment=augment,
        identity={
            "recipe": asdict(recipe),
            "seed": seed,
            "data": data.fingerprint,
            **({} if stored == INT8 else {"format": stored.name}),
            **({} if clipping is None else {"clipping": clipping.describe()}),
            **({} if errors is None else {"errors": errors.describe()}),
            **({} if precision is None else {"precision": precision}),
            **(context or {}),
        },
        state=state,
        schedule=create_schedule(recipe.schedule, optimizer, recipe.learning_rate, steps * recipe.epochs),
        memory_format=memory_format,
        captured=errors is None,  # each step draws a chip, and asks how large the loss is
        pace=pace or Pace(),
    )
    clip_weights(bounds)
    loop.resume()
    loop.run(recipe.epochs, summarize, lambda entry: report(Epoch(**entry)))
    model.eval()
    return [Epoch(**entry) for entry in loop.curve]
