"""What is measured of a model's answers: top-1 accuracy, and what stands in its place for other tasks.

A metric collects over batches, as torchmetrics' do: `update(answers, targets)` for each batch, then `compute()`. The
ones of this file wait for no device before compute(), so that a CUDA graph can hold them.

An answer that is not finite is wrong: it is no right class, belongs to no class of a picture, and its error is
infinite.
"""

import copy
import inspect
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from .batch import describe
from .errors import FaultsimError, FaultsimWarning, reason


class Collector(Protocol):
    """What a metric of the user's has to be; torchmetrics' are. `higher_is_better` (a bool) and `name` are read if
    they are there."""

    def update(self, answers: Any, targets: Any) -> None: ...

    def compute(self) -> Any:
        """One number."""


@dataclass(frozen=True)
class Metric:
    """A metric's name and direction, and how to begin one for a chip."""

    name: str
    begin: Callable[[], Collector] = field(compare=False, repr=False)
    higher_is_better: bool = True
    fraction: bool = False  #: a value from 0 to 1, shown in percent
    counts: bool = False  #: right answers among the samples: collectors have `right`, whole numbers
    capturable: bool = field(default=False, compare=False)  #: a CUDA graph can hold update()

    @property
    def arrow(self) -> str:
        """Direction, for headings."""
        return "higher is better" if self.higher_is_better else "lower is better"

    @property
    def column(self) -> str:
        """Of a CSV file."""
        return self.name.replace(" ", "_").replace("-", "")

    def text(self, value: float, digits: int = 2) -> str:
        """A value for a reader, without unit: fractions in percent with `digits`, others with as many that count
        and two more."""
        return f"{100 * value:.{digits}f}" if self.fraction else f"{value:.{digits + 2}g}"

    @property
    def unit(self) -> str:
        return "%" if self.fraction else ""

    @property
    def label(self) -> str:
        """Of an axis or a column."""
        return f"{self.name} (%)" if self.fraction else self.name


class _Collector:
    """Sums on the device of the answers, made at the first batch."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}

    def _sum(
        self, name: str, like: Tensor, size: tuple[int, ...] = (), dtype: torch.dtype = torch.int64
    ) -> Tensor:
        if name not in self.sums:
            self.sums[name] = torch.zeros(size, dtype=dtype, device=like.device)
        elif tuple(self.sums[name].shape) != size:
            raise FaultsimError(
                f"the model's answers change their shape from one batch to the next: {describe(like)}"
            )
        return self.sums[name]

    def _total(self, name: str) -> float:
        return self.sums[name].item() if name in self.sums else 0

    def reset(self) -> None:
        """Begins anew, in the same memory."""
        for value in self.sums.values():
            value.zero_()

    @property
    def not_finite(self) -> int:
        """Answers that hold NaN or infinity."""
        return int(self._total("not_finite"))


class TopK(_Collector):
    """Accuracy: the share of samples whose label is among the k classes of the largest logits. Answers float [N, C],
    targets integers [N] from 0 to C - 1."""

    def __init__(self, k: int = 1) -> None:
        super().__init__()
        self.k = k

    def update(self, answers: Tensor, targets: Tensor) -> None:
        classes = _checked_classes(answers, targets, self.k)
        right = (
            answers.argmax(1) == targets
            if self.k == 1
            else ((answers.topk(self.k, 1).indices == targets[:, None]).any(1))
        )
        finite = answers.isfinite().all(1)
        self._sum("right", answers).add_((right & finite).sum())
        self._sum("not_finite", answers).add_((~finite).sum())
        # labels by class; the last entry counts those that are none
        place = targets.long().clamp(-1, classes).remainder(classes + 1)
        self._sum("labels", answers, (classes + 1,)).index_add_(0, place, torch.ones_like(place))

    @property
    def right(self) -> int:
        return int(self._total("right"))

    def compute(self) -> float:
        if "labels" not in self.sums:
            return math.nan
        *labels, outside = self.sums["labels"].tolist()
        if outside:
            raise FaultsimError(
                f"{outside:,} labels are no class of the model, which answers {len(labels)}: labels must be from 0 to "
                f"{len(labels) - 1}"
            )
        return self.right / sum(labels) if any(labels) else math.nan

    def is_chance(self) -> bool:
        """Whether so many right answers come out of guessing, or of answering the most frequent classes always: within
        two standard deviations. Never of fewer than 30 samples, which tell too little."""
        labels = sorted(self.sums["labels"].tolist()[:-1], reverse=True) if self.sums else []
        count = sum(labels)
        if count < 30:
            return False
        share = self.k / len(labels)
        if (
            labels[self.k] > 0
        ):  # else all labels are among the k most frequent, and a right answer is no chance
            share = max(share, sum(labels[: self.k]) / count)
        return self.right <= count * share + 2 * math.sqrt(count * share * (1 - share))


class MeanIoU(_Collector):
    """Mean over classes of intersection over union, of all samples together; classes that are neither answered nor
    right anywhere are left out. Answers float [N, C, ...], targets integers [N, ...] from 0 to C - 1, or
    `ignore_index` for pixels that don't count."""

    def __init__(self, ignore_index: int | None = 255) -> None:
        super().__init__()
        self.ignore_index = ignore_index

    def update(self, answers: Tensor, targets: Tensor) -> None:
        _checked_floats(answers, targets)
        shape = tuple(answers.shape)
        if len(shape) < 3 or tuple(targets.shape) != (shape[0], *shape[2:]) or _no_integers(targets):
            raise FaultsimError(
                f"mean IoU needs answers [N, classes, height, width] and integer labels [N, height, width], not "
                f"{describe(answers)} and {describe(targets)}"
            )
        classes = shape[1]
        labels, inside, outside = _inside(targets, classes, self.ignore_index)
        finite = answers.isfinite().all(1)
        answered = torch.where(finite, answers.argmax(1), classes)  # the last column: no class at all
        self._sum("outside", answers).add_(outside.sum())
        self._sum("not_finite", answers).add_((~finite).sum())
        pairs = self._sum("pairs", answers, (classes * (classes + 1),))
        pairs.index_add_(0, (labels * (classes + 1) + answered).flatten(), inside.long().flatten())

    def compute(self) -> float:
        _refuse_outside(self._total("outside"))
        if "pairs" not in self.sums:
            return math.nan
        pairs = self.sums["pairs"].cpu().double()
        classes = math.isqrt(len(pairs))
        pairs = pairs.reshape(classes, classes + 1)
        both = pairs.diagonal()
        union = pairs.sum(1) + pairs[:, :-1].sum(0) - both
        there = union > 0
        return float((both[there] / union[there]).mean()) if bool(there.any()) else math.nan


