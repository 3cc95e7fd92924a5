"""How built-in metrics collect, as torchmetrics' do: `update(answers, targets)` for each batch, then `compute()`.

None waits for the device before compute(), so that a CUDA graph can hold update(). An answer that is not finite is
wrong: it is no right class, belongs to no class of a picture, and its error is infinite.
"""

import math
from typing import Any

import torch
from torch import Tensor

from ..errors import FaultsimError
from ..network.batch import describe


class Sums:
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
        """Begin anew, in the same memory."""
        for value in self.sums.values():
            value.zero_()

    @property
    def not_finite(self) -> int:
        """Answers that hold NaN or infinity."""
        return int(self._total("not_finite"))


class TopK(Sums):
    """Accuracy: the share of samples whose label is among the k classes of the largest logits.

    Answers float [N, C], targets integers [N] from 0 to C - 1.
    """

    def __init__(self, k: int = 1) -> None:
        super().__init__()
        self.k = k

    def update(self, answers: Tensor, targets: Tensor) -> None:
        classes = _checked_classes(answers, targets, self.k)
        if self.k == 1:
            right = answers.argmax(1) == targets
        else:
            right = (answers.topk(self.k, 1).indices == targets[:, None]).any(1)
        finite = answers.isfinite().all(1)
        self._sum("right", answers).add_((right & finite).sum())
        self._sum("not_finite", answers).add_((~finite).sum())
        # labels by class; the last entry counts those that are none
        place = targets.long().clamp(-1, classes).remainder(classes + 1)
        self._sum("labels", answers, (classes + 1,)).index_add_(0, place, torch.ones_like(place))

    @property
    def right(self) -> int:
        """Number of right answers."""
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
        """Whether so many right answers come out of guessing, or of answering the most frequent classes always.

        That is within two standard deviations. Never of fewer than 30 samples, which tell too little.
        """
        labels = sorted(self.sums["labels"].tolist()[:-1], reverse=True) if self.sums else []
        count = sum(labels)
        if count < 30:
            return False
        share = self.k / len(labels)
        if labels[self.k] > 0:  # else one answer is right for all samples, and that says nothing
            share = max(share, sum(labels[: self.k]) / count)
        return self.right < min(count, count * share + 2 * math.sqrt(count * share * (1 - share)))


class MeanIoU(Sums):
    """Mean over classes of intersection over union, of all samples together.

    Classes that are neither answered nor right anywhere are left out. Answers float [N, C, ...], targets integers [N,
    ...] from 0 to C - 1, or `ignore_index` for pixels that don't count.
    """

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


class CrossEntropy(Sums):
    """Mean over targets of -log softmax, in nats; or with `exponential` its exponential, the perplexity.

    Answers float [N, C] with targets [N]; [N, C, ...] with [N, ...]; or [N, T, C] with [N, T], as language models
    answer. Targets are integers, or `ignore_index` for those that don't count. The target at position t is what the
    answer at t should be: a language model's are the inputs moved by one.
    """

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


class Error(Sums):
    """Mean over all numbers of the |difference| to the power of `power`: the mean absolute or squared error.

    Answers and targets have one shape.
    """

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


def _checked_classes(answers: Any, targets: Any, k: int) -> int:
    """Return the number of classes of logits [N, C] for labels [N]; FaultsimError for other shapes and types."""
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
    """Return labels that can be used as indices, which of them count, and which are neither classes nor ignored."""
    labels = targets.long()
    known = (labels >= 0) & (labels < classes)
    skipped = torch.zeros_like(known) if ignored is None else labels == ignored
    return labels.clamp(0, classes - 1), known & ~skipped, ~known & ~skipped


def _refuse_outside(outside: float) -> None:
    if outside:
        raise FaultsimError(
            f"{int(outside):,} labels are no class of the model: labels must be from 0 on, below its classes"
        )
