"""What is measured of a model's answers: top-1 accuracy, or another metric.

A metric of the user's has a class with `update` and `compute`, as torchmetrics' have; those that come with faultsim are
in collectors.py. Nothing here imports torch before a metric begins.
"""

import copy
import importlib
import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from ..errors import FaultsimError, FaultsimWarning, summarize_error

_TAKEN = (
    "variant",
    "voltage",
    "bit_error_rate",
    "chip",
    "correct",
    "images",
    "not_finite",
)  # columns of results.csv


class Collector(Protocol):
    """What a metric of the user's has to be; torchmetrics' are.

    `higher_is_better` (a bool) and `name` are read if they are there.
    """

    def update(self, answers: Any, targets: Any) -> None:
        """Take in the answers to a batch."""

    def compute(self) -> Any:
        """Return one number."""


@dataclass(frozen=True)
class Metric:
    """A metric's name and direction, and how to begin one for a chip."""

    name: str
    """Its name in results."""
    begin: Callable[[], Collector] = field(compare=False, repr=False)
    """Makes a collector, one for each chip."""
    higher_is_better: bool = True
    """Its direction."""
    fraction: bool = False
    """A value from 0 to 1, shown in percent."""
    counts: bool = False
    """Right answers among the samples: collectors have `right`, whole numbers."""
    capturable: bool = field(default=False, compare=False)
    """A CUDA graph can hold update()."""
    source: str = field(default="", compare=False, repr=False)
    """package.module:name of the user's class or function; empty where it cannot be imported by a name."""

    def describe(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"name": self.name, "higher_is_better": self.higher_is_better}

    @property
    def arrow(self) -> str:
        """Direction, for headings."""
        return "higher is better" if self.higher_is_better else "lower is better"

    @property
    def column(self) -> str:
        """Its column in results.csv."""
        name = self.name.replace(" ", "_").replace("-", "")
        return f"metric_{name}" if name in _TAKEN else name

    def text(self, value: float, digits: int = 2) -> str:
        """Return a value for a reader, without unit.

        Fractions are in percent with `digits` decimals, others have two significant digits more.
        """
        return f"{100 * value:.{digits}f}" if self.fraction else f"{value:.{digits + 2}g}"

    @property
    def label(self) -> str:
        """Its name on an axis or above a column."""
        return f"{self.name} (%)" if self.fraction else self.name


def _collector(kind: str, *arguments: Any) -> Collector:
    """Make one of the collectors of collectors.py, which needs torch."""
    made: Collector = getattr(importlib.import_module(".collectors", __package__), kind)(*arguments)
    return made


ACCURACY = Metric("accuracy", partial(_collector, "TopK"), fraction=True, counts=True, capturable=True)
METRICS = {
    "accuracy": ACCURACY,
    "top5": Metric(
        "top-5 accuracy", partial(_collector, "TopK", 5), fraction=True, counts=True, capturable=True
    ),
    "mean_iou": Metric("mean IoU", partial(_collector, "MeanIoU"), fraction=True, capturable=True),
    "cross_entropy": Metric(
        "cross entropy", partial(_collector, "CrossEntropy"), higher_is_better=False, capturable=True
    ),
    "perplexity": Metric(
        "perplexity", partial(_collector, "CrossEntropy", True), higher_is_better=False, capturable=True
    ),
    "mse": Metric(
        "mean squared error", partial(_collector, "Error", 2), higher_is_better=False, capturable=True
    ),
    "mae": Metric(
        "mean absolute error", partial(_collector, "Error", 1), higher_is_better=False, capturable=True
    ),
}
"""The metrics that have a word."""

AnyMetric = str | Metric | Callable[..., Any] | Collector


def find_metric(metric: AnyMetric = "accuracy") -> Metric:
    """Return the metric that is meant.

    Parameters
    ----------
    metric
        A word of `METRICS`. Or a class (or a function without arguments) that makes an object with update(answers,
        targets) and compute(), one for each chip, such as torchmetrics' classes. Or such an object; each chip gets a
        deep copy. Or a function (answers, targets) that returns one number for each sample, or the mean of a batch.
        `higher_is_better` of your own metric is read; where it is missing, higher is taken as better, with a warning.

    Raises
    ------
    FaultsimError
        For anything else.
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
    stated: Any = getattr(sample, "name", None)
    name = stated if isinstance(stated, str) else name
    better = getattr(metric, "higher_is_better", getattr(sample, "higher_is_better", None))
    if not isinstance(better, bool):
        warnings.warn(
            f"metric {name} doesn't say whether higher is better: it is taken so; set higher_is_better",
            FaultsimWarning,
            stacklevel=3,
        )
        better = True
    from .own import OwnMetric

    return Metric(
        name, lambda: OwnMetric(name, begin()), higher_is_better=better, source=_find_source(metric)
    )


def _find_source(metric: Any) -> str:
    """Return package.module:name of a class or function; empty for what has no such name."""
    name, module = getattr(metric, "__qualname__", "."), getattr(metric, "__module__", "__main__")
    return "" if "." in name or module == "__main__" else f"{module}:{name}"


def _own(metric: Any) -> tuple[str, Callable[[], Collector]]:
    """Return the name, and what makes a collector for a chip."""
    from .own import MeanOf

    name = getattr(metric, "__name__", type(metric).__name__)
    if not inspect.isclass(metric) and _collects(metric):

        def copied() -> Collector:
            fresh: Collector = copy.deepcopy(metric)
            reset = getattr(fresh, "reset", None)
            if callable(reset):
                reset()
            return fresh

        return name, copied
    if callable(metric):
        try:
            signature = inspect.signature(metric)
        except (TypeError, ValueError):
            signature = None
        if not inspect.isclass(metric) and signature is not None and not _takes(signature, 0):
            if _takes(signature, 2):
                return name, lambda: MeanOf(metric)
            raise FaultsimError(f"metric {name} must take (answers, targets), or nothing and make an object")
        try:
            made = metric()
        except Exception as error:
            raise FaultsimError(
                f"metric {name} can't be made without arguments: {summarize_error(error)}"
            ) from error
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
