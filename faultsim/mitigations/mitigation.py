"""The interface of a mitigation on the memory, and what it costs."""

from copy import copy
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, Self

from torch import Tensor

from ..domains import Domain
from ..errors import FaultsimError
from ..formats import Format
from ..voltage import VoltageCurve

WORD = 8
"""Weights of a 64-bit word."""
_GIVEN = "given by the user"


@dataclass(frozen=True)
class Overhead:
    """What a mitigation adds to a memory without one.

    Raises
    ------
    FaultsimError
        For numbers that are not finite or below 0.
    """

    storage: float = 0.0
    """Cells that are added, as a fraction of those of the weights."""
    access: float = 0.0
    """Energy that is added to an access, as a fraction of a plain access at the same voltage."""
    area: float | None = None
    """Area that is added, as a fraction; None: not known."""
    source: str = ""
    """Where the numbers come from."""
    uncounted: str = ""
    """What they leave out."""

    def __post_init__(self) -> None:
        for name in ("storage", "access", "area"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise FaultsimError(f"{name} {value} of a mitigation: it must be a fraction of at least 0")

    def describe(self) -> dict[str, Any]:
        """Return JSON values."""
        return dict(vars(self))


class Written(NamedTuple):
    """What a mitigation writes of one tensor."""

    weights: Tensor
    """int8 [words, 8]: the 64-bit words, 8 weights each; the last one is filled up with zeros."""
    checks: Tensor | None = None
    """uint8 [words]: the check bits of each word, in arrays of their own; [words, n] where they are n bytes."""


class Decoded(NamedTuple):
    """What a read returns."""

    weights: Tensor
    """int8 [chips, words, 8]."""
    flagged: Tensor | None = None
    """bool [chips, words]: words that are read again at an error-free voltage, which takes energy."""


class MemoryMitigation:
    """A memory that does something about its faults.

    For one of your own, override `decode`; `encode` where something else than the weights is written, such as check
    bits; `name` and `overhead`. All of it works on many words at once.
    """

    name: ClassVar[str] = "mitigation"
    """In tables and files."""
    any_format: ClassVar[bool] = False
    """Whether it also is for weights that are not int8; then the eight bytes of a word hold what their format says."""
    overhead: Overhead = Overhead()
    """Storage, energy and area."""

    @property
    def label(self) -> str:
        """Name with the parameters that tell two mitigations of one kind apart."""
        return self.name

    @property
    def decoder(self) -> "MemoryMitigation":
        """The mitigation that says what is written and what a word becomes: itself, unless it is made of several."""
        return self

    def find_overhead(self, stored: Format) -> Overhead:
        """Return what it adds to a memory of weights of a format."""
        return self.overhead

    def check_format(self, stored: Format) -> None:
        """Raise FaultsimError for weights of a format that this is not for."""
        if not self.any_format and stored.name != "int8":
            raise FaultsimError(f"{self.label} is for int8 weights, and these are {stored}")

    def encode(self, weights: Tensor) -> Written:
        """Return what is written.

        Parameters
        ----------
        weights
            int8 [words, 8].
        """
        return Written(weights)

    def decode(self, read: Tensor, checks: Tensor | None, written: Written) -> Decoded:
        """Return what a read returns.

        Parameters
        ----------
        read
            int8 [chips, words, 8]: what the faulty cells of the weights return.
        checks
            uint8 [chips, words]: what those of the check bits return; None where there are none.
        written
            What the cells would return without faults. Only a detector, a cell without faults or a second read at an
            error-free voltage can know it.
        """
        return Decoded(read)

    def find_domains(self, curve: VoltageCurve, voltage: float | None = None) -> tuple[Domain, ...]:
        """Return the voltage domains of the memory: cells that never fail, or that have a supply of their own.

        Parameters
        ----------
        curve
            Bit error rate and energy against voltage.
        voltage
            Of the experiment; None where only the faults matter, not the energies.
        """
        return ()

    def with_energy(self, energy: float) -> Self:
        """Return this mitigation with an energy for what its overhead leaves out, which is then counted in full.

        Parameters
        ----------
        energy
            What it adds to an access, as a fraction of a plain access at the same voltage.
        """
        counted = replace(self.overhead, access=self.overhead.access + energy, source=_GIVEN, uncounted="")
        return self._replaced(overhead=counted)

    def _replaced(self, **values: object) -> Self:
        """Return a copy with other values of some attributes; its class need not be a dataclass."""
        other = copy(self)
        for name, value in values.items():
            object.__setattr__(other, name, value)
        return other

    def describe(self) -> dict[str, Any]:
        """Return all that a result depends on, as JSON values."""
        own = {name: value for name, value in vars(self).items() if name not in ("overhead", "code")}
        return {"mitigation": self.name, **own, "overhead": self.overhead.describe()}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.label!r})"
