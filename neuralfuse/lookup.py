"""A generator without a decoder: class patterns are looked up instead of drawn.

A generator that was trained in stages draws the class pattern of the class that it recognizes, not quite as it was
found. A classifier of the generator's size and the table of patterns add the pattern itself, with fewer weights; they
are what the first two stages find.
"""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from energy.saving import count_weight_accesses
from faultsim.errors import FaultsimError
from faultsim.sram import WORD_BYTES
from faultsim.studies.cascade import measure_confidence

from . import generators
from .classifier import Classifier

LOOKUP = "lookup"
"""What the metadata of a weight file name as its generator."""
_LARGEST = 1 << 24  # numbers in a table: a file that names more does not have them


class PatternLookup(nn.Module):
    """G(x) = pattern of the class that a classifier recognizes in x, or 0 where it is not confident.

    `NeuralFuse(PatternLookup(...))` adds it to the image.

    Parameters
    ----------
    encoder
        Generator whose encoder the classifier has, one of generators.KNOWN.
    classes
        How many patterns there are.
    shape
        (3, H, W) of the images.
    confidence
        Where the classifier's largest probability is less, the image stays as it is, and the base model decides. 0:
        nowhere.

    Raises
    ------
    FaultsimError
        For values out of range.
    """

    def __init__(self, encoder: str, classes: int, shape: Sequence[int], confidence: float = 0.0) -> None:
        super().__init__()
        generators.check_generator_size(encoder, tuple(shape))
        if not 0 <= confidence <= 1:
            raise FaultsimError(f"confidence {confidence}: it is a probability, 0 to 1")
        if not 1 <= classes <= _LARGEST // (shape[0] * shape[1] * shape[2]):
            raise FaultsimError(f"a table of {classes} patterns {list(shape)}")
        self.encoder, self.confidence = encoder, confidence
        self.classifier = Classifier(generators.create(encoder), classes)
        self.patterns = nn.Parameter(torch.zeros(classes, *shape))
        """In [-1, 1]; int8 in a memory."""

    @classmethod
    def join(cls, encoder: str, classifier: Classifier, patterns: Tensor, confidence: float = 0.0) -> Self:
        """Put a classifier and its patterns together, for inference; the patterns are rounded to int8.

        Parameters
        ----------
        encoder, confidence
            As above.
        classifier
            As the first stage of staged training returns it, or as read_classifier reads it.
        patterns
            float32 [classes, 3, H, W] in [-1, 1].
        """
        network = cls(encoder, len(patterns), patterns.shape[1:], confidence)
        with torch.no_grad():
            network.classifier.load_state_dict(classifier.state_dict())
            network.patterns.copy_(torch.round(patterns * 127) / 127)
        return network.requires_grad_(False).eval()

    @property
    def name(self) -> str:
        """Its name in tables."""
        return name_lookup(self.encoder) + (f"@{self.confidence:g}" if self.confidence else "")

    def describe(self) -> dict[str, Any]:
        """Return its arguments, JSON values."""
        classes, *shape = self.patterns.shape
        return {"encoder": self.encoder, "classes": classes, "shape": shape, "confidence": self.confidence}

    def forward(self, x: Tensor) -> Tensor:
        """Map images [B, 3, H, W] in [-1, 1] to patterns of the same shape."""
        logits = self.classifier(x)
        found = self.patterns[logits.argmax(1)]
        if self.confidence == 0:
            return found
        sure = measure_confidence(logits) >= self.confidence
        return torch.where(sure[:, None, None, None], found, torch.zeros_like(found))

    def count_accesses(self) -> int:
        """Count the weight memory accesses of one image: those of the classifier, and one pattern."""
        shape = tuple(self.patterns.shape[1:])
        return count_weight_accesses(self.classifier, shape) - (-self.patterns[0].numel() // WORD_BYTES)


def name_lookup(encoder: str) -> str:
    """Name a look-up with a generator's encoder, which adds a pattern to every image."""
    return f"{LOOKUP} {encoder}"


def read_lookup(described: Any, path: object) -> PatternLookup:
    """Make a look-up with blank patterns from what a file's metadata say. Raises FaultsimError for anything else."""
    try:
        encoder, classes, shape, confidence = (
            described[name] for name in ("encoder", "classes", "shape", "confidence")
        )
        if encoder not in generators.KNOWN or len(shape) != 3:
            raise ValueError
        if not all(type(size) is int and size > 0 for size in (classes, *shape)):
            raise ValueError
        return PatternLookup(encoder, classes, shape, float(confidence))
    except (KeyError, TypeError, ValueError):
        raise FaultsimError(
            f"{path} describes no look-up: encoder, classes, shape and confidence are needed"
        ) from None


def create_untrained(**described: Any) -> generators.NeuralFuse:
    """Make the module that stands in front of a base model, from describe(), with any weights."""
    return generators.NeuralFuse(PatternLookup(**described))
