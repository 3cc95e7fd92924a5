"""What is measured: a model with its weights as stored, and test data that fits it."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from os import PathLike
from typing import Any, Self

import torch
from torch import nn

from .. import bundled, models
from ..activations.ranges import ActivationRanges, At, calibrate
from ..checkpoint import compute_fingerprint, load_weights, read_file
from ..data import Dataset, OwnBatches, iterate_batches
from ..data.sources import OwnData, describe_pictures, load_own, load_test_images
from ..errors import FaultsimError
from ..formats import INT8, AnyFormat, Format
from ..inference.passes import check_compute
from ..io.bounds import are_integers
from ..metrics.metric import ACCURACY, AnyMetric, Metric, find_metric
from ..models.key_value_cache import add_cache_layers
from ..network.architecture import Architecture
from ..network.batch import count_samples, find_answer, try_model
from ..network.inventory import Select
from ..stored import StoredWeights

AnyPath = str | PathLike[str]
ACTIVATIONS = ("input", "output", "cache")
"""What Subject.calibrate knows: inputs or outputs of the layers that hold weights, or keys and values of attention."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A model in evaluation mode, its weights as stored, and test data, all on one device."""

    name: str
    model: nn.Module
    stored: StoredWeights
    dataset: Dataset | OwnBatches
    batch_size: int = 256
    """Images of one batch of a Dataset; OwnBatches keep their own sizes."""
    per_channel: bool = False
    """Whether each output channel of a float weight got an int8 scale of its own."""
    trained: dict[str, Any] = field(default_factory=dict)
    """Metadata of the weight file; empty for weights without a file."""
    select: Select = None
    """Which tensors lie in the faulty memory, as for StoredWeights.of."""
    compute: str = "float32"
    """What the model computes in where it is measured, as for faultsim.evaluate."""

    @cached_property
    def data(self) -> list[tuple[Any, Any]]:
        """Batches (inputs, targets), normalized and on the device."""
        if isinstance(self.dataset, OwnBatches):
            return self.dataset.batches
        return list(iterate_batches(self.dataset, self.batch_size, device=self.dataset.images.device))

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.stored.layers[0].values.device

    @property
    def title(self) -> str:
        """One line: the model, and how many samples of which data."""
        what = "samples" if isinstance(self.dataset, OwnBatches) else "images"
        return f"{self.name} on {len(self.dataset):,} {self.dataset.name} {what}"

    @cached_property
    def accesses(self) -> int | None:
        """Weight memory accesses of one inference on the paper's accelerator; None where they cannot be counted."""
        return count_accesses(self.model, self.dataset, self.stored.format)

    @cached_property
    def uncounted(self) -> list[str]:
        """Names of the tensors in the faulty memory that `accesses` leaves out."""
        from energy.trace import trace_model

        traced = trace_model(self.model, self.dataset.shape_or_example)
        return traced.uncounted(layer.tensors for layer in self.stored.layers)

    @property
    def network(self) -> dict[str, Any]:
        """The model in a run's configuration: its name, and a fingerprint of all that it computes with."""
        return {
            "model": self.name,
            "weights": compute_fingerprint(self.model, self.stored),
            "trained": self.trained,
            "per_channel": self.per_channel,
            **({"select": self.select} if self.select else {}),
            **({} if self.stored.format == INT8 else {"format": self.stored.format.name}),
        }

    @property
    def architecture(self) -> Architecture:
        """What makes the model anew."""
        classes = self.trained.get("num_classes", getattr(self.dataset, "num_classes", 10))
        return Architecture("faultsim.models:resolve", {"spec": self.name, "num_classes": classes})

    @property
    def configuration(self) -> dict[str, Any]:
        """All that the accuracy without bit errors depends on, as JSON values."""
        return {
            **self.network,
            "dataset": self.dataset.name,
            "images": len(self.dataset),
            "images_fingerprint": self.dataset.fingerprint,
            "batch_size": None if isinstance(self.dataset, OwnBatches) else self.batch_size,
            **describe_pictures(self.dataset),
            **({} if self.compute == "float32" else {"compute": self.compute}),
        }

    def calibrate(self, samples: int = 256, what: str = "input") -> ActivationRanges:
        """Find the ranges of activations on the first samples (whole batches).

        Parameters
        ----------
        samples
            How many, at least.
        what
            "input" or "output" of the layers that hold weights; "cache": keys and values of a language model, whose
            attention gets layers for them (faultsim.models.key_value_cache).
        """
        if what not in ACTIVATIONS:
            raise FaultsimError(f"unknown activations {what!r}: they can be {', '.join(ACTIVATIONS)}")
        found, seen = [], 0
        for inputs, targets in self.data:
            if seen < samples:
                found.append((inputs, targets))
                seen += count_samples(inputs, targets)
        if what == "cache":
            return calibrate(self.model, found, at="output", select=add_cache_layers(self.model))
        holders = {name for layer in self.stored.layers for name in layer.names}
        at: At = "output" if what == "output" else "input"
        return calibrate(self.model, found, at=at, select=lambda name, module: name in holders)

    def check(self, metric: AnyMetric | None = ACCURACY) -> Self:
        """Check that the model takes the data and that the metric takes the model's answers.

        Parameters
        ----------
        metric : metric or None
            What will be measured, as for faultsim.evaluate; None: the model only has to run.

        Returns
        -------
        Subject
            This one.

        Raises
        ------
        FaultsimError
            Where something does not fit.
        """
        metric = None if metric is None else find_metric(metric)
        inputs, targets = self.data[0]
        if isinstance(self.dataset, Dataset):
            inputs, targets = inputs[:2], targets[:2]
            if metric == ACCURACY:
                count_classes(self.name, self.model, inputs, self.dataset.num_classes, self.dataset.name)
                return self
        answer = try_model(self.name, self.model, inputs)
        if metric is not None:
            metric.begin().update(answer, targets)
        return self


