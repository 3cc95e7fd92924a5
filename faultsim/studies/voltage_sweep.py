"""Accuracy, or another metric, and energy against voltage: plan, run, resume."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from ..activations.memory import ActivationMemory, FaultSites
from ..chips.measured_chip import AnyChip, MeasuredChip, as_chip
from ..data import OwnBatches
from ..errors import FaultsimError
from ..evaluation import Evaluation
from ..faults import FaultModel
from ..formats import INT8, AnyFormat
from ..io.run_directory import RunDirectory
from ..metrics.metric import ACCURACY, AnyMetric, find_metric
from ..network.architecture import Architecture
from ..network.inventory import Select
from ..perturbation import resolve_faults, resolve_stored
from ..stored import StoredWeights
from ..voltage import VoltageCurve
from .conditions import Conditions
from .domain_energy import find_supplies
from .input_energy import add_input_memory
from .kept_study import choose_chips, describe_study, keep_study
from .measurement import Measure, Measurement
from .stopping import check_stopping, is_precise, measure_widths, plan_looks
from .subject import Subject, count_accesses
from .sweep_directory import keep_rows, read_known
from .sweep_result import OperatingPoint, SweepResult, SweepRow, Variant, make_row

if TYPE_CHECKING:
    from ..cluster.workers import AnyClient

FILES = ("results.csv", "summary.csv", "sweep.json", "sweep.png")
"""What sweep_subject writes into a directory."""
VOLTAGES = (0.78, 0.79, 0.80, 0.81, 0.82, 0.83, 0.84, 0.86, 0.90, 0.95, 1.00)
"""Where a sweep measures on the default curve, relative to Vmin."""


def plan_points(
    curve: VoltageCurve | None = None,
    voltages: Sequence[float] | None = None,
    bit_error_rates: Sequence[float] | None = None,
    chips: Sequence[AnyChip] = (),
) -> list[OperatingPoint]:
    """Plan the operating points of a sweep.

    Parameters
    ----------
    curve : VoltageCurve, optional
        Default: the paper's.
    voltages : sequence of float, optional
        In the unit of the curve. Default, without bit error rates: VOLTAGES on the default curve, else the points of
        the curve; for measured chips those at which all of them were measured.
    bit_error_rates : sequence of float, optional
        Instead of voltages: fractions of failing cells.
    chips : sequence of Chip or MeasuredChip
        The points of measured chips have the bit error rate of their fault maps, on average over the chips.

    Returns
    -------
    list of OperatingPoint
        From the highest voltage (lowest bit error rate) to the lowest.

    Raises
    ------
    FaultsimError
        For voltages off the curve, rates outside [0, 1], both or an empty list of either, and for bit error rates of
        measured chips.
    """
    if voltages is not None and bit_error_rates is not None:
        raise FaultsimError("give either voltages or bit error rates")
    given = voltages if bit_error_rates is None else bit_error_rates
    if given is not None and not len(given):
        raise FaultsimError("no operating points: give at least one voltage or bit error rate")
    known: Sequence[float] = VOLTAGES if curve is None else curve.voltages
    curve = curve or VoltageCurve.default()
    measured = [chip for chip in chips if isinstance(chip, MeasuredChip)]
    if bit_error_rates is not None:
        if measured:
            raise FaultsimError("measured chips are swept over voltages, not bit error rates")
        return [_find_point(curve, rate) for rate in sorted(bit_error_rates)]
    if voltages is None and measured:
        lowest = max(chip.fault_map.lowest_voltage or 0.0 for chip in measured)
        known = [voltage for voltage in known if voltage >= lowest] or known
    return [
        OperatingPoint(v, _share_failing(curve, measured, v), curve.energy_per_access(v))
        for v in sorted(known if voltages is None else voltages, reverse=True)
    ]


def _find_point(curve: VoltageCurve, rate: float) -> OperatingPoint:
    """Return the operating point of a bit error rate, without voltage if the curve does not reach it."""
    try:
        voltage = curve.voltage(rate)
    except FaultsimError:
        if not 0.0 <= rate <= 1.0:
            raise
        return OperatingPoint(None, rate, None)
    return OperatingPoint(voltage, rate, curve.energy_per_access(voltage))


def _share_failing(curve: VoltageCurve, chips: Sequence[MeasuredChip], voltage: float) -> float:
    """Return the bit error rate of a curve, or of measured chips on average."""
    if not chips:
        return curve.bit_error_rate(voltage)
    return sum(chip.fault_map.at(voltage).bit_error_rate for chip in chips) / len(chips)


def sweep(
    model: nn.Module,
    data: Iterable[Any],
    chips: Sequence[AnyChip | int],
    points: Sequence[OperatingPoint] | None = None,
    *,
    voltages: Sequence[float] | None = None,
    bit_error_rates: Sequence[float] | None = None,
    curve: VoltageCurve | None = None,
    faults: FaultModel | None = None,
    per_channel: bool = False,
    select: Select = None,
    format: AnyFormat = INT8,
    stored: StoredWeights | None = None,
    variants: Sequence[Variant] = (Variant(),),
    accesses: int | Literal["count"] | None = "count",
    metric: AnyMetric = ACCURACY,
    precision: float | None = None,
    sites: FaultSites = "weights",
    activations: ActivationMemory | None = None,
    compute: str = "float32",
    title: str = "sweep",
    directory: RunDirectory | None = None,
    report: Callable[[SweepRow], None] | None = None,
    progress: Callable[[SweepRow], None] | None = None,
    client: "AnyClient | None" = None,
    architecture: Architecture | None = None,
) -> SweepResult:
    """Measure accuracy, or another metric, and energy against supply voltage.

        result = faultsim.sweep(model, data, range(10), voltages=[1.0, 0.9, 0.83, 0.8])
        pandas.DataFrame(result.rows())

    Parameters
    ----------
    model : nn.Module
        It runs in evaluation mode and keeps its weights.
    data : iterable of batches
        On the device of the model, as for evaluate. It is iterated several times: a list or a DataLoader.
    chips : sequence of Chip, MeasuredChip or int
        Chips, or their seeds.
    points : sequence of OperatingPoint, optional
        Where to measure, as plan_points returns it.
    voltages, bit_error_rates, curve
        Instead of `points`: what plan_points makes them of.
    faults : FaultModel, optional
        What a failing cell does, and how the weights lie in the memory. Default: independent flips.
    per_channel, select, format
        How weights are stored, and which tensors lie in the memory, as for StoredWeights.of.
    stored : StoredWeights, optional
        Instead of these: the model's weights as they lie in the memory.
    variants : sequence of Variant
        The model alone (default), and behind transforms such as NeuralFuse generators.
    accesses : int or "count", optional
        Weight memory accesses of one inference, for the energy; default: counted on the paper's accelerator with the
        first sample. None: no energy.
    metric
        What is measured, as for evaluate.
    precision : float, optional
        Stop at each operating point once the 95 % interval of every variant, and of its difference to the first on the
        same chips, has at most this half width, in the unit of the metric (a fraction for an accuracy). `chips` are
        then the most that are evaluated, in this order. The intervals are those of faultsim.studies.precision.
    sites, activations
        Which memory's cells fail, as for evaluate. The energy is that of both memories where activations fail.
    compute : str
        What the model computes in, as for evaluate.
    title : str
        One line for tables and pictures.
    directory : RunDirectory, optional
        An open directory with the columns list_columns(metric) and OPTIONAL. What its rows hold is not computed again;
        rows are added for a group of chips at a time.
    report : callable, optional
        Called with each row, read or new, in order.
    progress : callable, optional
        Called with the row of the chips so far, each time that a group of chips is done.
    client : distributed.Client or faultsim.cluster.workers.Workers, optional
        Whose workers evaluate. The results are the same as without.
    architecture : Architecture, optional
        With a client: what makes the model anew on the workers.

    Returns
    -------
    SweepResult
        All variants at the first point, then all at the second, and so on.

    Raises
    ------
    FaultsimError
        For the reasons that plan_points and evaluate have, and for a directory with the rows of another sweep.
    """
    sample, faults, metric = [as_chip(chip) for chip in chips], faults or FaultModel(), find_metric(metric)
    if points is None:
        points = plan_points(curve, voltages, bit_error_rates, sample)
    elif voltages is not None or bit_error_rates is not None:
        raise FaultsimError("give either points, or voltages or bit error rates")
    curve = curve or VoltageCurve.default()
    stored = resolve_stored(model, stored, per_channel, select, format)
    if accesses == "count":
        accesses = count_accesses(model, _first(data), stored.format)
    faults = resolve_faults(faults, stored, curve)
    supplies = find_supplies(model, data, stored, faults.domains, curve, accesses)
    supplies = add_input_memory(supplies, model, data, sites, activations, curve)
    labels = [str(chip.label if isinstance(chip, MeasuredChip) else chip.seed) for chip in sample]
    precision = check_stopping(precision, sample)
    known = read_known(directory, points, variants, labels, metric, precision) if directory else {}
    looks = plan_looks(len(sample), precision)
    measurement = Measurement(
        model, data, sample, variants, points, faults, stored, metric, curve, sites, activations, compute
    )
    rows: list[SweepRow] = []

    def finish(row: SweepRow) -> None:
        rows.append(row)
        if report:
            report(row)

    def measure_all(evaluate: Measure) -> None:
        def measure(place: int, number: int, before: Evaluation | None, end: int) -> Evaluation:
            """Evaluate the chips before `end`, of which the first ones may be known."""
            if before is not None and before.chips >= end:
                return before
            group_done = keep_rows(
                directory, variants[place], points[number], labels[:end], before, supplies, progress
            )
            first = before.chips if before else 0
            evaluation = evaluate(place, number, first, end, group_done if directory or progress else None)
            return before.joined(evaluation) if before else evaluation

        for number, point in enumerate(points):
            before = [known.get((variant.name, point)) for variant in variants]
            if precision is None:
                for place, variant in enumerate(variants):
                    evaluation = measure(place, number, before[place], len(sample))
                    finish(make_row(variant, point, evaluation, supplies, curve.access_pj))
                continue
            for end in looks:
                found = [measure(place, number, before[place], end) for place in range(len(variants))]
                before = [*found]
                if is_precise([one.first(end) for one in found], precision, point.bit_error_rate):
                    break
            alone, differences = measure_widths(found, precision, point.bit_error_rate)
            for variant, evaluation, *widths in zip(variants, found, alone, differences, strict=True):
                row = make_row(variant, point, evaluation, supplies, curve.access_pj)
                finish(replace(row, half_width=widths[0], gain_half_width=widths[1]))

    if client is None:
        measure_all(measurement.evaluate)
    else:
        from ..cluster.spread import spread_measurement

        with spread_measurement(
            measurement, client, architecture, looks, precision, known, directory
        ) as evaluate_by_workers:
            measure_all(evaluate_by_workers)
    conditions = Conditions.of(
        faults, sample, curve, stored.share, sites, activations, stored.format, compute
    )
    accesses = supplies.total if supplies else None
    return SweepResult(
        tuple(rows), conditions, tuple(labels), title, accesses, supplies=supplies, precision=precision
    )


def sweep_subject(
    subject: Subject,
    chips: int | Sequence[AnyChip] = 10,
    points: Sequence[OperatingPoint] | None = None,
    *,
    voltages: Sequence[float] | None = None,
    bit_error_rates: Sequence[float] | None = None,
    curve: VoltageCurve | None = None,
    faults: FaultModel | None = None,
    transform: Variant | None = None,
    variants: Sequence[Variant] = (),
    metric: AnyMetric = ACCURACY,
    precision: float | None = None,
    sites: FaultSites = "weights",
    activations: ActivationMemory | None = None,
    seed: int = 0,
    out: str | PathLike[str] | None = None,
    report: Callable[[SweepRow], None] | None = None,
    progress: Callable[[SweepRow], None] | None = None,
    client: "AnyClient | None" = None,
) -> SweepResult:
    """Measure a subject against supply voltage, and keep the results in a directory.

    A sweep that was stopped goes on when it is started again with the same directory and the same arguments.

    Parameters
    ----------
    subject : Subject
        Model, weights and data.
    chips : int or sequence of Chip or MeasuredChip
        How many simulated chips of `seed`, or which chips; the most of them with a precision.
    points, voltages, bit_error_rates, curve, faults, metric, precision, sites, activations, report, progress, client
        As for sweep.
    transform : Variant, optional
        Also measure the model behind this transform, such as neuralfuse.files.SavedGenerator.create_variant makes it.
    variants : sequence of Variant
        Others to measure, such as those of faultsim.compare.
    seed : int
        Which simulated chips: those of two seeds have none in common.
    out : path, optional
        Directory for FILES.

    Returns
    -------
    SweepResult

    Raises
    ------
    FaultsimError
        For the reasons that sweep has; for a directory in use, or with a run of another configuration.
    """
    faults, metric = faults or FaultModel(), find_metric(metric)
    chips = choose_chips(chips, seed)
    if points is None:
        points = plan_points(curve, voltages, bit_error_rates, chips)
    curve = curve or VoltageCurve.default()
    where = {"points": [vars(point) for point in points]}
    configuration = {
        **describe_study(subject, curve, where, faults, seed, chips, client),
        **({} if metric == ACCURACY else {"metric": metric.describe()}),
        **({} if activations is None else {"fault_sites": sites, "activations": activations.describe()}),
        **({} if precision is None else {"precision": check_stopping(precision, chips)}),
        **({"generator": {"name": transform.name, "weights": transform.fingerprint}} if transform else {}),
        **({"variants": [variant.describe() for variant in variants]} if variants else {}),
    }
    stored = subject.stored
    conditions = Conditions.of(
        faults, chips, curve, stored.share, sites, activations, stored.format, subject.compute
    )

    def run(directory: RunDirectory | None) -> SweepResult:
        found = sweep(
            subject.model,
            subject.data,
            chips,
            points,
            curve=curve,
            faults=faults,
            stored=stored,
            variants=[Variant(), *([transform] if transform else []), *variants],
            accesses=subject.accesses,
            metric=metric,
            precision=precision,
            sites=sites,
            activations=activations,
            compute=subject.compute,
            title=subject.title,
            directory=directory,
            report=report,
            progress=progress,
            client=client,
            architecture=subject.architecture,
        )
        uncounted = () if subject.accesses is None else tuple(subject.uncounted)
        if activations is not None and sites != "weights" and activations.ranges.of_cache:
            uncounted += ("the key-value cache",)
        return replace(found, uncounted=uncounted)

    return keep_study(run, subject, configuration, conditions, metric, out, FILES, client)


def _first(data: Iterable[Any]) -> OwnBatches:
    """Return the first batch, if there is one and `data` can be iterated again."""
    if iter(data) is data:
        raise FaultsimError(
            "a sweep iterates the data several times: give a list or a DataLoader, not an iterator"
        )
    first = OwnBatches.first_of(data)
    if not first.batches:
        raise FaultsimError("no images to evaluate on")
    return first
