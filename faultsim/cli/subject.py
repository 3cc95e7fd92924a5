"""What a command measures: a model with its weights, and images."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from energy.errors import EnergyError
from energy.saving import weight_memory
from energy.trace import trace_model

from .. import bundled, models
from .. import data as data_sets
from ..batch import answer_of, first_answer
from ..data import Dataset, Normalisation, OwnBatches, batches, load, load_folder
from ..data.dataset import SIDE
from ..errors import FaultsimError
from ..inventory import Select
from ..io.bounds import integers
from ..io.checkpoint import compute_fingerprint, load_weights, read_file
from ..metrics import ACCURACY, Metric
from ..stored import StoredWeights
from .own_data import OwnData


@dataclass(frozen=True, eq=False)
class Subject:
    """A model in evaluation mode, its weights as stored, and test images, all on one device."""

    name: str
    model: nn.Module
    stored: StoredWeights
    dataset: Dataset | OwnBatches
    batch_size: int  #: of a Dataset
    per_channel: bool
    trained: dict[str, Any]  #: metadata of the weight file
    select: Select = None  #: which tensors lie in the memory

    @cached_property
    def data(self) -> list[tuple[Any, Any]]:
        """Batches of normalised images and labels, made once; or the user's own."""
        if isinstance(self.dataset, OwnBatches):
            return self.dataset.batches
        return list(batches(self.dataset, self.batch_size, device=self.dataset.images.device))

    @property
    def title(self) -> str:
        what = "samples" if isinstance(self.dataset, OwnBatches) else "images"
        return f"{self.name} on {len(self.dataset):,} {self.dataset.name} {what}"

    @property
    def accesses(self) -> int | None:
        """Weight memory accesses of one inference on the paper's accelerator; None where they can't be counted."""
        try:
            return weight_memory(self.model, self.dataset.input_shape or self.dataset.example)
        except EnergyError:
            return None

    @cached_property
    def uncounted(self) -> list[str]:
        """Tensors in the faulty memory that `accesses` leaves out."""
        traced = trace_model(self.model, self.dataset.input_shape or self.dataset.example)
        return traced.uncounted(layer.tensors for layer in self.stored.layers)

    @property
    def network(self) -> dict[str, Any]:
        """Which model this is."""
        return {
            "model": self.name,
            "weights": compute_fingerprint(self.model, self.stored),
            "trained": self.trained,
            "per_channel": self.per_channel,
            **({"select": self.select} if self.select else {}),
        }

    @property
    def configuration(self) -> dict[str, Any]:
        """What the accuracy depends on."""
        return {
            **self.network,
            "dataset": self.dataset.name,
            "images": len(self.dataset),
            "images_fingerprint": self.dataset.fingerprint,
            "batch_size": None if isinstance(self.dataset, OwnBatches) else self.batch_size,
            **input_facts(self.dataset),
        }


def input_facts(dataset: Dataset | OwnBatches) -> dict[str, Any]:
    """How the pictures of a folder were brought to a model's input; empty for data sets that need no such words."""
    if isinstance(dataset, OwnBatches) or dataset.name in data_sets.NAMES:
        return {}
    return {
        "input_size": list(dataset.input_shape),
        "normalisation": dataset.normalisation and vars(dataset.normalisation),
    }


def load_subject(
    model: str | None,
    weights: Path | None,
    dataset: str | None,
    data_dir: Path | None,
    device: torch.device,
    images: int | None = None,
    batch_size: int = 256,
    per_channel: bool = False,
    *,
    select: Select = None,
    own: OwnData | None = None,
    metric: Metric | None = ACCURACY,
) -> Subject:
    """From the words of the command line; without model and weights the embedded ones. FaultsimError for what doesn't
    exist or doesn't fit: the data to the model, and both to the metric, if there is one."""
    model, weights, trained = which_model(model, weights)
    if own is None:
        test = load_images(dataset or trained.get("dataset"), data_dir, images)
    else:
        test = load_own(own, images, trained)
    classes = trained.get("num_classes", getattr(test, "num_classes", 10))
    network, stored, loaded = load_model(model, weights, classes, device, per_channel, select)
    subject = Subject(model, network, stored, test.to(device), batch_size, per_channel, loaded, select)
    _check_fit(subject, metric)
    return subject


def _check_fit(subject: Subject, metric: Metric | None) -> None:
    """A model that doesn't fit the data or the metric is refused before anything is written."""
    inputs, targets = subject.data[0]
    if isinstance(subject.dataset, Dataset):
        inputs, targets = inputs[:2], targets[:2]
        if metric == ACCURACY:
            count_classes(
                subject.name, subject.model, inputs, subject.dataset.num_classes, subject.dataset.name
            )
            return
    answer = first_answer(subject.name, subject.model, inputs)
    if metric is not None:
        metric.begin().update(answer, targets)


