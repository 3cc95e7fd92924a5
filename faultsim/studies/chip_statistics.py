"""Statistics of one number per chip, and of the paired differences between two evaluations."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from ..support.intervals import half_width

if TYPE_CHECKING:
    from ..evaluation import Evaluation


@dataclass(frozen=True)
class Statistics:
    """Mean, standard deviation and confidence interval of one number per chip, in the unit of the numbers."""

    mean: float
    std: float
    """Population standard deviation over the chips, as the paper reports it."""
    interval: tuple[float, float]
    """95 % confidence interval of the mean (Student's t); NaN for one chip."""

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Compute the statistics of one value per chip."""
        mean, n = float(np.mean(values)), len(values)
        half = half_width(float(np.std(values, ddof=1)) if n > 1 else np.nan, n)
        return cls(mean, float(np.std(values)), (mean - half, mean + half))


def compute_improvement(before: "Evaluation", after: "Evaluation") -> Statistics:
    """Compute the paired difference of two evaluations of the same chips.

    Parameters
    ----------
    before, after : Evaluation
        For instance of a base model alone and behind a generator.

    Returns
    -------
    Statistics
        Of after minus before on each chip; of before minus after for a metric that is better when lower. Above 0 is
        better in both cases.
    """
    sign = 1 if before.metric.higher_is_better else -1
    pairs = zip(before.values, after.values, strict=True)
    return Statistics.of([sign * (later - earlier) for earlier, later in pairs])
