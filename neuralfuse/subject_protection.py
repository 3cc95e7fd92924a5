"""A model with its test data, without and with a generator: what was measured, under which conditions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from faultsim.activations.memory import ActivationMemory, FaultSites
from faultsim.errors import FaultsimError
from faultsim.evaluation import Evaluation
from faultsim.faults import Chip, FaultModel
from faultsim.io.provenance import record_provenance
from faultsim.metrics.metric import ACCURACY, AnyMetric, Metric, find_metric
from faultsim.perturbation import resolve_operating_point
from faultsim.show.accuracy_table import make_accuracy_table
from faultsim.show.tables import Table
from faultsim.show.units import format_percent
from faultsim.studies.conditions import Conditions
from faultsim.studies.subject import Subject
from faultsim.studies.sweep_result import Variant
from faultsim.voltage import VoltageCurve

from .protection import Protection, evaluate_protected

if TYPE_CHECKING:
    from faultsim.cluster.workers import AnyClient


@dataclass(frozen=True, eq=False)
class SubjectProtection:
    """What a model reaches alone and behind a generator, and everything that this depends on."""

    protection: Protection
    """The values: the columns of the paper's Table 1."""
    subject: Subject
    """Model and test data."""
    chips: tuple[Chip, ...]
    """Chips that the values with bit errors were measured on."""
    voltage: float | None
    """In the unit of the curve; None where the bit error rate was given."""
    bit_error_rate: float
    """Fraction of failing cells."""
    conditions: Conditions
    """Faults, curve, and which memories fail."""
    metric: Metric
    """What was measured."""
    generator: Variant | None = None
    """The generator in front of the model."""
    seed: int | None = None
    """Seed that the chips were drawn with, for the record."""

    @property
    def configuration(self) -> dict[str, Any]:
        """Everything that the values depend on, as JSON values."""
        at, generator = self.conditions, self.generator
        found = {
            **self.subject.configuration,
            "bit_error_rate": self.bit_error_rate,
            "voltage": self.voltage,
            "curve": at.curve and at.curve.describe(),
            "faults": at.faults.describe(),
        }
        if at.activations is not None:
            found |= {"fault_sites": at.sites, "activations": at.activations.describe()}
        found |= {
            "seed": self.seed,
            "chips": [chip.seed for chip in self.chips],
            "device": self.subject.device.type,
        }
        if self.metric != ACCURACY:
            found["metric"] = self.metric.describe()
        if generator is not None:
            found["generator"] = {"name": generator.name, "weights": generator.fingerprint}
        return found

    def as_dict(self) -> dict[str, Any]:
        """Return values, configuration, memory and provenance as JSON values; accuracies are fractions."""
        return {
            "accuracy" if self.metric == ACCURACY else "values": self.protection.rows(),
            "configuration": self.configuration,
            "memory": self.subject.stored.share.as_dict(),
            **record_provenance(str(self.subject.device)),
        }

    @property
    def table(self) -> Table:
        """The values."""
        return make_accuracy_table(self.protection.rows(), self.subject.title, self.metric)

    @property
    def notes(self) -> list[str]:
        """What the numbers of the table mean, and the conditions that they hold under, line by line."""
        lines = []
        if self.metric != ACCURACY:
            lines.append(
                f"{self.metric.name}, {self.metric.arrow}: C.A. without bit errors, P.A. with them, N.F. with a "
                "generator"
            )
        wrong = sum(row.get("not_finite", 0) for row in self.protection.rows())
        if wrong:
            lines.append(f"{wrong:,} answers were not finite (NaN or infinity): they count as wrong")
        at = "" if self.voltage is None else f" (V = {self.voltage:g})"
        rate = format_percent(self.bit_error_rate)
        return [
            *lines,
            f"bit error rate {rate}{at}, {len(self.chips)} chips; ±: standard deviation over chips",
            f"faults: {self.conditions}",
            f"wrong bits per failing cell: {self.conditions.faults.visible_rate:g}",
            str(self.subject.stored.share),
        ]

    def __str__(self) -> str:
        return "\n".join([str(self.table), *self.notes])


def evaluate_subject(
    subject: Subject,
    chips: Sequence[Chip],
    *,
    voltage: float | None = None,
    bit_error_rate: float | None = None,
    curve: VoltageCurve | None = None,
    faults: FaultModel | None = None,
    generator: Variant | None = None,
    metric: AnyMetric = "accuracy",
    sites: FaultSites = "weights",
    activations: ActivationMemory | None = None,
    seed: int | None = None,
    report: Callable[[Evaluation], None] | None = None,
    client: "AnyClient | None" = None,
) -> SubjectProtection:
    """Evaluate a model on its test data, alone and behind a generator, without and with bit errors.

    Parameters
    ----------
    subject
        Model and test data, as ``faultsim.load_subject`` loads them.
    chips
        Simulated chips, the same ones without and with the generator.
    voltage, bit_error_rate
        The operating point: one of both. The bit error rate is a fraction.
    curve
        Bit error rate against voltage. Default: with a voltage, the paper's SRAM.
    faults
        What a failing cell does, and which memory the weights lie in. Default: independent flips.
    generator
        As ``SavedGenerator.create_variant`` returns it. Default: none.
    metric, sites, activations
        As for ``faultsim.evaluate``.
    seed
        Seed that the chips were drawn with, for the record.
    report
        Called with each evaluation of the chips so far.
    client
        A client of a Dask cluster (or ``faultsim.cluster.workers.Workers``) whose workers evaluate.

    Returns
    -------
    SubjectProtection
        `print` shows its table; `as_dict` returns JSON values.

    Raises
    ------
    FaultsimError
        For the reasons that ``faultsim.evaluate`` has.
    """
    if voltage is not None:
        curve = curve or VoltageCurve.default()
    volts, rate = resolve_operating_point(chips, voltage, bit_error_rate, curve)
    if rate is None:
        raise FaultsimError(
            "evaluate_subject takes simulated chips only: give measured ones to faultsim.evaluate"
        )
    faults, metric = (faults or FaultModel()).resolve(curve), find_metric(metric)
    found = evaluate_protected(
        subject.model,
        subject.data,
        chips,
        bit_error_rate=rate,
        faults=faults,
        stored=subject.stored,
        generator=None if generator is None else generator.transform,
        metric=metric,
        sites=sites,
        activations=activations,
        curve=curve,
        compute=subject.compute,
        report=report,
        client=client,
        architectures=(subject.architecture, None if generator is None else generator.architecture),
    )
    conditions = Conditions(
        faults,
        curve,
        sites=sites,
        activations=activations,
        format=subject.stored.format,
        compute=subject.compute,
    )
    return SubjectProtection(found, subject, tuple(chips), volts, rate, conditions, metric, generator, seed)
