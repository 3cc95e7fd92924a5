"""A little network first: the model is asked only where the little one doubts.

The idea is that of Park et al., "Big/little deep neural network for ultra low power inference", CODES+ISSS 2015
(doi:10.1109/CODESISSS.2015.7331375). Here the little network is read at Vmin, and the big one at low voltage.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from functools import cache
from os import PathLike
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .. import models
from ..checkpoint import compute_fingerprint, read_file
from ..errors import FaultsimError
from ..network.architecture import Architecture
from ..stored import StoredWeights
from .entries import Entry, Setting
from .subject import find_model, load_model
from .sweep_result import OperatingPoint, Variant

CONFIDENCE = 0.7
"""Default of a cascade."""


class Cascade(nn.Module):
    """Logits of a little network where it is confident, else those of a big one.

    Both run on all images, so that shapes do not depend on the images. Hardware runs the big one only on those where it
    is asked; `measure_share` says how many that are.

    Parameters
    ----------
    little, big
        Map images to logits [B, classes].
    confidence
        Smallest confidence (largest probability) at which the little network's answer counts: above 0, at most 1.

    Raises
    ------
    FaultsimError
        For a confidence out of range.
    """

    def __init__(self, little: nn.Module, big: nn.Module, confidence: float = CONFIDENCE) -> None:
        super().__init__()
        if not 0 < confidence <= 1:
            raise FaultsimError(f"confidence {confidence}: it is a probability above 0 and at most 1")
        self.little, self.big, self.confidence = little, big, confidence
        self.train(big.training)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [B, classes]."""
        logits = self.little(x)
        sure = measure_confidence(logits) >= self.confidence
        return torch.where(sure[:, None], logits, self.big(x))


def measure_confidence(logits: Tensor) -> Tensor:
    """Return the largest probability of each row of logits [B, classes]: float32 [B]."""
    return logits.float().softmax(1).amax(1)


def measure_share(little: nn.Module, data: Iterable[tuple[Tensor, Any]], confidence: float) -> float:
    """Measure the share of images on which a network is less confident.

    Parameters
    ----------
    little
        In evaluation mode.
    data
        Batches (images, labels).
    confidence
        As for Cascade.
    """
    doubtful = images = 0
    with torch.inference_mode():
        for inputs, _ in data:
            doubtful += int((measure_confidence(little(inputs)) < confidence).sum())
            images += len(inputs)
    return doubtful / images


class Little(NamedTuple):
    """The little network of a cascade."""

    name: str
    network: nn.Module
    """In evaluation mode, on the device of the setting's model."""
    stored: StoredWeights
    architecture: Architecture
    """What makes it anew on the workers of a cluster."""


def read_little(path: str | PathLike[str], setting: Setting) -> Little:
    """Read a model of faultsim's as the little network of a cascade.

    Parameters
    ----------
    path
        Weight file that train-base wrote.
    setting
        Its model's classes and data.

    Raises
    ------
    FaultsimError
        For a file that is damaged or names no model of faultsim's.
    """
    if read_file(path)[1].get("model") not in models.NAMES:
        raise FaultsimError(f"{path} names no model of faultsim's: train-base writes such files")
    name, _, trained = find_model(None, path)
    classes = trained.get("num_classes", getattr(setting.subject.dataset, "num_classes", 10))
    network, stored, _ = load_model(name, path, classes, setting.subject.device)
    architecture = Architecture("faultsim.models:resolve", {"spec": name, "num_classes": classes})
    return Little(name, network, stored, architecture)


def ask_first(
    path: str | PathLike[str],
    confidence: float = CONFIDENCE,
    name: str | None = None,
    *,
    read: Callable[[str | PathLike[str], Setting], Little] = read_little,
) -> Entry:
    """Make the entry of a cascade: a little network at Vmin answers where it is confident, and else the model.

    Its energy is that of the little network, and the model's for the share of the images on which it is asked.

    Parameters
    ----------
    path
        Weight file of the little network.
    confidence
        As for Cascade.
    name
        In tables. Default: cascade, the little network's name, @ and the confidence.
    read
        Reads the file.

    Raises
    ------
    FaultsimError
        When called, for a file that does not fit the data, and a confidence out of range.
    """

    def create_variant(setting: Setting) -> Variant:
        subject, little = setting.subject, read(path, setting)
        replace(subject, name=str(path), model=little.network, stored=little.stored).check()
        model = Cascade(little.network, subject.model, confidence)
        first = setting.count_energy(little.network, little.stored, at_vmin=True)
        second = setting.count_energy()

        @cache
        def find_share() -> float:
            return measure_share(little.network, subject.data, confidence)

        def energy(point: OperatingPoint) -> float | None:
            always, sometimes = first(point), second(point)
            return None if always is None or sometimes is None else always + find_share() * sometimes

        networks = {"little": asdict(little.architecture), "big": asdict(subject.architecture)}
        return Variant(
            name or f"cascade {little.name}@{confidence:g}",
            fingerprint=f"{compute_fingerprint(little.network, little.stored)} {confidence!r}",
            model=model,
            stored=subject.stored,
            energy=energy,
            architecture=Architecture(
                "faultsim.studies.cascade:create_untrained", {**networks, "confidence": confidence}
            ),
        )

    return create_variant


def create_untrained(little: Mapping[str, Any], big: Mapping[str, Any], confidence: float) -> Cascade:
    """Make a cascade with any weights.

    Parameters
    ----------
    little, big
        Fields of the networks' Architectures.
    confidence
        As for Cascade.
    """
    return Cascade(Architecture(**little).build(), Architecture(**big).build(), confidence)


def split_confidence(given: str) -> tuple[str, float | None]:
    """Split FILE@CONFIDENCE, of which both parts can be left out."""
    file, _, number = given.rpartition("@")
    try:
        return file, float(number)
    except ValueError:
        return given, None
