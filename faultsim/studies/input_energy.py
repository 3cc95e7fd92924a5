"""The energy of the input memory, beside that of the weight memory."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from torch import nn

from ..activations.memory import ActivationMemory, FaultSites
from ..data import OwnBatches
from ..voltage import VoltageCurve
from .domain_energy import DomainAccesses, Supplies


def add_input_memory(
    supplies: Supplies | None,
    model: nn.Module,
    data: Iterable[Any],
    sites: FaultSites,
    activations: ActivationMemory | None,
    curve: VoltageCurve,
) -> Supplies | None:
    """Add the accesses of an input memory whose cells fail to those of the weight memory.

    Parameters
    ----------
    supplies
        The accesses of the weight memory; None where they are not known.
    model
        Any module.
    data
        Batches, as for evaluate; the first one is looked at.
    sites
        Which memory's cells fail. Weights that do not are at Vmin. Of inputs that do not, nothing is counted, nor of a
        key-value cache.
    activations
        What lies in the input memory, and its voltage.
    curve
        The energy of an access against voltage.

    Returns
    -------
    Supplies or None
        The accesses of both memories.
    """
    if supplies is None or activations is None or sites == "weights":
        return supplies
    from ..energy import count_input_accesses

    if activations.ranges.of_cache:
        reads = 0
    else:
        sample = OwnBatches.first_of(data).shape_or_example
        reads = count_input_accesses(model, sample, bits=activations.codes.cells)
    if sites == "activations":
        weights = DomainAccesses("weights", supplies.total, 1.0)
        supplies = Supplies(supplies.total, 0, (weights,))
    total, own = supplies.total + reads, activations.voltage
    if own is None or not reads:
        return replace(supplies, total=total, swept=supplies.swept + reads)
    inputs = DomainAccesses("inputs", reads, curve.energy_per_access(own))
    return replace(supplies, total=total, domains=(*supplies.domains, inputs))