class CrossEntropy(_Collector):
    """Mean over targets of -log softmax, in nats; or with `exponential` its exponential, the perplexity. Answers float
    [N, C] with targets [N]; [N, C, ...] with [N, ...]; or [N, T, C] with [N, T], as language models answer. Targets are
    integers, or `ignore_index` for those that don't count. The target at position t is what the answer at t should be:
    a language model's are the inputs moved by one."""

    def __init__(self, exponential: bool = False, ignore_index: int | None = -100) -> None:
        super().__init__()
        self.exponential, self.ignore_index = exponential, ignore_index

    def update(self, answers: Tensor, targets: Tensor) -> None:
        _checked_floats(answers, targets)
        shape, wanted = tuple(answers.shape), tuple(targets.shape)
        axes = [
            axis
            for axis in {1, len(shape) - 1}
            if len(shape) > 1 and shape[:axis] + shape[axis + 1 :] == wanted
        ]
        if not axes or _no_integers(targets):
            raise FaultsimError(
                "cross entropy needs answers [N, classes] and integer labels [N], [N, classes, ...] and [N, ...], or "
                f"[N, T, classes] and [N, T], not {describe(answers)} and {describe(targets)}"
            )
        if len(axes) > 1 and len(shape) > 2:
            raise FaultsimError(
                f"answers {list(shape)} can be read in two ways, classes second or last: give sequences of another "
                "length"
            )
        answers = answers.movedim(axes[0], -1)
        labels, inside, outside = _inside(targets, answers.shape[-1], self.ignore_index)
        finite = answers.isfinite().all(-1)
        found = -answers.double().log_softmax(-1).gather(-1, labels[..., None])[..., 0]
        found = torch.where(finite, found, math.inf)
        self._sum("outside", answers).add_(outside.sum())
        self._sum("not_finite", answers).add_((~finite & inside).sum())
        self._sum("targets", answers).add_(inside.sum())
        self._sum("loss", answers, dtype=torch.float64).add_(torch.where(inside, found, 0.0).sum())

    def compute(self) -> float:
        _refuse_outside(self._total("outside"))
        count = self._total("targets")
        if not count:
            return math.nan
        mean = self._total("loss") / count
        if not self.exponential:
            return mean
        return math.exp(mean) if mean < 700 else math.inf  # of floats, exp(709.78) is the last


