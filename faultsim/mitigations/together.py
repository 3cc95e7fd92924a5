"""Several mitigations of one memory together, such as SECDED with boosted layers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from ..domains import Domain
from ..errors import FaultsimError
from ..formats import Format
from ..voltage import VoltageCurve
from .mitigation import Decoded, MemoryMitigation, Overhead, Written


@dataclass(frozen=True, repr=False)
class Together(MemoryMitigation):
    """Mitigations that protect the same memory: cells that fail less, or at their own voltage, and one decoder.

        Together((SECDED("zero"), BoostedLayers(("fc.*",), 0.95)))
        Together((Parity("weight"), RobustBits(2)))

    The cells of a word belong to the first of the mitigations that takes them. Check bits belong to the domain of their
    whole tensor. What they add to storage, accesses and area is the sum.

    Raises
    ------
    FaultsimError
        For fewer than two mitigations, and for two that say what a word becomes.
    """

    name: ClassVar[str] = "together"
    mitigations: tuple[MemoryMitigation, ...] = ()
    """At least two; one of them at most decodes what is read."""
    overhead: Overhead | None = None  # type: ignore[assignment]  # set below
    """Default: the sum."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "mitigations", tuple(self.mitigations))
        if len(self.mitigations) < 2:
            raise FaultsimError(f"two mitigations or more go together, not {len(self.mitigations)}")
        decoders = [one.label for one in self.mitigations if _decodes(one)]
        if len(decoders) > 1:
            raise FaultsimError(
                f"{decoders[0]} and {decoders[1]} cannot be combined: both say what a word becomes that is read; one "
                "of them goes together with robust bits and boosted layers"
            )
        if self.overhead is None:
            object.__setattr__(self, "overhead", self._sum)

    @property
    def label(self) -> str:
        """The labels of all, joined by +."""
        return "+".join(one.label for one in self.mitigations)

    @property
    def _sum(self) -> Overhead:
        return _add([one.overhead for one in self.mitigations])

    @property
    def decoder(self) -> MemoryMitigation:
        """The one that says what is written and what a word becomes."""
        return next((one.decoder for one in self.mitigations if _decodes(one)), MemoryMitigation())

    def find_overhead(self, stored: Format) -> Overhead:
        """Return what they add to a memory of weights of a format."""
        if self.overhead is not None and self.overhead != self._sum:
            return self.overhead  # given
        return _add([one.find_overhead(stored) for one in self.mitigations])

    def check_format(self, stored: Format) -> None:
        """Raise FaultsimError for weights of a format that one of them is not for."""
        for one in self.mitigations:
            one.check_format(stored)

    def encode(self, weights: Tensor) -> Written:
        """Return what the decoder writes."""
        return self.decoder.encode(weights)

    def decode(self, read: Tensor, checks: Tensor | None, written: Written) -> Decoded:
        """Return what the decoder makes of words."""
        return self.decoder.decode(read, checks, written)

    def find_domains(self, curve: VoltageCurve, voltage: float | None = None) -> tuple[Domain, ...]:
        """Return the domains of all, in their order."""
        return tuple(domain for one in self.mitigations for domain in one.find_domains(curve, voltage))

    def describe(self) -> dict[str, Any]:
        """Return all that a result depends on, as JSON values."""
        own = {"mitigations": [one.describe() for one in self.mitigations]}
        return {"mitigation": self.name, **own, "overhead": (self.overhead or self._sum).describe()}


def _decodes(mitigation: MemoryMitigation) -> bool:
    """Whether it says what is written, or what a word becomes."""
    own = type(mitigation.decoder)
    return own.decode is not MemoryMitigation.decode or own.encode is not MemoryMitigation.encode


def _add(overheads: Sequence[Overhead]) -> Overhead:
    areas = [one.area for one in overheads]
    known = [area for area in areas if area is not None]
    return Overhead(
        sum(one.storage for one in overheads),
        sum(one.access for one in overheads),
        sum(known) if len(known) == len(areas) else None,
        "; ".join(dict.fromkeys(one.source for one in overheads if one.source)),
        "; ".join(dict.fromkeys(one.uncounted for one in overheads if one.uncounted)),
    )
