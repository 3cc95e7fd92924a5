"""Training of a base model to a weight file: with its metadata, its log, and a state to continue from."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import models
from ..checkpoint import compute_fingerprint, load_weights, read_file, save_weights
from ..data import Augmentation, Dataset, iterate_batches
from ..data.sources import describe_pictures
from ..errors import FaultsimError
from ..formats import INT8, AnyFormat, as_format
from ..io.provenance import record_provenance
from ..studies.subject import count_classes
from .bit_errors import BitErrors, OneChip
from .classifier import Epoch, Recipe, train_classifier
from .clipping import Clipping
from .epoch_log import ENDING, EpochLog, Progress
from .loop import Pace

_KNOWN = (
    "recipe",
    "seed",
    "clipping",
    "errors",
    "start",
    "dataset_fingerprint",
    "test_accuracy",
    "commit",
    "date",
)


def check_weight_path(path: Path) -> None:
    """Raise FaultsimError unless the path ends as weight files do."""
    if path.suffix != ".safetensors":
        raise FaultsimError(f"{path}: the name of a weight file must end in .safetensors")


def train_classifier_to_file(
    path: str | Path,
    model: str,
    training: Dataset,
    test: Dataset,
    recipe: Recipe,
    *,
    seed: int = 0,
    format: AnyFormat = INT8,
    start: str | Path | None = None,
    clipping: Clipping | None = None,
    errors: BitErrors | None = None,
    precision: str | None = None,
    augment: Augmentation | None = None,
    device: torch.device | str = "cpu",
    pace: Pace | None = None,
    report: Callable[[str], None] = lambda line: None,
    resumable: bool = True,
) -> dict[str, Any]:
    """Train a base model with quantization-aware weights and write its weight file.

    A training that was stopped continues when it is started again with the same arguments, to the same result.

    Parameters
    ----------
    path
        Weight file to write (.safetensors). The state of the training is next to it in PATH.state.safetensors, the
        log in PATH.log.jsonl.
    model
        One of ``faultsim.models.NAMES``, or "package.module:function".
    training, test
        Images and labels, with the same classes and shapes.
    recipe
        Optimizer, learning rate, epochs (see `choose_recipe`).
    seed
        Seed of initial weights, order and augmentation, from 0 to 2**63 - 1.
    format
        What a stored weight is, or its name: the weights are trained for it, and the file names it.
    start
        Weight file of this model to start from. Default: random initialization.
    clipping, errors, precision
        As for `train_classifier`; the file names them.
    augment
        Augmentation of the training images (see ``faultsim.data.find_augmentation``). Default: none.
    device
        Where to train.
    pace
        How often the state is written, and the deadline.
    report
        Called after every epoch with one line: loss, accuracies and the time left. `print`, for instance.
    resumable
        Whether to write the state and the log.

    Returns
    -------
    dict
        The metadata in the file, among them "training_accuracy" and "test_accuracy" (fractions). With the errors of
        one chip the first is measured on this chip, the second without errors, and "chip_accuracy" is that of the test
        images on this chip.

    Raises
    ------
    OutOfTime
        At the deadline; the state is written.
    FaultsimError
        If model and data do not fit each other, or the state belongs to another training.
    """
    path, device, stored = Path(path), torch.device(device), as_format(format)
    check_weight_path(path)
    if not 0 <= seed < 2**63:
        raise FaultsimError(f"seed {seed}: it must be from 0 to 2**63 - 1")
    _check_alike(training, test)
    test = test.to(device)
    torch.manual_seed(seed)
    network = models.resolve(model, training.num_classes).to(device)
    _check_fit(model, network, training, test)
    origin = {} if start is None else _start_from(network, model, start)
    if augment is not None and augment.cutout:
        origin["cutout"] = augment.cutout
    progress = Progress({"": recipe.epochs})
    log = EpochLog(path.with_suffix(ENDING) if resumable else None)

    def note(epoch: Epoch) -> None:
        entry = log.add({**epoch.as_dict(), "test_accuracy": measure_accuracy(network, test)})
        report(progress.format(entry))

    curve = train_classifier(
        network,
        training,
        recipe,
        seed=seed,
        format=stored,
        clipping=clipping,
        errors=errors,
        precision=precision,
        context=origin,
        augment=augment,
        state=path.with_suffix(".state.safetensors") if resumable else None,
        report=note,
        pace=pace,
    )
    on_chip = {}
    if isinstance(errors, OneChip):
        with errors.perturbed(network, stored):
            on_chip = {"chip_accuracy": measure_accuracy(network, test)}
    metadata = {
        "model": model,
        "num_classes": training.num_classes,
        "dataset": training.name,
        **describe_pictures(training),
        "dataset_fingerprint": training.fingerprint,
        "recipe": asdict(recipe),
        "seed": seed,
        **origin,
        **({} if clipping is None else {"clipping": clipping.describe()}),
        **({} if errors is None else {"errors": errors.describe()}),
        **({} if precision is None else {"precision": precision}),
        "training_accuracy": curve[-1].accuracy,
        "test_accuracy": measure_accuracy(network, test),
        **on_chip,
        **record_provenance(str(device)),
    }
    save_weights(path, network, metadata, format=stored)
    return metadata


def measure_accuracy(network: nn.Module, data: Dataset) -> float:
    """Measure the fraction of right answers, in evaluation mode; the mode is as before afterwards."""
    before = network.training
    network.eval()
    with torch.inference_mode():
        parts = iterate_batches(data, 512, device=data.images.device)
        right = sum(int((network(images).argmax(1) == labels).sum()) for images, labels in parts)
    network.train(before)
    return right / len(data)


def _start_from(network: nn.Module, model: str, path: str | Path) -> dict[str, Any]:
    """Load the weights that a training starts from, and return what its metadata say of them."""
    named = read_file(path)[1].get("model", model)
    if named != model:
        raise FaultsimError(f"{path} holds {named}: start from weights of {model}, or train --model {named}")
    stored, metadata = load_weights(network, path)
    known = {key: metadata[key] for key in _KNOWN if key in metadata}
    return {"start": {"weights": compute_fingerprint(network, stored), **known}}


def _check_fit(name: str, network: nn.Module, training: Dataset, test: Dataset) -> None:
    """Refuse a model that does not take the images before it is trained."""
    first = test.subset(torch.arange(min(2, len(test)), device=test.images.device))
    images, _ = next(iter(iterate_batches(first, 2, device=test.images.device)))
    network.eval()
    count_classes(name, network, images, training.num_classes, training.name)
    network.train()


def _check_alike(training: Dataset, test: Dataset) -> None:
    """Refuse a test set with other inputs or classes."""
    if training.input_shape != test.input_shape or training.images.dtype != test.images.dtype:
        raise FaultsimError(
            f"the training data have inputs {list(training.input_shape)}, the test data {list(test.input_shape)}: "
            "give the same"
        )
    if training.class_names[: test.num_classes] != test.class_names:
        raise FaultsimError(
            f"the training data have {training.num_classes} classes, the test data {test.num_classes}, or others: "
            "give the same"
        )