class Error(_Collector):
    """Mean over all numbers of the |difference| to the power of `power`: the mean absolute or squared error. Answers
    and targets have one shape."""

    def __init__(self, power: int = 2) -> None:
        super().__init__()
        self.power = power

    def update(self, answers: Tensor, targets: Tensor) -> None:
        _checked_floats(answers, targets)
        if answers.shape != targets.shape or not answers.dim() or targets.is_complex():
            raise FaultsimError(
                f"a regression error needs answers and targets of one shape, not {describe(answers)} and "
                f"{describe(targets)}"
            )
        difference = (answers.double() - targets.double()).abs() ** self.power
        finite = answers.isfinite()
        found = torch.where(finite, difference, math.inf)
        self._sum("not_finite", answers).add_((~finite.reshape(len(answers), -1).all(1)).sum())
        self._sum("count", answers).add_(answers.numel())
        self._sum("error", answers, dtype=torch.float64).add_(found.sum())

    def compute(self) -> float:
        count = self._total("count")
        return self._total("error") / count if count else math.nan


class _Mean:
    """A user's function (answers, targets) -> a number of each sample [N], or their mean in one number."""

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        self.function, self.sum, self.count = function, 0.0, 0

    def update(self, answers: Any, targets: Any) -> None:
        found = torch.as_tensor(self.function(answers, targets)).detach()
        samples = len(answers) if isinstance(answers, Tensor) and answers.dim() else 1
        if found.dim() > 1 or (found.dim() == 1 and len(found) != samples):
            raise FaultsimError(
                f"it must give one number, or one for each of {samples} samples, not {describe(found)}"
            )
        self.sum += float(found.double().sum()) * (1 if found.dim() else samples)
        self.count += samples

    def compute(self) -> float:
        return self.sum / self.count if self.count else math.nan


class Own:
    """A metric of the user's, whose errors become one line, with the answers that are not finite counted beside it."""

    def __init__(self, name: str, collector: Collector) -> None:
        self.name, self.collector, self.not_finite = name, collector, 0
        self.placed = False

    def update(self, answers: Any, targets: Any) -> None:
        if isinstance(answers, Tensor) and answers.is_floating_point() and answers.dim():
            self.not_finite += int((~answers.isfinite().reshape(len(answers), -1).all(1)).sum())
        try:
            if (
                not self.placed
                and isinstance(answers, Tensor)
                and callable(getattr(self.collector, "to", None))
            ):
                self.collector.to(answers.device)
            self.placed = True
            self.collector.update(answers, targets)
        except Exception as error:  # a user's metric may fail in any way
            raise FaultsimError(
                f"metric {self.name} fails on answers {describe(answers)} and targets {describe(targets)}: "
                f"{reason(error)}"
            ) from error

    def compute(self) -> float:
        try:
            return float(self.collector.compute())
        except Exception as error:
            raise FaultsimError(f"metric {self.name} gives no number: {reason(error)}") from error


ACCURACY = Metric("accuracy", TopK, fraction=True, counts=True, capturable=True)
METRICS = {
    "accuracy": ACCURACY,
    "top5": Metric("top-5 accuracy", partial(TopK, 5), fraction=True, counts=True, capturable=True),
    "mean_iou": Metric("mean IoU", MeanIoU, fraction=True, capturable=True),
    "cross_entropy": Metric("cross entropy", CrossEntropy, higher_is_better=False, capturable=True),
    "perplexity": Metric("perplexity", partial(CrossEntropy, True), higher_is_better=False, capturable=True),
    "mse": Metric("mean squared error", partial(Error, 2), higher_is_better=False, capturable=True),
    "mae": Metric("mean absolute error", partial(Error, 1), higher_is_better=False, capturable=True),
}
"""The metrics that have a word."""

AnyMetric = str | Metric | Callable[..., Any] | Collector