def load_own(
    own: OwnData, images: int | None = None, trained: Mapping[str, Any] | None = None
) -> Dataset | OwnBatches:
    """What --data asks for, or the first `images` of it, on the CPU. Size and normalisation of pictures that aren't
    given are those of the model's training, from its metadata."""
    if not own.is_folder:
        return OwnBatches.load(own.source, images)
    size, known = own.input_size, trained or {}
    if size is None:
        size = _sizes(known.get("input_size")) or (3, SIDE, SIDE)
    facts = known.get("normalisation") if own.mean is None else {"mean": own.mean, "std": own.std}
    return load_folder(own.source, size, _normalisation(facts, size[0]), images)


def _sizes(value: object) -> tuple[int, ...] | None:
    """The size that a weight file's metadata name, if it is one."""
    whole = isinstance(value, list) and len(value) == 3 and all(type(size) is int for size in value)
    return tuple(value) if whole else None


def _normalisation(facts: object, channels: int) -> Normalisation | None:
    if facts is None:
        return None
    try:
        mean, std = (tuple(float(number) for number in facts[name]) for name in ("mean", "std"))
    except (KeyError, TypeError, ValueError):
        raise FaultsimError("the weight file's normalisation can't be read: give --mean and --std") from None
    return Normalisation(*(part * channels if len(part) == 1 else part for part in (mean, std)))


def load_images(dataset: object, data_dir: Path | None, images: int | None) -> Dataset:
    """The test images of a data set, or the first `images` of them, on the CPU."""
    if not isinstance(dataset, str):
        raise FaultsimError(
            "which images? add --dataset digits, cifar10, cifar100 or gtsrb, or your own with --data"
        )
    if dataset not in data_sets.NAMES:
        known = ", ".join(data_sets.NAMES)
        raise FaultsimError(f"unknown data set {dataset!r}; known: {known}; give your own with --data")
    test = load(dataset, "test", data_dir)
    if images is None:
        return test
    if not 1 <= images <= len(test):
        raise FaultsimError(
            f"--images {images}: {dataset} has {len(test)} test images, choose 1 to {len(test)}"
        )
    return test.subset(torch.arange(images))


def which_model(model: str | None, weights: Path | None) -> tuple[str, Path | None, dict[str, Any]]:
    """The model's name, its weight file and the file's metadata, from the words of the command line: without words the
    shipped default, and with a shipped model's name its weights."""
    if weights is None:
        model = model or bundled.MODEL
        weights = bundled.MODELS.get(model)
    tensors, trained = read_file(weights) if weights is not None else ({}, {})
    model = model or _registered(trained.get("model"))
    if model is None:
        raise FaultsimError(
            f"{weights} doesn't say of which model it is: add --model NAME or package.module:function"
        )
    if ":" not in model and model not in models.NAMES:
        raise models.unknown(model)
    classes = trained.get("num_classes", 1)
    # what is made for so many classes takes no more memory than the file
    sizes = {len(values) for values in tensors.values() if values.dim()} | {1}
    if not integers([classes], 1, 2**31) or (":" not in model and classes not in sizes):
        raise FaultsimError(
            f"{weights} says that it has {classes!r} classes: it holds no weights for so many"
        )
    if weights is None and ":" not in model:
        raise FaultsimError(f"an untrained {model} tells nothing: add --weights FILE.safetensors")
    return model, weights, trained


def load_model(
    model: str,
    weights: Path | None,
    classes: int,
    device: torch.device,
    per_channel: bool = False,
    select: Select = None,
) -> tuple[nn.Module, StoredWeights, dict[str, Any]]:
    """The model in evaluation mode on `device`, its weights as stored, and their metadata."""
    network = models.resolve(model, classes).to(device).eval()
    if weights is None:
        return network, StoredWeights.of(network, per_channel, select), {}
    return network, *load_weights(network, weights, per_channel=per_channel, select=select)


def _registered(name: object) -> str | None:
    """A model that a weight file names, only if it is one of ours: a file must not choose which code runs."""
    return name if name in models.NAMES else None


def count_classes(
    name: str,
    model: nn.Module,
    inputs: torch.Tensor,
    needed: int | None = None,
    dataset: str = "a classifier",
) -> int:
    """How many logits the model has for each image of a small batch. FaultsimError when it fails, or gives something
    else than logits, of `needed` classes where that is given."""
    try:
        with torch.inference_mode():
            logits = answer_of(model(inputs))
    except Exception as error:  # a user's model may fail in any way
        message = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FaultsimError(f"{name} fails on images {list(inputs.shape)}: {message}") from error
    shape, count = tuple(getattr(logits, "shape", ())), len(inputs)
    if len(shape) != 2 or shape[0] != count or shape[1] < 1 or shape[1] != (needed or shape[1]):
        raise FaultsimError(
            f"{name} answers {list(shape)} to {count} images; logits [{count}, {needed or 'classes'}] are needed for "
            f"{dataset}"
        )
    return shape[1]
