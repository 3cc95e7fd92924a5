"""Better cells, and a higher voltage: robust most significant bits, and boosted layers, as voltage domains."""

from dataclasses import dataclass
from typing import ClassVar, Self

from ..domains import MOST_BITS, Domain
from ..errors import FaultsimError
from ..support.integers import checked_integer
from ..voltage import VoltageCurve
from .mitigation import MemoryMitigation, Overhead

_CELLS = Overhead(uncounted="what robust cells take above others (no value was verified)")
_BOOST = Overhead(uncounted="the boost circuit")


@dataclass(frozen=True, repr=False)
class RobustBits(MemoryMitigation):
    """The most significant bits of each weight lie in cells that do not fail, such as 8T cells, at the same voltage.

    Srinivasan et al., "Significance driven hybrid 8T-6T SRAM", DATE 2016.

    Raises
    ------
    FaultsimError
        For a number of bits that a weight does not have.
    """

    name: ClassVar[str] = "robust-bits"
    any_format: ClassVar[bool] = True
    bits: int = 2
    """How many bits of each weight, from the sign down."""
    cell_energy: float = 1.0
    """Energy of a robust cell, relative to another cell at the same voltage."""
    overhead: Overhead = _CELLS

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "bits", checked_integer(self.bits, "the number of robust bits", 1, MOST_BITS)
        )
        if not 0 <= self.cell_energy < float("inf"):
            raise FaultsimError(f"the energy of a robust cell must be at least 0, not {self.cell_energy}")

    @property
    def label(self) -> str:
        """Name and number of bits."""
        return f"{self.name}:{self.bits}"

    def with_energy(self, energy: float) -> Self:
        """Return robust bits whose cells take so much more than others at the same voltage, relative to those."""
        return self._replaced(cell_energy=1 + energy, overhead=Overhead(source="given by the user"))

    def find_domains(self, curve: VoltageCurve, voltage: float | None = None) -> tuple[Domain, ...]:
        """Return the domain of the robust bits."""
        energy = None if voltage is None else self.cell_energy * curve.energy_per_access(voltage)
        top = Domain.top_bits(self.bits)
        return (Domain(top.name, bits=top.bits, energy_per_access=energy),)


@dataclass(frozen=True, repr=False)
class BoostedLayers(MemoryMitigation):
    """Some layers are read at a higher voltage (supply boosting, Chandramoorthy et al., HPCA 2019).

    Raises
    ------
    FaultsimError
        For no patterns, and for numbers out of range.
    """

    name: ClassVar[str] = "boosted"
    any_format: ClassVar[bool] = True
    layers: tuple[str, ...] = ("*",)
    """Patterns of tensor names as in the shell, such as `fc.*`."""
    voltage: float = 1.0
    """Supply of these layers, in the unit of the curve."""
    boost_energy: float = 0.0
    """What the boost adds to an access of these layers, relative to a plain access at Vmin."""
    overhead: Overhead = _BOOST

    def __post_init__(self) -> None:
        domain = Domain("boosted", self.layers, voltage=self.voltage)  # checks both
        object.__setattr__(self, "layers", domain.layers)
        if not 0 <= self.boost_energy < float("inf"):
            raise FaultsimError(f"the energy of a boost must be at least 0, not {self.boost_energy}")

    @property
    def label(self) -> str:
        """Name, patterns and voltage."""
        return f"{self.name}:{'+'.join(self.layers)}@{self.voltage:g}"

    def with_energy(self, energy: float) -> Self:
        """Return boosted layers to whose accesses the boost adds so much, relative to a plain access at Vmin."""
        return self._replaced(boost_energy=energy, overhead=Overhead(source="given by the user"))

    def find_domains(self, curve: VoltageCurve, voltage: float | None = None) -> tuple[Domain, ...]:
        """Return the domain of the boosted layers."""
        energy = curve.energy_per_access(self.voltage) + self.boost_energy
        return (Domain("boosted", self.layers, voltage=self.voltage, energy_per_access=energy),)
