"""A little classifier first: the base model is asked only where the classifier doubts.

The idea is that of Park et al., "Big/little deep neural network for ultra low power inference", CODES+ISSS 2015
(doi:10.1109/CODESISSS.2015.7331375). Here the little network is a classifier of a generator's size at Vmin, and the
big one the base model at low voltage: what a generator has to know to draw a pattern, used without the pattern.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from faultsim.errors import FaultsimError
from faultsim.network.architecture import Architecture

from .stage_files import create_classifier


class Cascade(nn.Module):
    """Logits of a classifier where it is confident, else those of the base model.

    Both networks run on all images, so that shapes do not depend on the images. Hardware runs the base model only on
    those where it is asked; `measure_share` says how many that are.

    Parameters
    ----------
    classifier
        Maps images to logits [B, classes]. It has no bit errors.
    base
        Maps images to logits [B, classes].
    confidence
        Smallest confidence at which the classifier's answer counts, above 0 and at most 1.

    Raises
    ------
    FaultsimError
        For a confidence out of range.
    """

    def __init__(self, classifier: nn.Module, base: nn.Module, confidence: float) -> None:
        super().__init__()
        if not 0 < confidence <= 1:
            raise FaultsimError(f"confidence {confidence}: it is a probability above 0 and at most 1")
        self.classifier, self.base, self.confidence = classifier, base, confidence
        self.train(base.training)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [B, classes]."""
        logits = self.classifier(x)
        sure = measure_confidence(logits) >= self.confidence
        return torch.where(sure[:, None], logits, self.base(x))


def measure_confidence(logits: Tensor) -> Tensor:
    """Return the largest probability of each row of logits [B, classes]: float32 [B]."""
    return logits.float().softmax(1).amax(1)


def measure_share(classifier: nn.Module, data: Iterable[tuple[Tensor, Any]], confidence: float) -> float:
    """Measure the share of images on which a classifier is less confident.

    Parameters
    ----------
    classifier
        In evaluation mode.
    data
        Batches (images, labels).
    confidence
        As for Cascade.
    """
    doubtful = images = 0
    with torch.inference_mode():
        for inputs, _ in data:
            doubtful += int((measure_confidence(classifier(inputs)) < confidence).sum())
            images += len(inputs)
    return doubtful / images


def create_untrained(architecture: Mapping[str, Any], name: str, classes: int, confidence: float) -> Cascade:
    """Make a cascade with any weights.

    Parameters
    ----------
    architecture
        Fields of the base model's Architecture.
    name, classes
        Of the classifier, as for create_classifier.
    confidence
        As for Cascade.
    """
    base = Architecture(**architecture).build()
    return Cascade(create_classifier(name, classes).train(base.training), base, confidence)