def find_metric(metric: AnyMetric = "accuracy") -> Metric:
    """The Metric that is meant:

    str         a word of METRICS
    class       (or a function without arguments) that makes an object with update(answers, targets) and compute(),
                one for each chip, such as torchmetrics' classes
    object      of that kind; each chip gets a deep copy
    function    (answers, targets) -> one number of each sample, or the mean of a batch

    `higher_is_better` is read of what is the user's; where it isn't said, higher is taken as better, with a warning.
    Raises FaultsimError for anything else.
    """
    if isinstance(metric, Metric):
        return metric
    if isinstance(metric, str):
        if metric not in METRICS:
            raise FaultsimError(
                f"unknown metric {metric!r}: it can be {', '.join(METRICS)}, or your own as package.module:name"
            )
        return METRICS[metric]
    name, begin = _own(metric)
    sample = begin()
    name = getattr(sample, "name", None) if isinstance(getattr(sample, "name", None), str) else name
    better = getattr(metric, "higher_is_better", getattr(sample, "higher_is_better", None))
    if not isinstance(better, bool):
        warnings.warn(
            f"metric {name} doesn't say whether higher is better: it is taken so; set higher_is_better",
            FaultsimWarning,
            stacklevel=3,
        )
        better = True
    return Metric(name, lambda: Own(name, begin()), higher_is_better=better)


def _own(metric: Any) -> tuple[str, Callable[[], Collector]]:
    name = getattr(metric, "__name__", type(metric).__name__)
    if not inspect.isclass(metric) and _collects(metric):

        def copied() -> Collector:
            fresh = copy.deepcopy(metric)
            if callable(getattr(fresh, "reset", None)):
                fresh.reset()
            return fresh

        return name, copied
    if callable(metric):
        try:
            signature = inspect.signature(metric)
        except (TypeError, ValueError):
            signature = None
        if not inspect.isclass(metric) and signature is not None and not _takes(signature, 0):
            if _takes(signature, 2):
                return name, lambda: _Mean(metric)
            raise FaultsimError(f"metric {name} must take (answers, targets), or nothing and make an object")
        try:
            made = metric()
        except Exception as error:
            raise FaultsimError(f"metric {name} can't be made without arguments: {reason(error)}") from error
        if _collects(made):
            return name, metric
    raise FaultsimError(
        f"metric {name} is no metric: it must have update(answers, targets) and compute(), or make such an object"
    )


def _collects(value: Any) -> bool:
    return all(callable(getattr(value, method, None)) for method in ("update", "compute"))


def _takes(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*range(count))
    except TypeError:
        return False
    return True


def _checked_classes(answers: Any, targets: Any, k: int) -> int:
    """Number of classes of logits [N, C] for labels [N]; FaultsimError for other shapes and types."""
    _checked_floats(answers, targets)
    if answers.dim() != 2 or _no_integers(targets) or tuple(targets.shape) != (len(answers),):
        raise FaultsimError(
            f"accuracy needs logits [N, classes] and integer labels [N], not {describe(answers)} and "
            f"{describe(targets)}"
            + ("; for a picture of labels take the metric mean_iou or your own" if answers.dim() > 2 else "")
        )
    if k > 1 and answers.shape[1] <= k:
        raise FaultsimError(f"top-{k} accuracy needs more than {k} classes, not {answers.shape[1]}")
    return answers.shape[1]


def _checked_floats(answers: Any, targets: Any) -> None:
    if not isinstance(answers, Tensor):
        raise FaultsimError(
            f"the model answers {describe(answers)}: a tensor is needed, or a tuple, dictionary or object whose "
            "answer (first, 'logits') is one"
        )
    if not answers.is_floating_point():
        raise FaultsimError(f"the model answers {describe(answers)}: floating-point numbers are needed")
    if not isinstance(targets, Tensor):
        what = "no labels" if targets is None else f"labels that are {describe(targets)}"
        raise FaultsimError(f"the batches hold {what}: give (inputs, labels), or a dictionary with 'labels'")


def _no_integers(targets: Tensor) -> bool:
    return targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool


def _inside(targets: Tensor, classes: int, ignored: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """(labels that can be used as indices, which of them count, which are neither classes nor ignored)."""
    labels = targets.long()
    known = (labels >= 0) & (labels < classes)
    skipped = torch.zeros_like(known) if ignored is None else labels == ignored
    return labels.clamp(0, classes - 1), known & ~skipped, ~known & ~skipped


def _refuse_outside(outside: float) -> None:
    if outside:
        raise FaultsimError(
            f"{int(outside):,} labels are no class of the model: labels must be from 0 on, below its classes"
        )
