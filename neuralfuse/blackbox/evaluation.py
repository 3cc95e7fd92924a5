"""Accuracy of black boxes, without and with a generator in front."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from faultsim.errors import FaultsimError
from faultsim.evaluation import Evaluation
from faultsim.studies.chip_statistics import Statistics, compute_improvement

from ..generators import NeuralFuse
from .box import BlackBox


@dataclass(frozen=True)
class Restricted:
    """Accuracy of black boxes; `fused` is None without a generator."""

    alone: Evaluation
    fused: Evaluation | None = None

    @property
    def improvement(self) -> Statistics | None:
        """IP of each box, so that the interval is that of the paired difference."""
        return None if self.fused is None else compute_improvement(self.alone, self.fused)


def evaluate_restricted(
    boxes: Sequence[BlackBox], data: Iterable[tuple[Tensor, Tensor]], generator: NeuralFuse | None = None
) -> Restricted:
    """Evaluate black boxes alone and behind a generator.

    Parameters
    ----------
    boxes
        One or several, for instance one per chip.
    data
        Batches (images float32 [B, C, H, W] in [-1, 1], labels int64 [B]) on the device of the generator.
    generator
        NeuralFuse module. It runs here, once per batch, in evaluation mode; the boxes receive its output as NumPy
        arrays. Default: the boxes alone are evaluated.

    Returns
    -------
    Restricted

    Raises
    ------
    FaultsimError
        If there are no boxes or no images, and for what the boxes raise.
    """
    if not boxes:
        raise FaultsimError("no black box to evaluate: give at least one")
    ways = [None] if generator is None else [None, generator.eval()]
    right = [[0] * len(boxes) for _ in ways]
    images = 0
    for inputs, labels in data:
        images += len(labels)
        truth = labels.cpu().numpy()
        for counts, transform in zip(right, ways, strict=True):
            with torch.no_grad():
                shown = inputs if transform is None else transform(inputs)
            pixels = shown.cpu().numpy()
            for i, box in enumerate(boxes):
                counts[i] += int((box.predict(pixels) == truth).sum())
    if images == 0:
        raise FaultsimError("no images to evaluate on")
    return Restricted(*(Evaluation(tuple(counts), images) for counts in right))
