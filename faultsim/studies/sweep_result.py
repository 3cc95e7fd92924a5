"""What a sweep over voltages found: a record for each variant at each operating point."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from torch import nn

from ..domains import Domain
from ..errors import FaultsimError
from ..evaluation import Evaluation
from ..io.bounds import parse_integer
from ..io.run_directory import find_used_columns, without_nan
from ..metrics.metric import ACCURACY, Metric
from ..network.architecture import Architecture
from .conditions import Conditions
from .domain_energy import Supplies
from .pareto import find_front
from .stopping import plan_looks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..stored import StoredWeights


def list_columns(metric: Metric) -> tuple[str, ...]:
    """Return the columns of results.csv for a metric."""
    counted = ("correct",) if metric.counts else ()
    return ("variant", "voltage", "bit_error_rate", "chip", *counted, "images", metric.column)


OPTIONAL = ("not_finite",)
"""A further column of results.csv and summary.csv, where some answers were not finite."""
UNCOUNTED = "uncounted"
"""A further column of summary.csv, where the energy of some variant is a lower bound: what it leaves out."""
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
"""Further columns of summary.csv, for other metrics than accuracy."""
PICOJOULES = "energy_per_inference_pj"
"""One more column of summary.csv, where the curve knows the energy of an access in picojoules."""
UNPROTECTED = "unprotected"


@dataclass(frozen=True)
class OperatingPoint:
    """A supply voltage and the bit error rate there."""

    voltage: float | None
    """In the unit of the curve; None for a bit error rate that the curve does not reach."""
    bit_error_rate: float
    """Fraction of failing cells."""
    energy_per_access: float | None
    """Relative to Vmin; None without a voltage."""

    def __str__(self) -> str:
        """Return "V = 0.83", or "BER 1 %" where there is no voltage."""
        from ..show.units import format_percent

        if self.voltage is None:
            return f"BER {format_percent(self.bit_error_rate)}"
        return f"V = {self.voltage:.4g}"


@dataclass(frozen=True)
class Variant:
    """The model as it is, or with a transform in front of it, such as a NeuralFuse generator, or in another memory."""

    name: str = UNPROTECTED
    transform: nn.Module | None = field(default=None, compare=False)
    """Runs at Vmin, without bit errors."""
    transform_accesses: int = 0
    """Weight memory accesses of one inference of the transform."""
    fingerprint: str = ""
    """SHA-256 (hex) of all that the transform computes with."""
    domains: tuple[Domain, ...] = ()
    """Voltage domains of this variant, in front of those of the fault model."""
    stored: "StoredWeights | None" = field(default=None, compare=False)
    """The model's weights in another memory, such as one with a mitigation."""
    model: nn.Module | None = field(default=None, compare=False)
    """Another model on the same data; its weights are those of `stored`."""
    at_vmin: bool = False
    """Whether the weights are read at Vmin, without errors, at every point."""
    energy: Callable[[OperatingPoint], float | None] | None = field(default=None, compare=False)
    """Weight memory energy of one inference, without the transform's; default: that of plain reads."""
    uncounted: str = ""
    """What the energy leaves out: where it says something, the energy is a lower bound."""
    architecture: Architecture | None = field(default=None, compare=False)
    """What makes the transform, or the other model, anew on the workers of a cluster."""

    def describe(self) -> dict[str, str]:
        """Return all that the results of the variant depend on, as JSON values."""
        return {"name": self.name, "fingerprint": self.fingerprint}


