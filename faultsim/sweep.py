"""Accuracy and energy against voltage: plan, run, resume."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from .bounds import parse_integer
from .errors import FaultsimError
from .evaluation import Evaluation, evaluate
from .faultmap import MeasuredChip
from .faults import Chip, FaultModel
from .results import RunDirectory, cell
from .stored import StoredWeights
from .voltage import VoltageCurve

ROW = ("variant", "voltage", "bit_error_rate", "chip", "correct", "images", "accuracy")
SUMMARY = (
    "variant",
    "voltage",
    "bit_error_rate",
    "energy_per_access",
    "energy_per_inference",
    "energy_saving",
    "chips",
    "images",
    "mean",
    "std",
    "sample_std",
    "ci95_low",
    "ci95_high",
    "worst",
    "best",
)
UNPROTECTED = "unprotected"


@dataclass(frozen=True)
class Point:
    """One operating point. A bit error rate that was asked for directly may have no voltage on the curve."""

    voltage: float | None  #: in the unit of the curve
    bit_error_rate: float
    energy_per_access: float | None  #: relative to Vmin


@dataclass(frozen=True)
class Variant:
    """The model as it is, or with a transform in front."""

    name: str = UNPROTECTED
    transform: nn.Module | None = field(default=None, compare=False)
    transform_accesses: int = (
        0  #: weight memory accesses of one inference of the transform, which runs at Vmin
    )


@dataclass(frozen=True)
class Result:
    """One variant at one point."""

    variant: str
    point: Point
    evaluation: Evaluation
    energy_per_inference: (
        float | None
    )  #: weight memory energy in units of one access at Vmin; None: not counted
    energy_saving: (
        float | None
    )  #: fraction saved against the unprotected model at Vmin (the paper's equation 2)

    def summary(self) -> dict[str, object]:
        """The row of summary.csv."""
        e = self.evaluation
        low, high = e.interval
        values = (
            self.variant,
            self.point.voltage,
            self.point.bit_error_rate,
            self.point.energy_per_access,
            self.energy_per_inference,
            self.energy_saving,
            len(e.correct),
            e.images,
            e.mean,
            e.std,
            e.sample_std,
            low,
            high,
            e.worst,
            e.best,
        )
        return dict(zip(SUMMARY, values, strict=True))


def points(
    curve: VoltageCurve, voltages: Sequence[float] | None, rates: Sequence[float] | None
) -> list[Point]:
    """Operating points from the highest voltage (lowest bit error rate) to the lowest; FaultsimError off the curve."""
    if (voltages is None) == (rates is None):
        raise FaultsimError("give either voltages or bit error rates")
    if voltages is not None:
        ordered = sorted(voltages, reverse=True)
        return [Point(v, curve.bit_error_rate(v), curve.energy_per_access(v)) for v in ordered]
    found = []
    for rate in sorted(rates):
        try:
            voltage = curve.voltage(rate)
        except FaultsimError:
            if not 0.0 <= rate <= 1.0:
                raise
            found.append(Point(None, rate, None))  # a rate to study, at a voltage that nobody measured
        else:
            found.append(Point(voltage, rate, curve.energy_per_access(voltage)))
    return found


def as_far_as_measured(plan: Sequence[Point], chips: Sequence[MeasuredChip]) -> list[Point]:
    """The points down to the lowest voltage at which all chips were measured; all of them where there are no such."""
    lowest = max((chip.fault_map.lowest_voltage or 0.0 for chip in chips), default=0.0)
    return [point for point in plan if point.voltage is None or point.voltage >= lowest] or list(plan)


def as_measured(plan: Sequence[Point], chips: Sequence[MeasuredChip]) -> list[Point]:
    """The same voltages with the share of cells that fail on the chips themselves, on average; FaultsimError for points
    without a voltage."""
    if any(point.voltage is None for point in plan):
        raise FaultsimError("measured chips are swept over voltages, not bit error rates")
    return [
        replace(
            point,
            bit_error_rate=sum(chip.fault_map.at(point.voltage).bit_error_rate for chip in chips)
            / len(chips),
        )
        for point in plan
    ]


def sweep(
    model: nn.Module,
    data: Iterable[tuple[Tensor, Tensor]],
    chips: Sequence[Chip | MeasuredChip],
    plan: Sequence[Point],
    *,
    faults: FaultModel,
    stored: StoredWeights,
    variants: Sequence[Variant] = (Variant(),),
    accesses: int | None = None,
    directory: RunDirectory | None = None,
    report: Callable[[Result], None] = lambda result: None,
) -> list[Result]:
    """Evaluates every variant at every point on every chip and returns the results in that order of points.

    accesses   weight memory accesses of one inference of the model, for the energy; None leaves it out
    directory  open RunDirectory: points that stand in its rows are not computed again, those that are computed are
               added to it one by one. `report` is called with each result, old or new, in order.
    """
    labels = [str(getattr(chip, "label", None) or chip.seed) for chip in chips]
    known = _known(directory, plan, variants, labels) if directory else {}
    results = []
    for point in plan:
        for variant in variants:
            evaluation = known.get((variant.name, point))
            if evaluation is None:
                evaluation = evaluate(
                    model,
                    data,
                    chips,
                    faults=faults,
                    stored=stored,
                    transform=variant.transform,
                    **_where(point, chips),
                )
                if directory:
                    directory.add(_rows(variant, point, labels, evaluation))
            result = _result(variant, point, evaluation, accesses)
            results.append(result)
            report(result)
    return results


def _where(point: Point, chips: Sequence[Chip | MeasuredChip]) -> dict:
    if isinstance(chips[0], MeasuredChip):
        return {"voltage": point.voltage}
    return {"bit_error_rate": point.bit_error_rate}


def _result(variant: Variant, point: Point, evaluation: Evaluation, accesses: int | None) -> Result:
    energy = saving = None
    if accesses is not None and point.energy_per_access is not None:
        energy = accesses * point.energy_per_access + variant.transform_accesses
        saving = 1 - energy / accesses
    return Result(variant.name, point, evaluation, energy, saving)


def _rows(variant: Variant, point: Point, labels: Sequence[str], evaluation: Evaluation) -> list[dict]:
    shared = (variant.name, point.voltage, point.bit_error_rate)
    return [
        dict(zip(ROW, (*shared, label, correct, evaluation.images, accuracy), strict=True))
        for label, correct, accuracy in zip(labels, evaluation.correct, evaluation.accuracies, strict=True)
    ]


def _known(
    directory: RunDirectory, plan: Sequence[Point], variants: Sequence[Variant], labels: Sequence[str]
) -> dict[tuple[str, Point], Evaluation]:
    """Evaluations that the directory's rows hold; FaultsimError unless they are what this sweep began with."""
    known = {}
    rows = list(directory.rows)
    for point in plan:
        for variant in variants:
            if not rows:
                return known
            group, rows = rows[: len(labels)], rows[len(labels) :]
            try:
                evaluation = Evaluation(
                    tuple(parse_integer(row["correct"]) for row in group), parse_integer(group[0]["images"])
                )
                written = [
                    {name: cell(row[name]) for name in ROW}
                    for row in _rows(variant, point, labels, evaluation)
                ]
            except (ValueError, ArithmeticError):
                written = []
            if written != group or not all(0 <= c <= evaluation.images for c in evaluation.correct):
                raise _changed(directory)
            known[variant.name, point] = evaluation
    if rows:
        raise _changed(directory)
    return known


def _changed(directory: RunDirectory) -> FaultsimError:
    return FaultsimError(
        f"{directory.results} is not what this sweep wrote there: was it changed? choose another directory"
    )
