"""Accuracy, or another metric, and energy against voltage: plan, run, resume."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from torch import nn

from .errors import FaultsimError
from .evaluation import Evaluation, evaluate
from .faults import FaultModel
from .io.bounds import parse_integer
from .io.run_directory import RunDirectory, cell, used_columns
from .measured_chip import AnyChip, MeasuredChip
from .metrics import ACCURACY, AnyMetric, Metric, find_metric
from .stored import StoredWeights
from .voltage import VoltageCurve


def row_columns(metric: Metric) -> tuple[str, ...]:
    """Of results.csv."""
    counted = ("correct",) if metric.counts else ()
    return ("variant", "voltage", "bit_error_rate", "chip", *counted, "images", metric.column)


ROW = row_columns(ACCURACY)
OPTIONAL = ("not_finite",)
"""A further column of results.csv and summary.csv, where some answers were not finite."""
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
MEASURED = ("metric", "higher_is_better")
"""Further columns of summary.csv, where something else than accuracy was measured."""
PICOJOULES = "energy_per_inference_pj"  #: one more, where the curve says what an access takes
UNPROTECTED = "unprotected"

KEEP_SECONDS = 1.0
"""Least seconds between two times that rows are written, within one operating point."""
KEEP_SHARE = 20
"""They are also at least so many times as long as writing took: the file grows, and is written anew each time."""


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
    picojoules: float | None = None  #: energy_per_inference, where the curve says what an access takes

    def summary(self) -> dict[str, object]:
        """What summary.csv says of it, under SUMMARY, MEASURED and OPTIONAL; see summary_columns."""
        e = self.evaluation
        low, high = e.interval
        values = (
            self.variant,
            self.point.voltage,
            self.point.bit_error_rate,
            self.point.energy_per_access,
            self.energy_per_inference,
            self.energy_saving,
            e.chips,
            e.images,
            e.mean,
            e.std,
            e.sample_std,
            low,
            high,
            e.worst,
            e.best,
            e.metric.name,
            e.metric.higher_is_better,
            e.wrong_numbers,
            self.picojoules,
        )
        return dict(zip((*SUMMARY, *MEASURED, *OPTIONAL, PICOJOULES), values, strict=True))


def summary_columns(results: Sequence[Result]) -> tuple[str, ...]:
    """Of summary.csv for these results."""
    measured = () if all(result.evaluation.metric == ACCURACY for result in results) else MEASURED
    absolute = () if all(result.picojoules is None for result in results) else (PICOJOULES,)
    rows = [result.summary() for result in results]
    return (*used_columns((*SUMMARY, *measured), OPTIONAL, rows), *absolute)


def points(
    curve: VoltageCurve, voltages: Sequence[float] | None, rates: Sequence[float] | None
) -> list[Point]:
    """Operating points from the highest voltage (lowest bit error rate) to the lowest; FaultsimError off the curve."""
    if (voltages is None) == (rates is None):
        raise FaultsimError("give either voltages or bit error rates")
    if not len(rates if voltages is None else voltages):
        raise FaultsimError("no operating points: give at least one voltage or bit error rate")
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
    data: Iterable[Any],
    chips: Sequence[AnyChip],
    plan: Sequence[Point],
    *,
    faults: FaultModel,
    stored: StoredWeights,
    variants: Sequence[Variant] = (Variant(),),
    accesses: int | None = None,
    access_pj: float | None = None,
    metric: AnyMetric = ACCURACY,
    directory: RunDirectory | None = None,
    report: Callable[[Result], None] = lambda result: None,
    progress: Callable[[Result], None] | None = None,
) -> list[Result]:
    """Evaluates every variant at every point on every chip and returns the results in that order of points.

    data       batches, as for evaluate(); they must be something that can be iterated several times
    accesses   weight memory accesses of one inference of the model, for the energy; None leaves it out
    access_pj  picojoules of one access at Vmin, where they are known (VoltageCurve.access_pj)
    metric     what is measured, as for evaluate()
    directory  open RunDirectory with the columns row_columns(metric) and OPTIONAL: chips that stand in its rows are not
               computed again, those that are computed are added to it, a group at a time
    report     called with each result, old or new, in order
    progress   called with the result of the chips so far, each time that a group of them is done
    """
    metric = find_metric(metric)
    labels = [str(getattr(chip, "label", None) or chip.seed) for chip in chips]
    known = read_known(directory, plan, variants, labels, metric) if directory else {}
    results = []
    for point in plan:
        for variant in variants:
            evaluation = known.get((variant.name, point))
            if evaluation is None or evaluation.chips < len(chips):
                before = evaluation  # of the first chips, from a sweep that was stopped
                group_done = _keeper(directory, variant, point, labels, before, accesses, progress)
                evaluation = evaluate(
                    model,
                    data,
                    chips[before.chips if before else 0 :],
                    faults=faults,
                    stored=stored,
                    transform=variant.transform,
                    metric=metric,
                    report=group_done if directory or progress else None,
                    **_where(point, chips),
                )
                evaluation = before.joined(evaluation) if before else evaluation
            result = _result(variant, point, evaluation, accesses, access_pj)
            results.append(result)
            report(result)
    return results


def _keeper(
    directory: RunDirectory | None,
    variant: Variant,
    point: Point,
    labels: Sequence[str],
    before: Evaluation | None,
    accesses: int | None,
    progress: Callable[[Result], None] | None,
) -> Callable[[Evaluation], None]:
    """What to call with the evaluation of the chips so far: it adds their rows to the directory, from time to time and
    at the end, and reports progress."""
    kept = before.chips if before else 0
    last, pause = time.monotonic(), KEEP_SECONDS

    def group_done(found: Evaluation) -> None:
        nonlocal kept, last, pause
        found = before.joined(found) if before else found
        if directory and (found.chips == len(labels) or time.monotonic() - last >= pause):
            began = time.monotonic()
            directory.add(_rows(variant, point, labels, found, kept))
            kept, last = found.chips, time.monotonic()
            pause = max(KEEP_SECONDS, KEEP_SHARE * (last - began))
        if progress:
            progress(_result(variant, point, found, accesses))

    return group_done


def _where(point: Point, chips: Sequence[AnyChip]) -> dict:
    if isinstance(chips[0], MeasuredChip):
        return {"voltage": point.voltage}
    return {"bit_error_rate": point.bit_error_rate}


def _result(
    variant: Variant,
    point: Point,
    evaluation: Evaluation,
    accesses: int | None,
    access_pj: float | None = None,
) -> Result:
    energy = saving = absolute = None
    if accesses is not None and point.energy_per_access is not None:
        energy = accesses * point.energy_per_access + variant.transform_accesses
        saving = 1 - energy / accesses
        absolute = None if access_pj is None else energy * access_pj
    return Result(variant.name, point, evaluation, energy, saving, absolute)


def _rows(
    variant: Variant, point: Point, labels: Sequence[str], evaluation: Evaluation, first: int = 0
) -> list[dict]:
    """One for each chip that was evaluated, the first of `labels`, without the `first` of these."""
    columns = (*row_columns(evaluation.metric), *OPTIONAL)
    counted = [(count,) for count in evaluation.correct] or [()] * evaluation.chips
    not_finite = evaluation.not_finite or (0,) * evaluation.chips
    shared = (variant.name, point.voltage, point.bit_error_rate)
    chips = zip(labels, counted, evaluation.values, not_finite, strict=False)
    return [
        dict(zip(columns, (*shared, label, *count, evaluation.images, value, wrong), strict=True))
        for label, count, value, wrong in islice(chips, first, None)
    ]


def read_known(
    directory: RunDirectory,
    plan: Sequence[Point],
    variants: Sequence[Variant],
    labels: Sequence[str],
    metric: Metric,
) -> dict[tuple[str, Point], Evaluation]:
    """Evaluations that the directory's rows hold, the last one perhaps of the first chips only; FaultsimError unless
    they are what this sweep began with."""
    known = {}
    rows = list(directory.rows)
    for point in plan:
        for variant in variants:
            if not rows:
                return known
            group, rows = rows[: len(labels)], rows[len(labels) :]
            try:
                evaluation = evaluation_in(group, metric)
                written = [
                    {name: cell(row[name]) for name in (*directory.columns, *directory.optional)}
                    for row in _rows(variant, point, labels, evaluation)
                ]
            except (ValueError, ArithmeticError):
                written = []
            if written != group:
                raise _changed(directory)
            known[variant.name, point] = evaluation
    if rows:
        raise _changed(directory)
    return known


def evaluation_in(rows: Sequence[dict[str, str]], metric: Metric = ACCURACY) -> Evaluation:
    """What the rows of results.csv say of one variant at one point. Raises ValueError for what is no number, or can't
    be one, and KeyError for a column that is missing."""
    images = parse_integer(rows[0]["images"])
    not_finite = tuple(parse_integer(row.get(OPTIONAL[0]) or "0") for row in rows)
    correct = tuple(parse_integer(row["correct"]) for row in rows) if metric.counts else ()
    scores = () if metric.counts else tuple(float(row[metric.column] or "nan") for row in rows)
    if not all(0 <= count <= images for count in correct) or min(not_finite) < 0:
        raise ValueError("a count is out of range")
    return Evaluation(correct, images, metric, scores, not_finite if any(not_finite) else ())


def _changed(directory: RunDirectory) -> FaultsimError:
    return FaultsimError(
        f"{directory.results} is not what this sweep wrote there: was it changed? choose another directory"
    )
