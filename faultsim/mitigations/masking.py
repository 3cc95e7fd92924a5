"""Fault masking of Minerva (Reagen et al., ISCA 2016): wrong bits are detected where they are, and masked.

The detector is a circuit, such as double sampling of each column (Razor): it says which bits of a read are wrong, and
not what they should be. Here it finds all of them.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .ecc import check_granularity
from .mitigation import Decoded, MemoryMitigation, Overhead, Written

_DETECTOR = Overhead(source="no cells are added", uncounted="the detector of wrong bits in each column")


@dataclass(frozen=True, repr=False)
class WordMasking(MemoryMitigation):
    """A weight (or a 64-bit word) with a wrong bit reads 0.

    Raises
    ------
    FaultsimError
        For a granularity that is not known.
    """

    name: ClassVar[str] = "word-masking"
    granularity: str = "weight"
    """What reads 0: the weight, or the 64-bit word."""
    overhead: Overhead = _DETECTOR
    """Default: the energy of the detector is not counted; give it as `Overhead(access=...)`."""

    def __post_init__(self) -> None:
        check_granularity(self.granularity)

    @property
    def label(self) -> str:
        """Name and granularity."""
        return f"{self.name}:{self.granularity}"

    def decode(self, read: Tensor, checks: Tensor | None, written: Written) -> Decoded:
        """Zero what has a wrong bit."""
        wrong = read != written.weights
        return Decoded(
            read.masked_fill(wrong.any(-1, keepdim=True) if self.granularity == "word" else wrong, 0)
        )


@dataclass(frozen=True, repr=False)
class BitMasking(MemoryMitigation):
    """Each wrong bit reads as the sign of its weight; a weight with a wrong sign reads 0.

    A weight in two's complement moves towards 0, and keeps its sign.
    """

    name: ClassVar[str] = "bit-masking"
    overhead: Overhead = _DETECTOR
    """Default: the energy of the detector is not counted; give it as `Overhead(access=...)`."""

    def decode(self, read: Tensor, checks: Tensor | None, written: Written) -> Decoded:
        """Put the sign in the place of wrong bits."""
        wrong = read ^ written.weights
        masked = (read & ~wrong) | (read >> 7 & wrong)
        return Decoded(torch.where(wrong < 0, 0, masked))
