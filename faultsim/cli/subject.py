"""What a command measures: a model with its weights, and images."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from energy.errors import EnergyError
from energy.saving import weight_memory
from energy.trace import POLICIES
from neuralfuse import generators

from .. import embedded, models
from ..bounds import integers
from ..checkpoint import load_weights, read_file
from ..data import Dataset, batches, load
from ..errors import FaultsimError
from ..stored import StoredWeights
from ..sweep import Variant


@dataclass(frozen=True, eq=False)
class Subject:
    """A model in evaluation mode, its weights as stored, and test images, all on one device."""

    name: str
    model: nn.Module
    stored: StoredWeights
    dataset: Dataset
    batch_size: int
    per_channel: bool
    trained: dict[str, Any]  #: metadata of the weight file

    @cached_property
    def data(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Batches of normalised images and labels, made once."""
        return list(batches(self.dataset, self.batch_size, device=self.dataset.images.device))

    @property
    def title(self) -> str:
        return f"{self.name} on {len(self.dataset):,} {self.dataset.name} images"

    @property
    def accesses(self) -> int | None:
        """Weight memory accesses of one inference on the paper's accelerator; None where they can't be counted."""
        try:
            return weight_memory(self.model, tuple(self.dataset.images.shape[1:]))
        except EnergyError:
            return None

    @property
    def network(self) -> dict[str, Any]:
        """Which model this is."""
        return {
            "model": self.name,
            "weights": fingerprint(self.model, self.stored),
            "trained": self.trained,
            "per_channel": self.per_channel,
        }

    @property
    def configuration(self) -> dict[str, Any]:
        """What the accuracy depends on."""
        return {
            **self.network,
            "dataset": self.dataset.name,
            "images": len(self.dataset),
            "images_fingerprint": self.dataset.fingerprint,
            "batch_size": self.batch_size,
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
) -> Subject:
    """From the words of the command line; without model and weights the embedded ones. FaultsimError for what doesn't
    exist or doesn't fit."""
    model, weights, trained = which_model(model, weights)
    test = load_images(dataset or trained.get("dataset"), data_dir, images)
    classes = trained.get("num_classes", test.num_classes)
    network, stored, loaded = load_model(model, weights, classes, device, per_channel)
    subject = Subject(model, network, stored, test.to(device), batch_size, per_channel, loaded)
    # a model that doesn't fit the images is refused before anything is written
    count_classes(model, network, subject.data[0][0][:2], test.num_classes, test.name)
    return subject


def load_images(dataset: object, data_dir: Path | None, images: int | None) -> Dataset:
    """The test images of a data set, or the first `images` of them, on the CPU."""
    if not isinstance(dataset, str):
        raise FaultsimError("which images? add --dataset digits, cifar10, cifar100 or gtsrb")
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
    embedded ones."""
    if model is None and weights is None:
        model, weights = embedded.MODEL, embedded.WEIGHTS
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
    model: str, weights: Path | None, classes: int, device: torch.device, per_channel: bool = False
) -> tuple[nn.Module, StoredWeights, dict[str, Any]]:
    """The model in evaluation mode on `device`, its weights as stored, and their metadata."""
    network = models.resolve(model, classes).to(device).eval()
    if weights is None:
        return network, StoredWeights.of(network, per_channel), {}
    return network, *load_weights(network, weights, per_channel=per_channel)


def read_generator(path: Path) -> tuple[str, nn.Module, StoredWeights, dict[str, Any]]:
    """Name, network on the CPU, weights as stored, and metadata of a generator's weight file; FaultsimError for a file
    that is none."""
    trained = read_file(path)[1]
    name = trained.get("generator")
    if not isinstance(name, str) or name not in generators.KNOWN:
        raise FaultsimError(
            f"{path} holds no generator: its metadata must name one of {', '.join(generators.KNOWN)}"
        )
    network = generators.create(name)
    stored, _ = load_weights(network, path)
    return name, network, stored, trained


def load_generator(path: Path, device: torch.device, image_shape: tuple[int, ...]) -> tuple[Variant, str]:
    """The variant of a sweep with a NeuralFuse generator in front, from its weight file (which names its architecture),
    and a fingerprint of what it computes with. FaultsimError for a file that is no generator's."""
    name, network, stored, _ = read_generator(path)
    accesses = weight_memory(network, image_shape, policy=POLICIES["paper-generator"])
    fuse = generators.NeuralFuse(network).to(device).eval()
    return Variant(f"with {name}", fuse, accesses), fingerprint(network, stored)


def _registered(name: object) -> str | None:
    """A model that a weight file names, only if it is one of ours: a file must not choose which code runs."""
    return name if name in models.NAMES else None


def count_classes(
    name: str, model: nn.Module, inputs: torch.Tensor, needed: int = 1, dataset: str = "a classifier"
) -> int:
    """How many logits the model has for each image of a small batch. FaultsimError when it fails, or gives something
    else than the logits of `needed` classes or more."""
    try:
        with torch.inference_mode():
            logits = model(inputs)
    except Exception as error:  # a user's model may fail in any way
        message = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FaultsimError(f"{name} fails on images {list(inputs.shape)}: {message}") from error
    shape, count = tuple(getattr(logits, "shape", ())), len(inputs)
    if len(shape) != 2 or shape[0] != count or shape[1] < needed:
        raise FaultsimError(
            f"{name} answers {list(shape)} to {count} images; logits [{count}, {needed}] are needed for {dataset}"
        )
    return shape[1]


def fingerprint(model: nn.Module, stored: StoredWeights) -> str:
    """SHA-256 of everything the model computes with."""
    digest = hashlib.sha256()
    tensors = [*model.state_dict().values()]
    tensors += [tensor for layer in stored.layers for tensor in (layer.values, layer.scale)]
    for tensor in tensors:
        dense = tensor.detach().cpu().contiguous()
        digest.update(f"{dense.dtype}{list(dense.shape)}".encode())
        digest.update(dense.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
