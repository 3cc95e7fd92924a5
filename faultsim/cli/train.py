"""`faultsim train-base`: a base model with quantization-aware weights."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import FaultsimError
from .options import DataDirOption, DataOption, DeviceOption, InputSizeOption, MeanOption, StdOption
from .options import device as device_named
from .own_data import own_data
from .run_options import TrainingBudgetOption, pace, say


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
        typer.Option(metavar="FUNCTION|FOLDER", help="With --data: data to measure the accuracy on."),
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

    Your own data (--data and --test-data) must give one tensor of inputs and class numbers. They are not augmented.

    The training writes its state to OUT.state.safetensors every minute, and the losses to OUT.log.jsonl. Start it again
    with the same options to continue after an interruption.
    """
    from ..data import Augmentation, OwnBatches, find_augmentation, load
    from ..data.sources import load_own
    from ..training.classifier import choose_recipe
    from ..training.to_file import train_classifier_to_file

    words = (input_size, mean, std, dataset, data_dir)
    own, own_test = own_data(data, *words), own_data(test_data, *words if test_data else ())
    if (own is None) != (own_test is None):
        raise FaultsimError("--data and --test-data belong together: give both")
    augment: Augmentation | None = None
    if own is None:
        dataset = dataset or "cifar10"
        training, test = load(dataset, "train", data_dir), load(dataset, "test", data_dir)
        augment = find_augmentation(dataset)
    else:
        found = [load_own(own), load_own(own_test)]
        training, test = (part.as_dataset("own") if isinstance(part, OwnBatches) else part for part in found)
    chosen = choose_recipe(recipe, training.name, epochs)
    metadata = train_classifier_to_file(
        out,
        model,
        training,
        test,
        chosen,
        seed=seed,
        augment=augment,
        device=device_named(device),
        pace=pace(budget),
        report=say,
    )
    print(
        f"{model} on {training.name}, recipe {chosen.name}: test accuracy {100 * metadata['test_accuracy']:.2f} %, "
        f"written to {out}"
    )
