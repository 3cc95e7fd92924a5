"""What a generator wins back: accuracy without and with it, on the same chips."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from faultsim.evaluation import Evaluation, evaluate
from faultsim.faults import Chip, FaultModel
from faultsim.metrics import AnyMetric
from faultsim.stored import StoredWeights

from .generators import NeuralFuse


@dataclass(frozen=True)
class Statistics:
    """Of one number a chip, as faultsim.Evaluation has them of accuracies; all are fractions."""

    mean: float
    std: float  #: population standard deviation, as the paper reports it
    interval: tuple[float, float]  #: 95 % confidence interval of the mean (Student's t); NaN for one chip

    @classmethod
    def of(cls, values: Sequence[float]) -> "Statistics":
        from scipy import stats

        mean, n = float(np.mean(values)), len(values)
        half = float(stats.t.ppf(0.975, n - 1)) * float(np.std(values, ddof=1)) / n**0.5 if n > 1 else np.nan
        return cls(mean, float(np.std(values)), (mean - half, mean + half))


@dataclass(frozen=True)
class Protection:
    """The columns of the paper's Table 1; those with a generator are None where there is none."""

    clean: Evaluation  #: C.A.: one pass without bit errors
    perturbed: Evaluation  #: P.A.
    clean_fused: Evaluation | None = None  #: C.A.+N.F.
    perturbed_fused: Evaluation | None = None  #: P.A.+N.F.

    @property
    def improvement(self) -> Statistics | None:
        """IP, chip by chip: P.A.+N.F. - P.A. on the same chip, so that its interval is that of the difference."""
        return None if self.perturbed_fused is None else improvement(self.perturbed, self.perturbed_fused)


def improvement(alone: Evaluation, fused: Evaluation) -> Statistics:
    """Differences of the metric, fused - alone, chip by chip; the other way round where lower is better, so that above
    0 is better."""
    sign = 1 if alone.metric.higher_is_better else -1
    pairs = zip(alone.values, fused.values, strict=True)
    return Statistics.of([sign * (with_generator - without) for without, with_generator in pairs])


def protection(
    model: nn.Module,
    data: Iterable[tuple[Tensor, Tensor]],
    chips: Sequence[Chip],
    *,
    bit_error_rate: float,
    faults: FaultModel,
    stored: StoredWeights,
    fuse: NeuralFuse | None = None,
    metric: AnyMetric = "accuracy",
    report: Callable[[Evaluation], None] | None = None,
) -> Protection:
    """Evaluates the model, alone and behind `fuse`, without bit errors and on `chips`; arguments as for
    faultsim.evaluate. `data` must be something that can be iterated several times; `report` is called with each
    evaluation of the chips so far."""

    def accuracy(rate: float, on: Sequence[Chip], transform: NeuralFuse | None) -> Evaluation:
        return evaluate(
            model,
            data,
            on,
            bit_error_rate=rate,
            faults=faults,
            stored=stored,
            transform=transform,
            metric=metric,
            report=report,
        )

    found = [
        evaluation
        for transform in ([None] if fuse is None else [None, fuse])
        for evaluation in (accuracy(0.0, chips[:1], transform), accuracy(bit_error_rate, chips, transform))
    ]
    return Protection(*found)
