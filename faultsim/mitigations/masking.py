"""Fault masking of Minerva (Reagen et al., ISCA 2016): wrong bits are detected where they are, and masked.

The detector is a circuit, such as double sampling of each column (Razor): it says which bits of a read are wrong, and
not what they should be. Here it finds all of them.
"""

from dataclasses import dataclass
from typing import ClassVar

from ..errors import FaultsimError
from ..formats import Format, IntegerFormat
from .codec import Codec, CodecMitigation, MaskCodec
from .ecc import check_granularity
from .mitigation import Overhead

_DETECTOR = Overhead(source="no cells are added", uncounted="the detector of wrong bits in each column")


@dataclass(frozen=True, repr=False)
class WordMasking(CodecMitigation):
    """A weight (or a 64-bit word) with a wrong bit reads 0.

    Raises
    ------
    FaultsimError
        For a granularity that is not known.
    """

    name: ClassVar[str] = "word-masking"
    any_format: ClassVar[bool] = True
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

    def make_codec(self, stored: Format) -> Codec:
        """Return what the kernel does with words of a format."""
        return MaskCodec(stored, mask="mask_words" if self.granularity == "word" else "mask_weights")


@dataclass(frozen=True, repr=False)
class BitMasking(CodecMitigation):
    """Each wrong bit reads as the sign of its weight; a weight with a wrong sign reads 0.

    A weight in two's complement moves towards 0, and keeps its sign.
    """

    name: ClassVar[str] = "bit-masking"
    overhead: Overhead = _DETECTOR
    """Default: the energy of the detector is not counted; give it as `Overhead(access=...)`."""

    def check_format(self, stored: Format) -> None:
        """Raise FaultsimError for numbers that are not in two's complement."""
        if not isinstance(stored, IntegerFormat) or stored.offset:
            raise FaultsimError(
                f"{self.label} is for integers in two's complement, and these weights are {stored}"
            )

    def make_codec(self, stored: Format) -> Codec:
        """Return what the kernel does with words of a format."""
        return MaskCodec(stored, mask="mask_bits")
