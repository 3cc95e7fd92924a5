"""What a sweep evaluates: each variant at each operating point, on the same chips."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from ..activations.memory import ActivationMemory, FaultSites
from ..chips.measured_chip import AnyChip, MeasuredChip
from ..evaluation import Evaluation, evaluate
from ..faults import Chip, FaultModel
from ..metrics.metric import Metric
from ..stored import StoredWeights
from ..voltage import VoltageCurve
from .sweep_result import OperatingPoint, Variant

Report = Callable[[Evaluation], None] | None
Measure = Callable[[int, int, int, int, Report], Evaluation]
"""Evaluates a variant at a point, both by their numbers, on the chips from a first to before an end, and reports the
chips so far."""


@dataclass(frozen=True)
class Measurement:
    """All evaluations of a sweep."""

    model: nn.Module
    data: Iterable[Any]
    chips: Sequence[AnyChip]
    variants: Sequence[Variant]
    points: Sequence[OperatingPoint]
    faults: FaultModel
    stored: StoredWeights
    metric: Metric
    curve: VoltageCurve
    sites: FaultSites
    activations: ActivationMemory | None
    compute: str = "float32"
    """What the models compute in, as for evaluate."""
    _at_vmin: dict[int, Evaluation] = field(default_factory=dict, init=False)

    def find_faults(self, variant: int) -> FaultModel:
        """Return the fault model of a variant, with its voltage domains; without any for one that is at Vmin."""
        if self.variants[variant].at_vmin:
            return FaultModel()
        return replace(self.faults, domains=(*self.variants[variant].domains, *self.faults.domains))

    def find_supply(self, point: int) -> dict[str, float | None]:
        """Return the voltage or the bit error rate at a point, as evaluate takes them."""
        if isinstance(self.chips[0], MeasuredChip):
            return {"voltage": self.points[point].voltage}
        return {"bit_error_rate": self.points[point].bit_error_rate}

    def evaluate(self, variant: int, point: int, first: int, end: int, report: Report = None) -> Evaluation:
        """Evaluate a variant at a point in this process."""
        which = self.variants[variant]
        if which.at_vmin:
            found = repeat(self._evaluate_at_vmin(variant), end - first)
            if report is not None:
                report(found)
            return found
        return evaluate(
            which.model or self.model,
            self.data,
            self.chips[first:end],
            faults=self.find_faults(variant),
            stored=which.stored or self.stored,
            transform=which.transform,
            metric=self.metric,
            curve=self.curve,
            sites=self.sites,
            activations=self.activations,
            compute=self.compute,
            report=report,
            **self.find_supply(point),  # type: ignore[arg-type]
        )

    def _evaluate_at_vmin(self, variant: int) -> Evaluation:
        """Evaluate a variant without errors, once: it is the same on all chips and at all points."""
        if variant not in self._at_vmin:
            which = self.variants[variant]
            self._at_vmin[variant] = evaluate(
                which.model or self.model,
                self.data,
                [Chip(0)],
                bit_error_rate=0.0,
                stored=which.stored or self.stored,
                transform=which.transform,
                metric=self.metric,
                compute=self.compute,
            )
        return self._at_vmin[variant]


def repeat(found: Evaluation, chips: int) -> Evaluation:
    """Return the evaluation of so many chips that are all as the one that was evaluated."""
    return replace(
        found, correct=found.correct * chips, scores=found.scores * chips, not_finite=found.not_finite * chips
    )
