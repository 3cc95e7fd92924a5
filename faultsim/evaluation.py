"""Accuracy of a model over many chips."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .errors import FaultsimError
from .faultmap import MeasuredChip
from .faults import Chip, FaultKind, FaultModel
from .graphs import Graphed
from .inject import operating_point
from .stored import StoredWeights
from .voltage import VoltageCurve

_WEIGHTS_AT_ONCE = (
    2 << 30
)  # bytes of perturbed weights held in memory; more chips are evaluated in several passes


@dataclass(frozen=True)
class Evaluation:
    """Correct answers of each chip out of `images`. Accuracies are fractions."""

    correct: tuple[int, ...]
    images: int

    @property
    def accuracies(self) -> tuple[float, ...]:
        return tuple(c / self.images for c in self.correct)

    @property
    def mean(self) -> float:
        return sum(self.correct) / (len(self.correct) * self.images)

    @property
    def std(self) -> float:
        """Population standard deviation over the chips, as the paper reports it."""
        mean = self.mean  # once: there may be a million chips
        return math.sqrt(sum((a - mean) ** 2 for a in self.accuracies) / len(self.correct))

    @property
    def sample_std(self) -> float:
        """Sample standard deviation (n - 1); NaN for one chip."""
        n = len(self.correct)
        return self.std * math.sqrt(n / (n - 1)) if n > 1 else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval of the mean over chips (Student's t), cut to [0, 1]; NaN for one chip."""
        n = len(self.correct)
        if n < 2:
            return math.nan, math.nan
        from scipy.stats import t

        half = float(t.ppf(0.975, n - 1)) * self.sample_std / math.sqrt(n)
        return max(0.0, self.mean - half), min(1.0, self.mean + half)

    @property
    def worst(self) -> float:
        return min(self.accuracies)

    @property
    def best(self) -> float:
        return max(self.accuracies)


def evaluate(
    model: nn.Module,
    data: Iterable[tuple[Tensor, Tensor]],
    chips: Sequence[Chip | MeasuredChip],
    *,
    voltage: float | None = None,
    bit_error_rate: float | None = None,
    curve: VoltageCurve | None = None,
    faults: FaultModel | None = None,
    stored: StoredWeights | None = None,
    transform: nn.Module | None = None,
) -> Evaluation:
    """Accuracy of `model` on each chip at one voltage (or bit error rate).

    data       batches (inputs, int64 labels) on the device of the model; all chips see each batch while it is there, so
               one pass over the data serves them all (several passes only beyond 2 GiB of perturbed weights)
    chips      Chip or MeasuredChip objects
    transform  a module in front of the model that runs at nominal voltage, once a batch (NeuralFuse)

    Transient faults are drawn anew for every batch, the batch's number being the index of the access. The model is in
    evaluation mode meanwhile and keeps its weights. Raises FaultsimError for no chips, no images, or
    voltages and rates out of range.
    """
    if not chips:
        raise FaultsimError("no chips to evaluate on: give at least one")
    faults = faults or FaultModel()
    volts, rate = operating_point(chips, voltage, bit_error_rate, curve)
    stored = stored or StoredWeights.of(model)
    together = max(1, _WEIGHTS_AT_ONCE // max(1, stored.float_bytes))
    if len(chips) > together and iter(data) is data:
        raise FaultsimError(
            "so many chips need several passes: give data that can be iterated again, not an iterator"
        )

    correct: list[int] = []
    images = 0
    used = [module for module in (model, transform) if module is not None]
    # each module's own mode: parts of a model in training may be frozen
    modes = [(module, module.training) for top in used for module in top.modules()]
    try:
        for module in used:
            module.eval()
        with torch.inference_mode():
            for first in range(0, len(chips), together):
                group = chips[first : first + together]
                weights = stored.read_chips(group, rate, volts, faults)
                device = weights[0].device
                right = torch.zeros(len(group), dtype=torch.int64, device=device)

                def judge(inputs: Tensor, labels: Tensor, weights=weights, right=right) -> None:
                    inputs = transform(inputs) if transform is not None else inputs
                    for i in range(len(right)):
                        with stored.replaced([w[i] for w in weights]):
                            right[i] += (model(inputs).argmax(1) == labels).sum()

                call = Graphed(judge, device)  # on a GPU all chips' passes are launched at once
                images = 0
                for access, (inputs, labels) in enumerate(data):
                    if access and faults.kind is FaultKind.TRANSIENT:  # every batch reads the weights anew
                        anew = stored.read_chips(group, rate, volts, faults, access)
                        for weight, other in zip(weights, anew, strict=True):
                            weight.copy_(other)
                    images += len(labels)
                    call(inputs, labels)
                correct += right.tolist()
    finally:
        for module, mode in modes:
            module.training = mode
    if images == 0:
        raise FaultsimError("no images to evaluate on")
    return Evaluation(tuple(correct), images)
