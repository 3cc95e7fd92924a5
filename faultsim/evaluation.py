"""Accuracy, or another metric, of a model over many chips."""

import contextlib
import math
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from .activations.memory import ActivationMemory, FaultSites, Sites, check_memories
from .chips.measured_chip import AnyChip, as_chip
from .errors import FaultsimError, FaultsimWarning, summarize_error
from .faults import Chip, FaultKind, FaultModel
from .formats import INT8, AnyFormat
from .inference.fold import folded
from .inference.graphs import Graphed
from .inference.in_place import overwriting
from .inference.passes import Passes
from .metrics.collectors import TopK
from .metrics.metric import ACCURACY, AnyMetric, Metric, find_metric
from .network.batch import Inputs, count_samples, describe_inputs, split_batch
from .network.inventory import Select
from .network.modes import evaluation_mode
from .perturbation import resolve_faults, resolve_operating_point, resolve_stored
from .stored import StoredWeights
from .support.intervals import half_width
from .voltage import VoltageCurve

WEIGHT_BYTES_AT_ONCE = 2 << 30
"""Bytes of perturbed weights held in memory: more chips are evaluated in several passes."""
QUICK_SECONDS = 1.0
"""A group of chips that took less is followed by one that may be twice as large."""
MOST_SHOWN = 100
"""Chips in the table of a notebook."""
_ALIGNMENT = 64  # bytes: libraries may compute in another order with weights that lie otherwise


