"""Mitigations on the memory: what a read returns where a code, a detector, better cells or a boost protect it."""

from .codes import LinearCode as LinearCode
from .ecc import SECDED as SECDED
from .ecc import InPlaceCode as InPlaceCode
from .ecc import Parity as Parity
from .masking import BitMasking as BitMasking
from .masking import WordMasking as WordMasking
from .mitigation import Decoded as Decoded
from .mitigation import MemoryMitigation as MemoryMitigation
from .mitigation import Overhead as Overhead
from .mitigation import Written as Written
from .protected import ProtectedWeights as ProtectedWeights
from .robust import BoostedLayers as BoostedLayers
from .robust import RobustBits as RobustBits
from .together import Together as Together

__all__ = [
    "SECDED",
    "BitMasking",
    "BoostedLayers",
    "Decoded",
    "InPlaceCode",
    "LinearCode",
    "MemoryMitigation",
    "Overhead",
    "Parity",
    "ProtectedWeights",
    "RobustBits",
    "Together",
    "WordMasking",
    "Written",
]
