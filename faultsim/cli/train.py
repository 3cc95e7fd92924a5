"""`faultsim train-base`: a base model with quantization-aware weights."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import FaultsimError
from .hardening_options import HardeningOptions
from .option_groups import FormatOptions, expand_options
from .options import DataDirOption, DataOption, DeviceOption, InputSizeOption, MeanOption, StdOption
from .own_data import own_data
from .run_options import TrainingBudgetOption, pace, say

if TYPE_CHECKING:
    from ..data.sources import OwnData


@dataclass(frozen=True)
class TrainingDataOptions:
    """Which data to train with and to measure the accuracy on."""

    dataset: Annotated[
        str | None,
        typer.Option(help="digits, cifar10, cifar100 or gtsrb. [default: cifar10]", show_default=False),
    ] = None
    data_dir: DataDirOption = None
    data: DataOption = None
    test_data: Annotated[
        str | None,
        typer.Option(metavar="FUNCTION|FOLDER", help="With --data: data to measure the accuracy on."),
    ] = None
    input_size: InputSizeOption = None
    mean: MeanOption = None
    std: StdOption = None

    def own(self) -> "tuple[OwnData, OwnData] | None":
        """The user's own data for training and for the test; None without --data."""
        if (self.data is None) != (self.test_data is None):
            raise FaultsimError("--data and --test-data belong together: give both")
        words = (self.input_size, self.mean, self.std, self.dataset, self.data_dir)
        training, test = (own_data(source, *words) for source in (self.data, self.test_data))
        return None if training is None or test is None else (training, test)


@expand_options
def train_base(
    *,
    model: Annotated[
        str,
        typer.Option(
            help="ResNet18, ResNet50, VGG11, VGG16, VGG19, VGG7, DigitsNet, DigitsVGG, or package.module:function."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The weight file to write (.safetensors).")],
    data: TrainingDataOptions,
    recipe: Annotated[
        str,
        typer.Option(
            help="paper (SGD, 1e-3, no weight decay, 100 epochs), paper_short (the same at 1e-2, falling to 0, "
            "12 epochs: for CPUs), modern (one-cycle, weight decay, 20 epochs) or fine_tune (1e-3, falling to 0, "
            "3 epochs: with --start)."
        ),
    ] = "modern",
    epochs: Annotated[int | None, typer.Option(help="Number of epochs. [default: the recipe's]")] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            help="Learning rate; the peak where it changes. [default: the recipe's]", show_default=False
        ),
    ] = None,
    cutout: Annotated[
        int,
        typer.Option(
            help="Edge in pixels of a square that is cut out of each training image, at random, against overfitting."
        ),
    ] = 0,
    seed: Annotated[int, typer.Option(help="Seed of initial weights, order and augmentation.")] = 0,
    start: Annotated[
        Path | None,
        typer.Option(
            help="Start from these weights of the model. [default: random initialization]", show_default=False
        ),
    ] = None,
    stored: FormatOptions,
    robust: HardeningOptions,
    precision: Annotated[
        str | None,
        typer.Option(
            help="Precision of matrix products: float32 or bfloat16. [default: the recipe's on GPUs, float32 on CPUs]",
            show_default=False,
        ),
    ] = None,
    budget: TrainingBudgetOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Train a base model, quantization-aware.

    With --bits or --format the model is trained for weights of that format, which the weight file names.

    --clip (or --clip-deviations) and --bit-error-rate make the model robust to bit errors on any chip, --chip to those
    of one chip.

    Your own data (--data and --test-data) must give one tensor of inputs and class numbers. They are not augmented.

    The training writes its state to OUT.state.safetensors every minute, and the losses to OUT.log.jsonl. Start it again
    with the same options to continue after an interruption.
    """
    from ..data.sources import load_training_data
    from ..formats import INT8
    from ..kernel.devices import choose_device
    from ..training.classifier import choose_recipe
    from ..training.to_file import train_classifier_to_file

    training, test, augment = load_training_data(data.dataset or "cifar10", data.data_dir, data.own())
    chosen = choose_recipe(recipe, training.name, epochs, learning_rate)
    if cutout:
        if augment is None:
            raise FaultsimError("--cutout cannot be combined with your own data, which are not augmented")
        augment = replace(augment, cutout=cutout)
    metadata = train_classifier_to_file(
        out,
        model,
        training,
        test,
        chosen,
        seed=seed,
        format=stored.chosen() or INT8,
        start=start,
        clipping=robust.clipping(),
        errors=robust.errors(),
        precision=precision,
        augment=augment,
        device=choose_device(device),
        pace=pace(budget),
        report=say,
    )
    reached = f"test accuracy {100 * metadata['test_accuracy']:.2f} %"
    if "chip_accuracy" in metadata:
        reached += f", on the chip {100 * metadata['chip_accuracy']:.2f} %"
    print(f"{model} on {training.name}, recipe {chosen.name}: {reached}, written to {out}")
