"""`faultsim train-base`: a base model with quantization-aware weights."""

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import FaultsimError
from .options import DataDirOption, DataOption, DeviceOption, InputSizeOption, MeanOption, StdOption
from .options import device as device_named
from .own_data import own_data
from .run_options import TrainingBudgetOption, pace

if TYPE_CHECKING:
    from ..data import Dataset


def train_base(
    model: Annotated[
        str,
        typer.Option(
            help="ResNet18, ResNet50, VGG11, VGG16, VGG19, DigitsNet, DigitsVGG, or package.module:function."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The weight file to write (.safetensors).")],
    dataset: Annotated[
        str | None,
        typer.Option(help="digits, cifar10, cifar100 or gtsrb. [default: cifar10]", show_default=False),
    ] = None,
    data_dir: DataDirOption = None,
    data: DataOption = None,
    test_data: Annotated[
        str | None,
        typer.Option(metavar="FUNCTION|FOLDER", help="With --data: what the accuracy is measured on."),
    ] = None,
    input_size: InputSizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    recipe: Annotated[
        str,
        typer.Option(
            help="paper (SGD, 1e-3, no weight decay, 100 epochs), paper_short (the same at 1e-2, falling to 0, "
            "12 epochs: for CPUs) or modern (one-cycle, weight decay, 20 epochs)."
        ),
    ] = "modern",
    epochs: Annotated[int | None, typer.Option(help="Number of epochs. [default: the recipe's]")] = None,
    seed: Annotated[int, typer.Option(help="Seed of initial weights, order and augmentation.")] = 0,
    budget: TrainingBudgetOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Train a base model with quantization-aware weights.

    Your own data (--data and --test-data) are one tensor of inputs and class numbers; they are not augmented.

    The state is kept every minute in OUT.state.safetensors, the curve in OUT.log.jsonl; a run that was stopped goes on
    when it is started again with the same options.
    """
    import torch

    from .. import models
    from ..data import Augmentation, OwnBatches, batches, find_augmentation, load
    from ..io.checkpoint import save_weights
    from ..io.files import write_text
    from ..io.provenance import provenance
    from ..training.classifier import Epoch, train_classifier
    from ..training.classifier import recipe as recipe_named

    if out.suffix != ".safetensors":
        raise FaultsimError(f"--out {out}: the name of a weight file must end in .safetensors")
    if seed >= 2**63:
        raise FaultsimError(f"--seed {seed}: it must be from 0 to 2**63 - 1")
    words = (input_size, mean, std, dataset, data_dir)
    own, own_test = own_data(data, *words), own_data(test_data, *words if test_data else ())
    if (own is None) != (own_test is None):
        raise FaultsimError("--data and --test-data belong together: give both")
    dataset = dataset or "cifar10"
    augment: Augmentation | None = None
    if own is None:
        training, test = load(dataset, "train", data_dir), load(dataset, "test", data_dir)
        augment = find_augmentation(dataset)
    else:
        from ..data.sources import load_own

        found = [load_own(own), load_own(own_test)]
        training, test = (part.as_dataset("own") if isinstance(part, OwnBatches) else part for part in found)
        dataset = training.name
        _check_alike(training, test)
    chosen = recipe_named(recipe, dataset, epochs)
    where = device_named(device)
    test = test.to(where)
    torch.manual_seed(seed)
    network = models.resolve(model, training.num_classes).to(where)
    if own is not None:  # a model that doesn't fit is refused before it is trained
        from ..subject import count_classes

        inputs, _ = next(batches(test.subset(torch.arange(min(2, len(test)))), 2, device=where))
        network.eval()
        count_classes(model, network, inputs, training.num_classes, training.name)
        network.train()
    started, first = time.monotonic(), None

    def accuracy() -> float:
        network.eval()
        with torch.inference_mode():
            right = sum((network(x).argmax(1) == y).sum() for x, y in batches(test, 512, device=where))
        network.train()
        return float(right) / len(test)

    log = out.with_suffix(".log.jsonl")
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []

    def report(epoch: Epoch) -> None:
        nonlocal first, lines
        first = first or epoch.epoch
        seconds = time.monotonic() - started
        left = seconds / (epoch.epoch - first + 1) * (chosen.epochs - epoch.epoch)
        entry = {**vars(epoch), "test_accuracy": accuracy(), "seconds": round(seconds, 1)}
        lines = [*lines[: epoch.epoch - 1], json.dumps(entry)]
        write_text(log, "\n".join(lines) + "\n")
        print(
            f"epoch {epoch.epoch}/{chosen.epochs}: loss {epoch.loss:.4f}, training {100 * epoch.accuracy:.2f} %, "
            f"test {100 * entry['test_accuracy']:.2f} %, {left / 60:.0f} min left",
            file=sys.stderr,
            flush=True,
        )

    state = out.with_suffix(".state.safetensors")
    curve = train_classifier(
        network,
        training,
        chosen,
        seed=seed,
        augment=augment,
        state=state,
        report=report,
        pace=pace(budget),
    )
    reached = accuracy()
    from ..data.sources import describe_pictures

    metadata = {
        "model": model,
        "num_classes": training.num_classes,
        "dataset": dataset,
        **describe_pictures(training),
        "dataset_fingerprint": training.fingerprint,
        "recipe": vars(chosen),
        "seed": seed,
        "training_accuracy": curve[-1].accuracy,
        "test_accuracy": reached,
        **provenance(str(where)),
    }
    save_weights(out, network, metadata)
    print(
        f"{model} on {dataset}, recipe {chosen.name}: test accuracy {100 * reached:.2f} %, written to {out}"
    )


def _check_alike(training: "Dataset", test: "Dataset") -> None:
    """FaultsimError unless both parts have the same classes and inputs."""
    if training.input_shape != test.input_shape or training.images.dtype != test.images.dtype:
        raise FaultsimError(
            f"--data gives inputs {list(training.input_shape)} and --test-data {list(test.input_shape)}: give the same"
        )
    if training.class_names[: test.num_classes] != test.class_names:
        raise FaultsimError(
            f"--data has {training.num_classes} classes, --test-data {test.num_classes}, or others: give the same"
        )
