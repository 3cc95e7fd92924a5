"""Mitigations compared at equal energy: the same model on the same chips, with each of them in turn."""

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING

from ..chips.measured_chip import AnyChip
from ..errors import FaultsimError, summarize_error
from ..faults import FaultModel
from ..metrics.metric import ACCURACY, AnyMetric
from ..mitigations import MemoryMitigation, ProtectedWeights
from ..voltage import VoltageCurve
from .entries import Entry, Setting
from .entry_labels import as_entry, parse_entry
from .kept_study import choose_chips
from .subject import Subject
from .sweep_result import OperatingPoint, SweepResult, SweepRow, Variant
from .voltage_sweep import plan_points, sweep_subject

if TYPE_CHECKING:
    from ..cluster.workers import AnyClient

MITIGATIONS = (
    "secded:keep",
    "secded:zero",
    "secded:reread",
    "in-place:zero",
    "parity:weight",
    "word-masking:weight",
    "bit-masking",
    "robust-bits:1",
    "robust-bits:2",
    "robust-bits:4",
    "boosted",
    "range-restriction:clamp",
)
"""What is compared by default: all kinds that need neither a training nor the test of each chip."""
VOLTAGES = (0.78, 0.80, 0.83, 0.86, 0.90, 0.95, 1.00)
"""Where a comparison measures on the default curve, relative to Vmin."""


def compare(
    subject: Subject,
    mitigations: Sequence[str | MemoryMitigation | Entry | Variant] = MITIGATIONS,
    chips: int | Sequence[AnyChip] = 10,
    points: Sequence[OperatingPoint] | None = None,
    *,
    voltages: Sequence[float] | None = None,
    curve: VoltageCurve | None = None,
    faults: FaultModel | None = None,
    overheads: Mapping[str, float] | None = None,
    metric: AnyMetric = ACCURACY,
    seed: int = 0,
    out: str | PathLike[str] | None = None,
    report: Callable[[SweepRow], None] | None = None,
    progress: Callable[[SweepRow], None] | None = None,
    client: "AnyClient | None" = None,
) -> SweepResult:
    """Compare mitigations: accuracy against the weight memory energy of one inference, on the same chips.

        result = faultsim.compare(faultsim.load_subject(), ["secded:zero", "robust-bits:2"])
        result.pareto(), result.cheapest(0.95)

    Parameters
    ----------
    subject
        Model, weights and data, as load_subject returns them.
    mitigations
        Labels that faultsim.studies.entry_labels.parse_entry knows, mitigations on the memory (faultsim.mitigations),
        and entries of any kind (faultsim.studies.entries, neuralfuse.entries), also of your own.
    chips
        How many simulated chips of `seed`, or which chips. All variants run on the same ones.
    points, voltages
        Where to measure, as for sweep. Default: VOLTAGES on the default curve, else the points of the curve.
    curve, faults, metric
        As for sweep.
    overheads
        Energies that mitigations on the memory leave out by default, by their names or labels, as fractions of a plain
        access: `{"secded": 0.05, "robust-bits": 0.2}`. See MemoryMitigation.with_energy.
    seed
        Which simulated chips: those of two seeds have none in common.
    out
        Directory for results.csv, summary.csv, sweep.json and sweep.png, from which a comparison that was stopped goes
        on.
    report, progress, client
        As for sweep.

    Returns
    -------
    SweepResult
        Its first variant is the plain memory. Differences to it are paired: on the same chips.

    Raises
    ------
    FaultsimError
        For two variants of the same name, an entry that fails, and for the reasons that sweep_subject has.
    """
    samples = choose_chips(chips, seed)
    if points is None:
        default = VOLTAGES if curve is None and voltages is None else voltages
        points = plan_points(curve, default, None, samples)
    overheads = overheads or {}
    for name, energy in overheads.items():
        if not 0 <= energy < float("inf"):
            raise FaultsimError(f"overhead of {name} {energy}: it must be a fraction of at least 0")
    setting = Setting(
        subject, tuple(samples), curve or VoltageCurve.default(), faults or FaultModel(), overheads
    )
    given = [parse_entry(one) if isinstance(one, str) else one for one in mitigations]
    variants = [_create_variant(as_entry(one), setting) for one in given]
    _check_overheads(overheads, variants)
    names = [Variant().name, *(variant.name for variant in variants)]
    if len(set(names)) < len(names):
        raise FaultsimError(
            f"two of what is compared have the same name: {', '.join(names)}; write NAME= before one of them"
        )
    return sweep_subject(
        subject,
        samples,
        points,
        curve=curve,
        faults=faults,
        variants=variants,
        metric=metric,
        seed=seed,
        out=out,
        report=report,
        progress=progress,
        client=client,
    )


def _create_variant(entry: Entry, setting: Setting) -> Variant:
    """Make the variant of an entry, which may be the user's."""
    try:
        variant = entry(setting)
    except FaultsimError:
        raise
    except Exception as error:  # a user's function may fail in any way
        raise FaultsimError(f"{_name(entry)} fails: {summarize_error(error)}") from error
    if not isinstance(variant, Variant):
        raise FaultsimError(f"{_name(entry)} returns a {type(variant).__name__}, not a faultsim.Variant")
    return variant


def _check_overheads(overheads: Mapping[str, float], variants: Sequence[Variant]) -> None:
    """Raise FaultsimError for an energy of a mitigation that is not compared."""
    protected = [one.stored.mitigation for one in variants if isinstance(one.stored, ProtectedWeights)]
    known = dict.fromkeys(name for one in protected for name in (one.name, one.label))
    for name in overheads:
        if name not in known:
            raise FaultsimError(
                f"overhead of {name!r}: no such mitigation is compared, it can be {', '.join(known) or 'none'}"
            )


def _name(entry: Entry) -> str:
    return f"the entry {getattr(entry, '__name__', type(entry).__name__)}"
