"""Class patterns: for each class one pattern that makes perturbed models predict this class for any image.

They are targeted universal perturbations (Moosavi-Dezfooli et al., CVPR 2017), found by expectation over perturbed
models, so that they work on unseen chips. A generator that draws the pattern of an image's class protects the images
whose class it knows, if the pattern works: the success of the patterns bounds the accuracy of the generator.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from faultsim.checkpoint import read_file
from faultsim.data import Dataset, normalize
from faultsim.errors import FaultsimError
from faultsim.evaluation import Evaluation, evaluate
from faultsim.faults import Chip, FaultModel
from faultsim.io.files import write_atomically
from faultsim.stored import StoredWeights

LIMIT = 1.0
"""Patterns are in [-LIMIT, LIMIT], the range of a generator that ends in tanh."""


class ClassPatterns(nn.Module):
    """One additive pattern per class: the base model sees clamp(x + pattern, -1, 1).

    Parameters
    ----------
    classes
        Number of patterns.
    shape
        (3, H, W) of the images.
    coarseness
        Side of the square of image pixels that one pattern pixel covers, with bilinear interpolation: the resolution
        that a generator can draw (see generators.coarseness).

    Raises
    ------
    FaultsimError
        If the shape is not divisible by the coarseness.
    """

    def __init__(self, classes: int, shape: Sequence[int], coarseness: int = 1) -> None:
        super().__init__()
        channels, height, width = shape
        if coarseness < 1 or height % coarseness or width % coarseness:
            raise FaultsimError(
                f"patterns for images of {height}x{width} cannot have coarseness {coarseness}"
            )
        self.shape, self.coarseness = (channels, height, width), coarseness
        self.values = nn.Parameter(torch.zeros(classes, channels, height // coarseness, width // coarseness))

    def drawn(self) -> Tensor:
        """Return all patterns at the size of the images: float32 [classes, 3, H, W] in [-LIMIT, LIMIT]."""
        if self.coarseness == 1:
            return self.values
        return functional.interpolate(self.values, self.shape[1:], mode="bilinear")

    def forward(self, x: Tensor, classes: Tensor) -> Tensor:
        """Add the patterns of `classes`, int64 [B], to images [B, 3, H, W] in [-1, 1]; same shape and range."""
        return torch.clamp(x + self.drawn()[classes], -1.0, 1.0)

    @torch.no_grad()
    def clamp(self) -> None:
        """Clamp the patterns to their range, after a step of an optimizer."""
        self.values.clamp_(-LIMIT, LIMIT)


@dataclass(frozen=True)
class Success:
    """How often perturbed models predict the class of the pattern on an image of any class; fractions."""

    chips: Evaluation
    """On each chip, over images and classes."""
    classes: tuple[float, ...]
    """Of each class, over images and chips."""

    def describe(self) -> dict:
        """Return JSON values, for metadata and results."""
        return {
            "mean": self.chips.mean,
            "worst_chip": self.chips.worst,
            "worst_class": min(self.classes),
            "chips": len(self.chips.correct),
            "answers": self.chips.images * len(self.chips.correct),
        }


def measure_success(
    patterns: Tensor,
    model: nn.Module,
    stored: StoredWeights,
    data: Dataset,
    chips: Sequence[Chip],
    *,
    bit_error_rate: float,
    faults: FaultModel,
    images: int = 20,
) -> Success:
    """Measure how often a perturbed model predicts the class of a pattern on any image.

    Parameters
    ----------
    patterns
        float32 [classes, 3, H, W].
    model, stored
        Base model and its int8 weights.
    data
        Test images of any class; the first `images` of them are used.
    chips, bit_error_rate, faults
        As for faultsim.evaluate.
    images
        Number of images.
    """
    device = stored.layers[0].values.device
    under = normalize(data.images[:images].to(device))
    counts = []
    for index, pattern in enumerate(patterns.detach().to(device)):
        batch = torch.clamp(under + pattern, -1.0, 1.0), torch.full([len(under)], index, device=device)
        found = evaluate(model, [batch], chips, bit_error_rate=bit_error_rate, faults=faults, stored=stored)
        counts.append(found.correct)
    correct = tuple(sum(column) for column in zip(*counts, strict=True))
    of_class = tuple(sum(row) / (len(under) * len(chips)) for row in counts)
    return Success(Evaluation(correct, len(under) * len(counts)), of_class)


def compute_pattern_fingerprint(patterns: Tensor) -> str:
    """Compute the SHA-256 (hex) of float32 patterns."""
    return hashlib.sha256(patterns.detach().cpu().contiguous().numpy().tobytes()).hexdigest()


def save_patterns(path: str | Path, patterns: Tensor, metadata: dict) -> None:
    """Write patterns, float32 [classes, 3, H, W], and JSON values to a safetensors file, atomically."""
    from safetensors.torch import save

    header = {"faultsim": json.dumps(metadata, sort_keys=True)}
    data = save({"patterns": patterns.cpu().contiguous()}, header)
    write_atomically(path, lambda temporary: temporary.write_bytes(data))


def load_patterns(path: str | Path) -> tuple[Tensor, dict]:
    """Read what save_patterns() wrote: patterns and metadata. Raises FaultsimError for another file."""
    tensors, metadata = read_file(path)
    patterns = tensors.get("patterns")
    if len(tensors) != 1 or patterns is None or patterns.dtype != torch.float32 or patterns.dim() != 4:
        raise FaultsimError(f"{path} holds no class patterns: train-generator --trainer staged writes them")
    return patterns, metadata
