"""A metric of the user's, in the place of a built-in one."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import FaultsimError, summarize_error
from ..network.batch import describe

if TYPE_CHECKING:
    from .metric import Collector


class MeanOf:
    """A user's function (answers, targets) -> a number of each sample [N], or their mean in one number."""

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        self.function, self.sum, self.count = function, 0.0, 0

    def update(self, answers: Any, targets: Any) -> None:
        """Take in the answers to a batch."""
        found = torch.as_tensor(self.function(answers, targets)).detach()
        samples = len(answers) if isinstance(answers, Tensor) and answers.dim() else 1
        if found.dim() > 1 or (found.dim() == 1 and len(found) != samples):
            raise FaultsimError(
                f"it must give one number, or one for each of {samples} samples, not {describe(found)}"
            )
        self.sum += float(found.double().sum()) * (1 if found.dim() else samples)
        self.count += samples

    def compute(self) -> float:
        """Return the mean over all samples."""
        return self.sum / self.count if self.count else math.nan


class OwnMetric:
    """A metric of the user's, whose errors become one line.

    The answers that are not finite are counted, too.
    """

    def __init__(self, name: str, collector: "Collector") -> None:
        self.name, self.collector, self.not_finite = name, collector, 0
        self.placed = False

    def update(self, answers: Any, targets: Any) -> None:
        """Take in the answers to a batch."""
        if isinstance(answers, Tensor) and answers.is_floating_point() and answers.dim():
            self.not_finite += int((~answers.isfinite().reshape(len(answers), -1).all(1)).sum())
        try:
            move = getattr(self.collector, "to", None)
            if not self.placed and isinstance(answers, Tensor) and callable(move):
                move(answers.device)
            self.placed = True
            self.collector.update(answers, targets)
        except Exception as error:  # a user's metric may fail in any way
            raise FaultsimError(
                f"metric {self.name} fails on answers {describe(answers)} and targets {describe(targets)}: "
                f"{summarize_error(error)}"
            ) from error

    def compute(self) -> float:
        """Return one number; FaultsimError where it is none."""
        try:
            return float(self.collector.compute())
        except Exception as error:
            raise FaultsimError(f"metric {self.name} gives no number: {summarize_error(error)}") from error
