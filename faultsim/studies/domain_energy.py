"""The weight memory energy of an inference, by voltage domain."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..data import OwnBatches
from ..domains import Domain, split_bits
from ..stored import StoredWeights
from ..voltage import VoltageCurve


@dataclass(frozen=True)
class DomainAccesses:
    """The part of a model's weight memory accesses that belongs to a domain."""

    name: str
    """That of the domain."""
    accesses: float
    """Accesses of one inference; an access of some bits of a word is that part of an access."""
    energy_per_access: float | None
    """Relative to Vmin; None where the curve does not say it."""


@dataclass(frozen=True)
class Supplies:
    """The weight memory accesses of one inference, by who supplies them."""

    total: int
    """All of them."""
    swept: float
    """Those of cells in no domain, at the voltage of the experiment."""
    domains: tuple[DomainAccesses, ...] = ()
    """The others."""

    def energy(self, energy_per_access: float) -> float | None:
        """Return the energy of one inference in units of one access at Vmin.

        Parameters
        ----------
        energy_per_access
            Of cells in no domain, relative to Vmin.

        Returns
        -------
        float or None
            None where the energy of a domain is not known.
        """
        found = self.swept * energy_per_access
        for domain in self.domains:
            if domain.energy_per_access is None:
                return None
            found += domain.accesses * domain.energy_per_access
        return found

    def rows(self, energy_per_access: float | None = None) -> list[dict[str, object]]:
        """Return one dictionary for each domain and, as "others", the cells in none.

        Returns
        -------
        list of dict
            domain, accesses, energy_per_access, and energy, in units of one access at Vmin.
        """
        parts = [*self.domains, DomainAccesses("others", self.swept, energy_per_access)]
        return [
            {
                "domain": part.name,
                "accesses": part.accesses,
                "energy_per_access": part.energy_per_access,
                "energy": None if part.energy_per_access is None else part.accesses * part.energy_per_access,
            }
            for part in parts
        ]


def find_supplies(
    model: nn.Module,
    data: Iterable[Any],
    stored: StoredWeights,
    domains: Sequence[Domain],
    curve: VoltageCurve,
    total: int | None,
) -> Supplies | None:
    """Divide a model's weight memory accesses among voltage domains.

    An access reads a 64-bit word from as many columns of cells. Each bit of its weights is an equal part of its energy;
    columns that hold no weight's bit are shared out alike.

    Parameters
    ----------
    model
        Any module.
    data
        Batches, as for evaluate; the first one is looked at.
    stored
        Its weights in the memory; counted layers that are not among them belong to no domain.
    domains
        As in FaultModel.domains.
    curve
        The energy of an access against voltage.
    total
        Accesses of one inference, as `faultsim.energy.count_weight_accesses` counts them.

    Returns
    -------
    Supplies or None
        None where the accesses are not known.
    """
    if total is None or not domains:
        return None if total is None else Supplies(total, total)
    from ..energy import count, trace_model

    counts = count(trace_model(model, OwnBatches.first_of(data).shape_or_example).layers)
    names = {name: layer.tensors for layer in stored.layers for name in layer.tensors}
    reads: dict[str | None, int] = {domain.name: 0 for domain in domains}
    swept, width = 0, stored.format.width
    for layer, found in zip(counts.layers, counts.counts, strict=True):
        name = layer.name.partition("#")[0]
        tensors = names.get(f"{name}.weight", names.get("weight"))
        for mask, domain in split_bits(tuple(domains) if tensors else (), tensors or (), width):
            bits = found.filter_reads * mask.bit_count()
            if domain is None:
                swept += bits
            else:
                reads[domain.name] += bits
    per_read = total / (width * counts.total.filter_reads)
    return Supplies(
        total,
        swept * per_read,
        tuple(
            DomainAccesses(domain.name, reads[domain.name] * per_read, domain.find_energy(curve))
            for domain in domains
        ),
    )