@dataclass(frozen=True, repr=False)
class Evaluation:
    """What was measured on each chip.

    Its `std` is the population standard deviation, as in the paper; `sample_std` (n - 1) belongs to `interval`.
    """

    correct: tuple[int, ...]
    """Right answers on each chip out of `images`; empty for metrics that don't count right answers."""
    images: int
    """Samples that each chip saw."""
    metric: Metric = ACCURACY
    """What was measured."""
    scores: tuple[float, ...] = ()
    """The metric's value on each chip, where it counts no right answers."""
    not_finite: tuple[int, ...] = ()
    """Answers on each chip that held NaN or infinity, and count as wrong; empty if there were none."""

    @property
    def chips(self) -> int:
        """Number of chips."""
        return len(self.correct if self.metric.counts else self.scores)

    @property
    def values(self) -> tuple[float, ...]:
        """The metric's value on each chip."""
        return tuple(c / self.images for c in self.correct) if self.metric.counts else self.scores

    @property
    def accuracies(self) -> tuple[float, ...]:
        """Fractions of right answers; FaultsimError where another metric was measured."""
        if not self.metric.counts:
            raise FaultsimError(f"there are no accuracies: {self.metric.name} was measured, see .values")
        return self.values

    @property
    def mean(self) -> float:
        """Mean of the metric over the chips."""
        if self.metric.counts:
            return sum(self.correct) / (len(self.correct) * self.images)
        return sum(self.scores) / len(self.scores)

    @property
    def std(self) -> float:
        """Population standard deviation over the chips, as the paper reports it; NaN where a value isn't finite."""
        mean = self.mean  # once: there may be a million chips
        if not math.isfinite(mean):
            return math.nan
        return math.sqrt(sum((a - mean) ** 2 for a in self.values) / self.chips)

    @property
    def sample_std(self) -> float:
        """Sample standard deviation (n - 1); NaN for one chip."""
        n = self.chips
        return self.std * math.sqrt(n / (n - 1)) if n > 1 else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval of the mean over chips (Student's t), of fractions cut to [0, 1].

        NaN for one chip.
        """
        n = self.chips
        if n < 2 or math.isnan(self.std):
            return math.nan, math.nan
        half = half_width(self.sample_std, n)
        low, high = self.mean - half, self.mean + half
        return (max(0.0, low), min(1.0, high)) if self.metric.fraction else (low, high)

    @property
    def worst(self) -> float:
        """The worst value of a chip, in the direction of the metric."""
        return self._extreme(not self.metric.higher_is_better)

    @property
    def best(self) -> float:
        """The best value of a chip, in the direction of the metric."""
        return self._extreme(self.metric.higher_is_better)

    def _extreme(self, highest: bool) -> float:
        if any(math.isnan(value) for value in self.values):
            return math.nan
        return max(self.values) if highest else min(self.values)

    @property
    def wrong_numbers(self) -> int:
        """Answers of all chips together that were not finite."""
        return sum(self.not_finite)

    def rows(self) -> list[dict[str, object]]:
        """Return one flat dictionary for each chip: `pandas.DataFrame(evaluation.rows())`.

        Returns
        -------
        list of dict
            chip (its place among the chips, from 0), correct (where right answers are counted), images, the metric
            under its name, and not_finite where some answers were not.
        """
        counted = [{"correct": count} for count in self.correct] or [{}] * self.chips
        wrong = [{"not_finite": count} for count in self.not_finite] or [{}] * self.chips
        return [
            {"chip": i, **count, "images": self.images, self.metric.column: value, **lost}
            for i, (count, value, lost) in enumerate(zip(counted, self.values, wrong, strict=True))
        ]

    def __repr__(self) -> str:
        unit, text = (" %" if self.metric.fraction else ""), self.metric.text
        words = f"{self.metric.name} {text(self.mean)}{unit}"
        if self.chips > 1 and math.isfinite(self.std):
            low, high = self.interval
            words += (
                f" ± {text(self.std)} (95 % CI {text(low)} to {text(high)}), worst {text(self.worst)}{unit}"
            )
        return (
            f"Evaluation: {words}; {self.chips} chip{'s' if self.chips != 1 else ''}, {self.images:,} samples"
            + (f", {self.wrong_numbers:,} answers not finite" if self.wrong_numbers else "")
        )

    def _repr_html_(self) -> str:
        from .show.tables import Table, format_tables

        name, text = self.metric.label, self.metric.text
        rows = tuple((str(i), text(value)) for i, value in enumerate(self.values[:MOST_SHOWN]))
        more = [] if self.chips <= MOST_SHOWN else [f"the first {MOST_SHOWN} of {self.chips:,} chips"]
        return format_tables([Table("", ("chip", name), rows)], [repr(self), *more])

    def first(self, chips: int) -> "Evaluation":
        """Return the evaluation of the first chips only."""
        if chips >= self.chips:
            return self
        not_finite = self.not_finite[:chips]
        return replace(
            self,
            correct=self.correct[:chips],
            scores=self.scores[:chips],
            not_finite=not_finite if any(not_finite) else (),
        )

    def joined(self, more: "Evaluation") -> "Evaluation":
        """Join this evaluation and that of further chips on the same data."""
        if more.images != self.images:
            raise FaultsimError(
                f"the data changed while it was evaluated: {self.images} samples before, {more.images} now"
            )
        counted = self.not_finite or (0,) * self.chips, more.not_finite or (0,) * more.chips
        not_finite = counted[0] + counted[1]
        return Evaluation(
            self.correct + more.correct,
            self.images,
            self.metric,
            self.scores + more.scores,
            not_finite if any(not_finite) else (),
        )


def evaluate(
    model: nn.Module,
    data: Iterable[Any],
    chips: Sequence[AnyChip],
    *,
    voltage: float | None = None,
    bit_error_rate: float | None = None,
    curve: VoltageCurve | None = None,
    faults: FaultModel | None = None,
    per_channel: bool = False,
    select: Select = None,
    format: AnyFormat = INT8,
    stored: StoredWeights | None = None,
    transform: nn.Module | None = None,
    metric: AnyMetric = "accuracy",
    sites: FaultSites = "weights",
    activations: ActivationMemory | None = None,
    compute: str = "float32",
    report: Callable[[Evaluation], None] | None = None,
) -> Evaluation:
    """Measure accuracy, or another metric, of a model on each chip at one voltage (or bit error rate).

    Parameters
    ----------
    model
        It runs in evaluation mode and keeps its weights.
    data
        Batches on the device of the model, in the forms of `faultsim.network.batch.split_batch`: (inputs, int64
        labels), several inputs, dictionaries. Each batch is evaluated on all chips before the next one is loaded, so
        the data is iterated once (more often beyond 2 GiB of perturbed weights, or with `report`).
    chips
        Simulated or measured chips, or seeds.
    voltage, bit_error_rate
        The operating point: one of both. Measured chips need a voltage.
    curve
        Bit error rate against voltage. Default: the paper's SRAM.
    faults
        Kind of fault and memory. Default: flips, every weight in cells of its own.
    per_channel, select, format
        How the weights are stored, and which of them lie in the memory; see `StoredWeights.of`.
    stored
        Instead of these: the model's weights as they lie in the memory.
    transform
        A module in front of the model that runs at nominal voltage, once for each batch (NeuralFuse).
    metric
        A word of `faultsim.metrics.metric.METRICS`, or your own: see `faultsim.metrics.metric.find_metric`. It is
        given the model's answer (its logits, where the output holds more) and the labels.
    sites
        Which memory's cells fail: "weights", "activations" or "both".
    activations
        The memory of the model's activations, which are quantized then, whether its cells fail or not. Its voltage, if
        it has one, holds for the activations only.
    compute
        "float32": the model computes in the types of its weights. "bfloat16": it computes under torch's autocast, with
        weights rounded to bfloat16, which is faster on processors that multiply so, and changes a few answers.
    report
        Called with the evaluation of the chips so far, each time that a group of them is done.

    Returns
    -------
    Evaluation
        An answer that isn't finite is wrong, and counted in `not_finite`. Transient faults are drawn anew for every
        batch; the batch's number is the index of the access.

    Raises
    ------
    FaultsimError
        For no chips, no images, voltages and rates out of range, a model that fails, and answers or labels that the
        metric cannot take.

    Warns
    -----
    FaultsimWarning
        Of an accuracy without bit errors that guessing reaches.
    """
    if not chips:
        raise FaultsimError("no chips to evaluate on: give at least one")
    chips = [as_chip(chip) for chip in chips]
    metric = find_metric(metric)
    volts, rate = resolve_operating_point(chips, voltage, bit_error_rate, curve)
    check_memories(sites, activations, chips)
    stored = resolve_stored(model, stored, per_channel, select, format)
    faults = resolve_faults(faults, stored, curve)
    device = stored.layers[0].values.device
    hooked = None
    if activations is not None:
        hooked = Sites(
            model, activations, device, chips if sites != "weights" else (), voltage, bit_error_rate, curve
        )
    most = max(1, WEIGHT_BYTES_AT_ONCE // max(1, stored.float_bytes + (hooked.bytes if hooked else 0)))
    once = iter(data) is data
    if len(chips) > most and once:
        raise FaultsimError(
            "so many chips need several passes: give data that can be iterated again, not an iterator"
        )
    clean = rate == 0 and (activations is None or activations.voltage is None)
    together = most
    if report is not None and not once:
        # a transform runs once for all chips of a group, and a CUDA graph holds one: then single chips aren't worth it
        together = min(most, 1 if transform is None and device.type == "cpu" else 8)

    found: Evaluation | None = None
    with contextlib.ExitStack() as inside:
        inside.enter_context(evaluation_mode(model, transform))
        inside.enter_context(torch.inference_mode())
        passes = Passes(model, device, compute, whole=hooked is not None)
        if hooked is not None:
            inside.enter_context(hooked)
        elif device.type == "cpu":
            stored = inside.enter_context(folded(model, stored))
            inside.enter_context(overwriting(model))
        group: _Group | None = None
        while found is None or found.chips < len(chips):
            first, began = 0 if found is None else found.chips, time.monotonic()
            now = chips[first : first + together]
            if group is None or len(group.metrics) != len(now):
                group = _Group(passes, transform, stored, hooked, metric, len(now))
            if hooked is not None:
                hooked.take(first, len(now))
            if sites == "activations":  # the weights are read without errors
                part = group.evaluate(data, [Chip(0)] * len(now), 0.0, None, FaultModel())
            else:
                part = group.evaluate(data, now, rate, volts, faults)
            if found is None and clean and isinstance(group.metrics[0], TopK):
                _warn_of_chance(metric, group.metrics[0], part)
            found = part if found is None else found.joined(part)
            if report is not None:
                report(found)
            if time.monotonic() - began < QUICK_SECONDS:
                together = min(most, 2 * together)
    return found


class _Group:
    """So many chips, evaluated at once: their weights and metrics lie where a CUDA graph finds them again."""

    def __init__(
        self,
        passes: Passes,
        transform: nn.Module | None,
        stored: StoredWeights,
        activations: Sites | None,
        metric: Metric,
        chips: int,
    ) -> None:
        self.passes, self.transform, self.stored, self.metric = passes, transform, stored, metric
        self.activations = activations
        # Any: collectors of faultsim have more than those of users
        self.metrics: list[Any] = [metric.begin() for _ in range(chips)]
        self.weights: list[list[Tensor]] = []  # of each chip, one tensor a layer
        self.used = False
        self.spec: TreeSpec | None = None  # the form of the batches that are replayed
        # on a GPU all chips' passes are launched at once; a weak reference, so that the weights go with the group
        mine, device = weakref.proxy(self), stored.layers[0].values.device
        self.call = (
            Graphed(lambda *leaves: mine._judge_leaves(*leaves), device) if metric.capturable else None
        )

    def evaluate(
        self,
        data: Iterable[Any],
        chips: Sequence[AnyChip],
        rate: float | None,
        volts: float | None,
        faults: FaultModel,
    ) -> Evaluation:
        if self.used and self.metric.capturable:
            for metric in self.metrics:
                metric.reset()
        elif self.used:
            self.metrics = [self.metric.begin() for _ in self.metrics]
        self.used = True
        self._read(self.stored.read_chips(chips, rate, volts, faults))
        images = 0
        for access, batch in enumerate(data):
            if access and faults.kind is FaultKind.TRANSIENT:  # every batch reads the weights anew
                self._read(self.stored.read_chips(chips, rate, volts, faults, access))
            if self.activations is not None:
                self.activations.read(access)
            inputs, targets = split_batch(batch)
            images += count_samples(inputs, targets)
            try:
                self._judge(inputs, targets)
            except FaultsimError:
                raise
            except Exception as error:  # a user's model may fail in any way
                raise FaultsimError(
                    f"the model fails on inputs {describe_inputs(inputs)}: {summarize_error(error)}"
                ) from error
        if images == 0:
            raise FaultsimError("no images to evaluate on")
        scores = tuple(metric.compute() for metric in self.metrics)
        not_finite = tuple(metric.not_finite for metric in self.metrics)
        return Evaluation(
            tuple(metric.right for metric in self.metrics) if self.metric.counts else (),
            images,
            self.metric,
            () if self.metric.counts else scores,
            not_finite if any(not_finite) else (),
        )

    def _read(self, weights: Sequence[Tensor]) -> None:
        """Write weights into the same memory each time.

        A chip's weights are aligned as those of any other: its results depend on no other chip of the group.
        """
        if not self.weights:
            placed = []
            for held, read in zip(self.stored.layers, weights, strict=True):
                fits = read[0].nbytes % _ALIGNMENT == 0
                placed.append([self.passes.place(held, w if fits else w.clone()) for w in read])
            self.weights = [list(chip) for chip in zip(*placed, strict=True)]
            return
        for i, mine in enumerate(self.weights):
            for own, layer in zip(mine, weights, strict=True):
                own.copy_(layer[i])

    def _judge(self, inputs: Inputs, targets: Any) -> None:
        leaves, spec = tree_flatten((inputs, targets))
        self.spec = self.spec or spec
        if self.call is not None and spec == self.spec and all(isinstance(leaf, Tensor) for leaf in leaves):
            self.call(*leaves)
        else:
            self._judge_as_written(inputs, targets)

    def _judge_leaves(self, *leaves: Tensor) -> None:
        spec: Any = self.spec
        self._judge_as_written(*tree_unflatten(leaves, spec))

    def _judge_as_written(self, inputs: Inputs, targets: Any) -> None:
        if self.transform is not None:
            if not isinstance(inputs, Tensor):
                raise FaultsimError("a transform goes in front of a model with one input, not several")
            inputs = self.transform(inputs)
        for at, (metric, weights) in enumerate(zip(self.metrics, self.weights, strict=True)):
            if self.activations is not None:
                self.activations.use(at)
            with self.stored.replaced(weights):
                answers = self.passes(inputs)
            metric.update(answers, targets)


def _warn_of_chance(metric: Metric, first: TopK, found: Evaluation) -> None:
    if first.is_chance():
        warnings.warn(
            f"without bit errors the {metric.name} is {100 * found.mean:.2f} %, which guessing reaches too: is the "
            "model trained, and for these labels and inputs?",
            FaultsimWarning,
            stacklevel=3,
        )
