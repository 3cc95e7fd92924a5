"""What a comparison compares: each entry makes a variant of the model, with another memory, model or input."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from os import PathLike
from pathlib import Path

from torch import nn

from .. import models
from ..checkpoint import compute_fingerprint, read_file
from ..chips.measured_chip import AnyChip
from ..domains import Domain
from ..faults import FaultModel
from ..mitigations import BoostedLayers, MemoryMitigation, ProtectedWeights, Together
from ..network.architecture import Architecture
from ..stored import StoredWeights
from ..voltage import VoltageCurve
from .domain_energy import find_supplies
from .subject import Subject, count_accesses, find_model, load_model
from .sweep_result import OperatingPoint, Variant

_READ_AGAIN = 20  # chips on which the share of words that are read again is measured, at most


@dataclass(frozen=True)
class Setting:
    """What a comparison measures on. All entries are given the same."""

    subject: Subject
    """Model, weights and data."""
    chips: tuple[AnyChip, ...]
    """On which all variants run."""
    curve: VoltageCurve
    """Bit error rate and energy against voltage."""
    faults: FaultModel
    """What a failing cell does, and how the weights lie in the memory."""
    overheads: Mapping[str, float] = field(default_factory=dict)
    """Energies that mitigations on the memory leave out, by name (secded) or label (secded:zero): see
    MemoryMitigation.with_energy."""

    def complete(self, mitigation: MemoryMitigation) -> MemoryMitigation:
        """Return a mitigation with the energy that it leaves out, where that is given."""
        if isinstance(mitigation, Together) and mitigation.label not in self.overheads:
            return Together(tuple(map(self.complete, mitigation.mitigations)))
        for name in (mitigation.label, mitigation.name):
            if name in self.overheads:
                return mitigation.with_energy(self.overheads[name])
        return mitigation

    def count_energy(
        self, model: nn.Module | None = None, stored: StoredWeights | None = None, *, at_vmin: bool = False
    ) -> Callable[[OperatingPoint], float | None]:
        """Count the weight memory energy of plain reads in one inference of a model, by operating point.

        Parameters
        ----------
        model, stored
            Another model and its weights. Default: the subject's.
        at_vmin
            Whether its weights are always read at Vmin.

        Returns
        -------
        callable
            For Variant.energy: None where the accesses of the model, or the voltage of the point, are not known.
        """
        subject = self.subject
        network, weights = model or subject.model, stored or subject.stored
        total = subject.accesses if model is None else count_accesses(model, subject.dataset, weights.format)
        domains = () if at_vmin else self.faults.domains
        supplies = find_supplies(network, subject.data, weights, domains, self.curve, total)
        nominal = self.curve.energy_per_access(self.curve.v_min)

        def energy(point: OperatingPoint) -> float | None:
            access = nominal if at_vmin else point.energy_per_access
            return None if supplies is None or access is None else supplies.energy(access)

        return energy


Entry = Callable[[Setting], Variant]
"""Something against the errors: a function that makes the variant of a model that has it.

What the variant says: `transform` (on the input), `model` and `stored` (another model, or other weights), `stored`
(another memory), `at_vmin`, `energy` (of one inference, without the transform's) and `uncounted`.
"""


def protect_memory(given: MemoryMitigation) -> Entry:
    """Make the entry of a mitigation on the memory.

    Its energy includes the accesses of check bits, of boosted layers, and of words that are read again at Vmin; the
    share of these is measured on the first 20 of the chips.

    Parameters
    ----------
    given
        What a read returns, and its overhead.
    """

    def create_variant(setting: Setting) -> Variant:
        subject, curve, faults = setting.subject, setting.curve, setting.faults
        mitigation = setting.complete(given)
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
                    setting.chips[:_READ_AGAIN], point.bit_error_rate, point.voltage, faults.resolve(curve)
                )
                again = sum(share * reads for share, reads in zip(shares, find_accesses(), strict=True))
                found += again * curve.energy_per_access(curve.v_min)
            return found * (1 + mitigation.find_overhead(stored.format).access)

        fingerprint = json.dumps(mitigation.describe(), sort_keys=True)
        return Variant(
            mitigation.label,
            fingerprint=fingerprint,
            stored=protected,
            energy=energy,
            uncounted=mitigation.overhead.uncounted,
        )

    return create_variant


def boost_layers(layers: tuple[str, ...] = (), voltage: float | None = None) -> Entry:
    """Make the entry of boosted layers.

    Parameters
    ----------
    layers
        Patterns of tensor names. Default: the first and the last tensor.
    voltage
        Supply of these layers, in the unit of the curve. Default: its Vmin.
    """

    def create_variant(setting: Setting) -> Variant:
        stored, curve = setting.subject.stored, setting.curve
        supply = curve.v_min if voltage is None else voltage
        curve.energy_per_access(supply)  # refuses a voltage off the curve
        ends = dict.fromkeys((stored.layers[0].tensors[0], stored.layers[-1].tensors[0]))
        variant = protect_memory(BoostedLayers(layers or tuple(ends), supply))(setting)
        return variant if layers else replace(variant, name=f"{BoostedLayers.name}:ends@{supply:g}")

    return create_variant


def replace_base(path: str | PathLike[str], name: str | None = None) -> Entry:
    """Make the entry of another base model for the same data, such as one that was trained with bit errors.

    It is read at the voltage of each point, as the subject is; where both have the same architecture, the same cells
    fail.

    Parameters
    ----------
    path
        Weight file. A file that names no model of faultsim's holds weights of the subject's own model.
    name
        In tables. Default: base and the name of the file.

    Raises
    ------
    FaultsimError
        When called, for a file that is damaged, and a model that does not fit the data.
    """

    def create_variant(setting: Setting) -> Variant:
        subject = setting.subject
        named = read_file(path)[1].get("model") in models.NAMES
        found, _, trained = find_model(None if named else subject.name, path)
        classes = trained.get("num_classes", getattr(subject.dataset, "num_classes", 10))
        model, stored, _ = load_model(
            found, path, classes, subject.device, subject.per_channel, subject.select
        )
        replace(subject, name=str(path), model=model, stored=stored).check(None)
        return Variant(
            name or f"base {Path(path).stem}",
            fingerprint=compute_fingerprint(model, stored),
            model=model,
            stored=stored,
            energy=setting.count_energy(model, stored),
            architecture=Architecture("faultsim.models:resolve", {"spec": found, "num_classes": classes}),
        )

    return create_variant