def load_subject(
    model: str | None = None,
    weights: AnyPath | None = None,
    dataset: str | None = None,
    data_dir: AnyPath | None = None,
    device: torch.device | str = "cpu",
    images: int | None = None,
    batch_size: int = 256,
    per_channel: bool = False,
    *,
    select: Select = None,
    format: AnyFormat | None = None,
    own: OwnData | None = None,
    metric: Metric | None = ACCURACY,
    compute: str = "float32",
) -> Subject:
    """Load a model, its weights and test data, and check that they fit each other.

    Parameters
    ----------
    model : str, optional
        One of faultsim.models.NAMES, package.module:function or transformers:FOLDER; default: the model that the weight
        file names, or else the bundled one.
    weights : path, optional
        safetensors file; default: the bundled weights of a bundled model, or the weights that the user's function
        returns.
    dataset, data_dir
        Test images, as for load_test_images; default: those that the weight file names.
    device : torch.device or str
        Where the model and the data are.
    images : int, optional
        Only the first so many samples.
    batch_size : int
        Images of one batch.
    per_channel, select
        How float weights are quantized, and which tensors lie in the memory, as for StoredWeights.of.
    format : Format or str, optional
        What a stored weight is; default: what the weight file says, or else int8.
    own : OwnData, optional
        Data of the user's own, instead of `dataset`.
    metric : Metric, optional
        What will be measured; None: the model only has to run.
    compute : str
        What the model computes in where it is measured, as for faultsim.evaluate.

    Returns
    -------
    Subject

    Raises
    ------
    FaultsimError
        For what does not exist, and where model, data and metric do not fit.
    """
    check_compute(compute)
    model, weights, trained = find_model(model, weights)
    if own is None:
        test: Dataset | OwnBatches = load_test_images(dataset or trained.get("dataset"), data_dir, images)
    else:
        test = load_own(own, images, trained, model)
    classes = trained.get("num_classes", getattr(test, "num_classes", 10))
    network, stored, loaded = load_model(model, weights, classes, device, per_channel, select, format)
    subject = Subject(
        model, network, stored, test.to(device), batch_size, per_channel, loaded, select, compute
    )
    return subject.check(metric)


