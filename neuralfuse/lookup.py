"""Patterns that are looked up instead of drawn: a generator without a decoder.

A generator that was trained in stages draws the class pattern of the class that it recognizes, not quite as it was
found. A classifier of the generator's size and the table of patterns add the pattern itself, with fewer weights.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from faultsim.errors import FaultsimError
from faultsim.network.architecture import Architecture
from faultsim.studies.cascade import measure_confidence


class PatternLookup(nn.Module):
    """F(x) = clamp(x + pattern of the class that a classifier recognizes, -1, 1).

    Parameters
    ----------
    classifier
        Maps images [B, 3, H, W] in [-1, 1] to logits [B, classes].
    patterns
        float32 [classes, 3, H, W] in [-1, 1]. They are rounded to int8, as they lie in a memory.
    confidence
        Where the classifier is less confident, F(x) = x, and the base model decides. 0: nowhere.

    Raises
    ------
    FaultsimError
        For a confidence out of range.
    """

    patterns: Tensor

    def __init__(self, classifier: nn.Module, patterns: Tensor, confidence: float = 0.0) -> None:
        super().__init__()
        if not 0 <= confidence <= 1:
            raise FaultsimError(f"confidence {confidence}: it is a probability, 0 to 1")
        self.classifier, self.confidence = classifier, confidence
        self.register_buffer("patterns", torch.round(patterns * 127) / 127)

    def forward(self, x: Tensor) -> Tensor:
        """Return images [B, 3, H, W] in [-1, 1]."""
        logits = self.classifier(x)
        fused = torch.clamp(x + self.patterns[logits.argmax(1)], -1.0, 1.0)
        if self.confidence == 0:
            return fused
        sure = measure_confidence(logits) >= self.confidence
        return torch.where(sure[:, None, None, None], fused, x)


def create_untrained(classifier: Mapping[str, Any], shape: Sequence[int], confidence: float) -> PatternLookup:
    """Make a look-up with any weights and blank patterns.

    Parameters
    ----------
    classifier
        Fields of the classifier's Architecture.
    shape
        Of the patterns: (classes, 3, H, W).
    confidence
        As for PatternLookup.
    """
    return PatternLookup(Architecture(**classifier).build(), torch.zeros(*shape), confidence)
