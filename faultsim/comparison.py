"""Mitigations compared at equal energy: the same model on the same chips, with each of them in turn."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from os import PathLike

from .domain_energy import find_supplies
from .domains import Domain
from .errors import FaultsimError
from .faults import FaultModel
from .kept_study import choose_chips
from .measured_chip import AnyChip
from .metrics import ACCURACY, AnyMetric
from .mitigations import (
    SECDED,
    BitMasking,
    BoostedLayers,
    InPlaceCode,
    MemoryMitigation,
    Parity,
    ProtectedWeights,
    RobustBits,
    WordMasking,
)
from .stored import StoredWeights
from .subject import Subject
from .sweep_result import OperatingPoint, SweepResult, SweepRow, Variant
from .voltage import VoltageCurve
from .voltage_sweep import plan_points, sweep_subject

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
)
"""What is compared by default: all kinds, none of which needs a training."""
VOLTAGES = (0.78, 0.80, 0.83, 0.86, 0.90, 0.95, 1.00)
"""Where a comparison measures on the default curve, relative to Vmin."""
_KINDS = {
    "secded": "keep, zero or reread",
    "in-place": "keep, zero or reread",
    "parity": "weight or word",
    "word-masking": "weight or word",
    "bit-masking": "",
    "robust-bits": "1 to 8",
    "boosted": "PATTERN@VOLTAGE, where + joins patterns",
}
_READ_AGAIN = 20  # chips on which the share of words that are read again is measured, at most


def parse_mitigation(text: str, stored: StoredWeights, curve: VoltageCurve | None = None) -> MemoryMitigation:
    """Make a mitigation from its label, such as secded:zero, robust-bits:2 or boosted:fc.*@0.95.

    Parameters
    ----------
    text
        The name, and after a colon the parameter; without it the default one.
    stored
        The weights: "boosted" alone means the first and the last tensor.
    curve
        "boosted" without a voltage means its Vmin. Default: the paper's SRAM.

    Raises
    ------
    FaultsimError
        For a name or a parameter that is not known.
    """
    name, _, parameter = text.strip().partition(":")
    given = (parameter,) if parameter else ()
    match name:
        case "secded":
            return SECDED(*given)
        case "in-place":
            return InPlaceCode(*given)
        case "parity":
            return Parity(*given)
        case "word-masking":
            return WordMasking(*given)
        case "bit-masking" if not parameter:
            return BitMasking()
        case "robust-bits" if not parameter or parameter.isdecimal():
            return RobustBits(int(parameter)) if parameter else RobustBits()
        case "boosted":
            return _parse_boost(text, parameter, stored, curve or VoltageCurve.default())
    known = ", ".join(f"{kind}:X (X: {what})" if what else kind for kind, what in _KINDS.items())
    raise FaultsimError(f"unknown mitigation {text.strip()!r}: it can be {known}")


def _parse_boost(text: str, parameter: str, stored: StoredWeights, curve: VoltageCurve) -> BoostedLayers:
    patterns, _, volts = parameter.partition("@")
    try:
        voltage = float(volts) if volts else curve.v_min
    except ValueError:
        raise FaultsimError(f"{text.strip()}: {volts!r} is no voltage") from None
    ends = dict.fromkeys((stored.layers[0].tensors[0], stored.layers[-1].tensors[0]))
    curve.energy_per_access(voltage)  # refuses a voltage off the curve
    return BoostedLayers(tuple(patterns.split("+")) if patterns else tuple(ends), voltage)


def make_variant(
    subject: Subject,
    mitigation: MemoryMitigation,
    chips: Sequence[AnyChip],
    curve: VoltageCurve | None = None,
    faults: FaultModel | None = None,
) -> Variant:
    """Make the variant of a sweep that has its weights in a memory with a mitigation.

    Its energy includes the accesses of check bits, of boosted layers, and of words that are read again at Vmin; the
    share of these is measured on the first 20 of the chips.

    Parameters
    ----------
    subject
        Model, weights and data.
    mitigation
        What a read returns, and its overhead.
    chips, curve, faults
        Those of the sweep.
    """
    curve, faults = curve or VoltageCurve.default(), faults or FaultModel()
    stored, total = subject.stored, subject.accesses
    protected = ProtectedWeights(stored, mitigation, curve)

    @cache
    def find_accesses() -> list[float]:
        """Return the accesses of one inference to each tensor, as if each were a domain."""
        each = [Domain(str(i), layer.tensors[:1]) for i, layer in enumerate(stored.layers)]
        supplies = find_supplies(subject.model, subject.data, stored, each, curve, total)
        return [] if supplies is None else [part.accesses for part in supplies.domains]

    @cache
    def energy(point: OperatingPoint) -> float | None:
        if point.voltage is None or point.energy_per_access is None:
            return None
        domains = (*mitigation.find_domains(curve, point.voltage), *faults.domains)
        supplies = find_supplies(subject.model, subject.data, stored, domains, curve, total)
        found = None if supplies is None else supplies.energy(point.energy_per_access)
        if found is None:
            return None
        if protected.reads_again:
            shares = protected.measure_flagged(
                chips[:_READ_AGAIN], point.bit_error_rate, point.voltage, faults.resolve(curve)
            )
            again = sum(share * reads for share, reads in zip(shares, find_accesses(), strict=True))
            found += again * curve.energy_per_access(curve.v_min)
        return found * (1 + mitigation.overhead.access)

    fingerprint = json.dumps(mitigation.describe(), sort_keys=True)
    return Variant(mitigation.label, fingerprint=fingerprint, stored=protected, energy=energy)


def compare(
    subject: Subject,
    mitigations: Sequence[MemoryMitigation | str] = MITIGATIONS,
    chips: int | Sequence[AnyChip] = 10,
    points: Sequence[OperatingPoint] | None = None,
    *,
    voltages: Sequence[float] | None = None,
    variants: Sequence[Variant] = (),
    curve: VoltageCurve | None = None,
    faults: FaultModel | None = None,
    metric: AnyMetric = ACCURACY,
    seed: int = 0,
    out: str | PathLike[str] | None = None,
    report: Callable[[SweepRow], None] | None = None,
    progress: Callable[[SweepRow], None] | None = None,
) -> SweepResult:
    """Compare mitigations: accuracy against the weight memory energy of one inference, on the same chips.

        result = faultsim.compare(faultsim.load_subject(), ["secded:zero", "robust-bits:2"])
        result.pareto(), result.cheapest(0.95)

    Parameters
    ----------
    subject
        Model, weights and data, as load_subject returns them.
    mitigations
        Labels that `parse_mitigation` knows, or mitigations, also of your own: see faultsim.mitigations.
    chips
        How many simulated chips of `seed`, or which chips. All variants run on the same ones.
    points, voltages
        Where to measure, as for sweep. Default: VOLTAGES on the default curve, else the points of the curve.
    variants
        Others to compare: behind a generator (neuralfuse.files.SavedGenerator.create_variant), or another model.
    curve, faults, metric
        As for sweep.
    seed
        Which simulated chips: those of two seeds have none in common.
    out
        Directory for results.csv, summary.csv, sweep.json and sweep.png, from which a comparison that was stopped goes
        on.
    report, progress
        As for sweep.

    Returns
    -------
    SweepResult
        Its first variant is the plain memory. Differences to it are paired: on the same chips.

    Raises
    ------
    FaultsimError
        For two variants of the same name, and for the reasons that sweep_subject has.
    """
    samples = choose_chips(chips, seed)
    if points is None:
        default = VOLTAGES if curve is None and voltages is None else voltages
        points = plan_points(curve, default, None, samples)
    known = [
        parse_mitigation(one, subject.stored, curve) if isinstance(one, str) else one for one in mitigations
    ]
    own = [make_variant(subject, mitigation, samples, curve, faults) for mitigation in known]
    every = [*variants, *own]
    names = [Variant().name, *(variant.name for variant in every)]
    if len(set(names)) < len(names):
        raise FaultsimError(f"two of what is compared have the same name: {', '.join(names)}")
    result = sweep_subject(
        subject,
        samples,
        points,
        curve=curve,
        faults=faults,
        variants=every,
        metric=metric,
        seed=seed,
        out=out,
        report=report,
        progress=progress,
    )
    return replace(result, uncounted=(*result.uncounted, *_find_uncounted(known)))


def _find_uncounted(mitigations: Sequence[MemoryMitigation]) -> tuple[str, ...]:
    """Return what the energies of mitigations leave out, in words."""
    return tuple(f"{one.label}: {one.overhead.uncounted}" for one in mitigations if one.overhead.uncounted)