def find_model(model: str | None, weights: AnyPath | None) -> tuple[str, AnyPath | None, dict[str, Any]]:
    """Find a model's name, its weight file and the file's metadata, from the two that the user may give.

    With neither they are those of the bundled model, with a bundled model's name its bundled weights.

    Raises
    ------
    FaultsimError
        For a name that is not known, a file that names no model, and an untrained model of faultsim's own.
    """
    if weights is None:
        model = model or bundled.MODEL
        weights = bundled.MODELS.get(model)
    tensors, trained = read_file(weights) if weights is not None else ({}, {})
    model = model or _registered(trained.get("model"))
    if model is None:
        raise FaultsimError(f"{weights} does not name its model: add --model NAME or package.module:function")
    if ":" not in model and model not in models.NAMES:
        raise models.explain_unknown(model)
    classes = trained.get("num_classes", 1)
    # a model for that many classes takes no more memory than the file
    sizes = {len(values) for values in tensors.values() if values.dim()} | {1}
    if not are_integers([classes], 1, 2**31) or (":" not in model and classes not in sizes):
        raise FaultsimError(f"{weights} says that it has {classes!r} classes: it has no weights for so many")
    if weights is None and ":" not in model:
        raise FaultsimError(f"{model} would be untrained: add --weights FILE.safetensors")
    return model, weights, trained


def load_model(
    model: str,
    weights: AnyPath | None,
    classes: int,
    device: torch.device | str = "cpu",
    per_channel: bool = False,
    select: Select = None,
    format: AnyFormat | None = None,
) -> tuple[nn.Module, StoredWeights, dict[str, Any]]:
    """Load a model in evaluation mode, its weights as stored, and their metadata.

    `model`, `weights` as find_model returns them; `classes` is the number of outputs of a model of faultsim's own.
    """
    network = models.resolve(model, classes).to(device).eval()
    if weights is None:
        return network, StoredWeights.of(network, per_channel, select, format or INT8), {}
    return network, *load_weights(network, weights, per_channel=per_channel, select=select, format=format)


def count_accesses(model: nn.Module, data: Dataset | OwnBatches, stored: Format = INT8) -> int | None:
    """Count the weight memory accesses of one inference on the paper's accelerator; None where that is not possible.

    An access reads a 64-bit word, and a word holds as many weights as the format says.
    """
    from energy.accelerator import PAPER
    from energy.errors import EnergyError
    from energy.saving import count_weight_accesses

    try:
        accelerator = replace(PAPER, weight_bits=stored.cells)
        return count_weight_accesses(model, data.shape_or_example, accelerator)
    except EnergyError:
        return None


def count_classes(
    name: str,
    model: nn.Module,
    inputs: torch.Tensor,
    needed: int | None = None,
    dataset: str = "a classifier",
) -> int:
    """Count the logits of a model.

    Parameters
    ----------
    name : str
        Of the model, for messages.
    model : nn.Module
        In evaluation mode.
    inputs : Tensor [B, ...]
        A small batch.
    needed : int, optional
        How many logits there must be.
    dataset : str
        What needs them, for messages.

    Returns
    -------
    int
        Logits for each image.

    Raises
    ------
    FaultsimError
        If the model fails, or returns anything but logits [B, needed].
    """
    try:
        with torch.inference_mode():
            logits = find_answer(model(inputs))
    except Exception as error:  # a user's model may fail in any way
        message = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FaultsimError(f"{name} fails on images {list(inputs.shape)}: {message}") from error
    shape, count = tuple(getattr(logits, "shape", ())), len(inputs)
    if len(shape) != 2 or shape[0] != count or shape[1] < 1 or shape[1] != (needed or shape[1]):
        raise FaultsimError(
            f"{name} returns {list(shape)} for {count} images; {dataset} needs logits "
            f"[{count}, {needed or 'classes'}]"
        )
    return int(shape[1])


def _registered(name: object) -> str | None:
    """Return a model that a weight file names, only if it is one of ours: a file must not choose which code runs."""
    return name if name in models.NAMES else None
