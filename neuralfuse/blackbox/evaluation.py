"""Accuracy of black boxes, without and with a generator in front."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from faultsim.chip_statistics import Statistics, compute_improvement
from faultsim.errors import FaultsimError
from faultsim.evaluation import Evaluation

from ..generators import NeuralFuse
from .box import BlackBox


@dataclass(frozen=True)
class Restricted:
    """Right answers of each black box; `fused` is None where there is no generator."""

    alone: Evaluation
    fused: Evaluation | None = None

    @property
    def improvement(self) -> Statistics | None:
        """Box by box, so that its interval is that of the difference."""
        return None if self.fused is None else compute_improvement(self.alone, self.fused)


def evaluate_restricted(
    boxes: Sequence[BlackBox], data: Iterable[tuple[Tensor, Tensor]], fuse: NeuralFuse | None = None
) -> Restricted:
    """Accuracy of each black box (say, one for each chip) on `data`, alone and behind `fuse`.

    data  batches (images float32 [B, C, H, W] in [-1, 1], labels int64 [B]) on the device of the generator
    fuse  runs here, once a batch, in evaluation mode and without gradients; the boxes get its output as NumPy arrays

    Raises FaultsimError for no boxes, no images, and for whatever the boxes raise.
    """
    if not boxes:
        raise FaultsimError("no black box to evaluate: give at least one")
    ways = [None] if fuse is None else [None, fuse.eval()]
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