@dataclass(frozen=True)
class SweepRow:
    """One variant at one operating point."""

    variant: str
    point: OperatingPoint
    evaluation: Evaluation
    energy_per_inference: float | None
    """Weight memory energy in units of one access at Vmin; None where it was not counted."""
    energy_saving: float | None
    """Fraction saved relative to the unprotected model at Vmin (the paper's equation 2)."""
    picojoules: float | None = None
    """Weight memory energy of one inference, where the curve knows the energy of an access."""
    half_width: float | None = None
    """Of the interval, where the sweep stopped at a precision."""
    gain_half_width: float | None = None
    """Of the interval of the difference to the first variant, where the sweep stopped at a precision."""
    uncounted: str = ""
    """What the energy leaves out: where it says something, the energy is a lower bound."""

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the mean, of fractions within [0, 1]; NaN where it is not known.

        That of faultsim.studies.precision where the sweep stopped at a precision, else Student's t.
        """
        e, half = self.evaluation, self.half_width
        if half is None:
            return e.interval
        if not (math.isfinite(half) and math.isfinite(e.mean)):
            return math.nan, math.nan
        low, high = e.mean - half, e.mean + half
        return (max(0.0, low), min(1.0, high)) if e.metric.fraction else (low, high)

    def as_dict(self) -> dict[str, object]:
        """Return all that summary.csv may contain, by column: SUMMARY, MEASURED, OPTIONAL, UNCOUNTED and PICOJOULES."""
        e = self.evaluation
        low, high = self.interval
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
            self.uncounted,
            self.picojoules,
        )
        return dict(zip((*SUMMARY, *MEASURED, *OPTIONAL, UNCOUNTED, PICOJOULES), values, strict=True))


@dataclass(frozen=True, repr=False)
class SweepResult(Sequence[SweepRow]):
    """All that a sweep found: a sequence of SweepRow, from the highest voltage to the lowest, variant after variant.

    It prints as tables, in a terminal and in a notebook. `pandas.DataFrame(result.rows())` is the summary as a data
    frame.
    """

    records: tuple[SweepRow, ...]
    conditions: Conditions
    """Fault kind, placement, curve and share of the weights in the faulty memory: the same for all rows."""
    labels: tuple[str, ...]
    """Of the chips: the seed of a simulated chip, the name of a measured one."""
    title: str = "sweep"
    """What was measured, in one line."""
    accesses: int | None = None
    """Memory accesses of one inference of the model: reads of weights, and of inputs where activations fail; None where
    they were not counted."""
    uncounted: tuple[str, ...] = ()
    """Names of the tensors in the faulty memory that `accesses` leaves out."""
    supplies: Supplies | None = None
    """The accesses by voltage domain; None where they were not counted."""
    configuration: Mapping[str, Any] = field(default_factory=dict)
    """All that the results depend on, as JSON values, where the sweep was one of a Subject."""
    information: Mapping[str, Any] = field(default_factory=dict)
    """Where and with what it was computed, as JSON values."""
    precision: float | None = None
    """Half width at which the sweep stopped at each operating point, in the unit of the metric; None for a fixed number
    of chips."""

    @overload
    def __getitem__(self, index: int) -> SweepRow: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[SweepRow, ...]: ...
    def __getitem__(self, index: int | slice) -> SweepRow | tuple[SweepRow, ...]:
        """Return one row, or a tuple of several."""
        return self.records[index]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.records)

    def __iter__(self) -> Iterator[SweepRow]:
        """Iterate over the rows."""
        return iter(self.records)

    @property
    def metric(self) -> Metric:
        """What was measured."""
        return self.records[0].evaluation.metric

    @property
    def variants(self) -> dict[str, list[SweepRow]]:
        """The rows of each variant, by its name; the first is the one without a transform."""
        found: dict[str, list[SweepRow]] = {}
        for row in self.records:
            found.setdefault(row.variant, []).append(row)
        return found

    def rows(self) -> list[dict[str, object]]:
        """Return the rows of summary.csv as flat dictionaries.

        Returns
        -------
        list of dict
            Rates, accuracies and savings are fractions. Columns that say nothing about any row are left out; the last
            ones are those of the conditions.
        """
        measured = () if self.metric == ACCURACY else MEASURED
        absolute = () if all(row.picojoules is None for row in self.records) else (PICOJOULES,)
        partly = (UNCOUNTED,) if any(row.uncounted for row in self.records) else ()
        rows = [row.as_dict() for row in self.records]
        columns = (*find_used_columns((*SUMMARY, *measured), OPTIONAL, rows), *partly, *absolute)
        return [
            {name: value for name, value in row.items() if name in columns} | self.conditions.columns
            for row in rows
        ]

    def chip_rows(self) -> list[dict[str, object]]:
        """Return the rows of results.csv: one for each variant, operating point and chip.

        They have the order in which they were computed: operating points, looks of a sweep that stops at a precision,
        variants, chips.
        """
        looks = plan_looks(len(self.labels), self.precision)
        together = len(self.variants)
        return [
            chip | self.conditions.columns
            for at in range(0, len(self.records), together)
            for first, end in pairwise((0, *looks))
            for row in self.records[at : at + together]
            for chip in make_chip_rows(row.variant, row.point, self.labels[:end], row.evaluation, first)
        ]

    def as_dict(self) -> dict[str, object]:
        """Return the summary, the configuration, and where it was computed, as JSON values."""
        report = {"summary": self.rows(), "configuration": self.configuration, **self.information}
        if self.supplies and self.supplies.domains:
            report["accesses_by_domain"] = self.supplies.rows()
        plain: dict[str, object] = without_nan(report)
        return plain

    def cheapest(self, accuracy: float, variant: str | None = None) -> SweepRow | None:
        """Find the row that takes the least energy among those that are accurate enough.

        Parameters
        ----------
        accuracy : float
            Least mean over the chips, a fraction.
        variant : str, optional
            Only the rows of this variant.

        Returns
        -------
        SweepRow or None
            Of equal energies the row with the higher mean; None where no row is accurate enough.

        Raises
        ------
        FaultsimError
            Where something else than an accuracy was measured, and where the energy was not counted.
        """
        if not self.metric.counts:
            raise FaultsimError(f"an accuracy cannot be combined with the metric {self.metric.name}")
        if self.accesses is None:
            raise FaultsimError(
                "the voltage of least energy is not known: the weight memory accesses of this model were not counted"
            )
        if not 0 < accuracy <= 1:
            raise FaultsimError(f"accuracy {accuracy:g}: it must be a fraction above 0 and at most 1")
        enough = [
            row
            for row in self.records
            if variant in (None, row.variant)
            and row.energy_saving is not None
            and row.evaluation.mean >= accuracy
        ]
        return max(enough, key=lambda row: (row.energy_saving, row.evaluation.mean), default=None)

    def pareto(self, lower_bounds: bool = True) -> tuple[SweepRow, ...]:
        """Find the rows that no other row beats, in energy and in what was measured.

        Parameters
        ----------
        lower_bounds
            Whether rows whose energy is a lower bound take part.

        Returns
        -------
        tuple of SweepRow
            From the least energy to the most; equal rows are listed once. Empty where the energy was not counted.
        """
        sign = 1 if self.metric.higher_is_better else -1
        rows = [row for row in self.records if lower_bounds or not row.uncounted]
        return tuple(
            find_front(rows, lambda row: row.energy_per_inference, lambda row: sign * row.evaluation.mean)
        )

    def plot(self, path: str | PathLike[str] | None = None) -> "Figure":
        """Draw the metric against the voltage, and against the energy where it was counted.

        Parameters
        ----------
        path : path, optional
            Also write the picture: .png, .pdf or .svg.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        FaultsimError
            For another ending, and where the file cannot be written.
        """
        from ..show import plots
        from ..show.comparison_plot import MOST_BANDS, draw_comparison
        from ..show.sweep_plot import draw_sweep

        draw = draw_sweep if len(self.variants) <= MOST_BANDS else draw_comparison
        figure = draw(self, self.title, self.conditions)
        if path is not None:
            plots.save(figure, Path(path))
        return figure

    def __repr__(self) -> str:
        from ..show.sweep_table import describe_sweep, make_tables

        return "\n".join([*map(str, make_tables(self)), *describe_sweep(self)])

    def _repr_html_(self) -> str:
        from ..show.sweep_table import describe_sweep, make_tables
        from ..show.tables import format_tables

        return format_tables(make_tables(self), describe_sweep(self))


def make_row(
    variant: Variant,
    point: OperatingPoint,
    evaluation: Evaluation,
    supplies: Supplies | None,
    access_pj: float | None = None,
) -> SweepRow:
    """Make the row of a variant at a point, with the energy of one inference where the accesses were counted."""
    energy = saving = absolute = None
    if supplies is not None and point.energy_per_access is not None:
        energy = supplies.energy(point.energy_per_access) if variant.energy is None else variant.energy(point)
    if supplies is not None and energy is not None:
        energy += variant.transform_accesses
        saving = 1 - energy / supplies.total
        absolute = None if access_pj is None else energy * access_pj
    return SweepRow(variant.name, point, evaluation, energy, saving, absolute, uncounted=variant.uncounted)


def make_chip_rows(
    variant: str, point: OperatingPoint, labels: Sequence[str], evaluation: Evaluation, first: int = 0
) -> list[dict[str, object]]:
    """Make the rows of results.csv of one variant at one point.

    Parameters
    ----------
    variant : str
        Its name.
    point : OperatingPoint
        Where it was evaluated.
    labels : sequence of str
        Of the chips, of which the evaluation may be of the first ones only.
    evaluation : Evaluation
        What was measured.
    first : int
        So many chips are left out.

    Returns
    -------
    list of dict
        One for each chip, by column: list_columns(metric) and OPTIONAL.
    """
    columns = (*list_columns(evaluation.metric), *OPTIONAL)
    counted: list[tuple[int, ...]] = [(count,) for count in evaluation.correct] or [()] * evaluation.chips
    not_finite = evaluation.not_finite or (0,) * evaluation.chips
    shared = (variant, point.voltage, point.bit_error_rate)
    chips = zip(labels, counted, evaluation.values, not_finite, strict=False)
    return [
        dict(zip(columns, (*shared, label, *count, evaluation.images, value, wrong), strict=True))
        for label, count, value, wrong in islice(chips, first, None)
    ]


def read_evaluation(rows: Sequence[Mapping[str, str]], metric: Metric = ACCURACY) -> Evaluation:
    """Read one variant at one point from its rows of results.csv.

    Raises
    ------
    ValueError
        For text that is not a number, and for a count out of range.
    KeyError
        For a missing column.
    """
    images = parse_integer(rows[0]["images"])
    not_finite = tuple(parse_integer(row.get(OPTIONAL[0]) or "0") for row in rows)
    correct = tuple(parse_integer(row["correct"]) for row in rows) if metric.counts else ()
    scores = () if metric.counts else tuple(float(row[metric.column] or "nan") for row in rows)
    if not all(0 <= count <= images for count in correct) or min(not_finite) < 0:
        raise ValueError("a count is out of range")
    return Evaluation(correct, images, metric, scores, not_finite if any(not_finite) else ())
