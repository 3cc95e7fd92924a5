"""SRAM arrays, the weight memory made of them, and where a model's weights lie in it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

from .errors import FaultsimError
from .support.integers import checked_integer

if TYPE_CHECKING:
    import numpy as np

Address = TypeVar("Address", int, "np.ndarray")

BLOCK_BYTES = 4096
"""Bytes of a block, for which the kernel draws faults at once: 32,768 cells, one array of the paper. Cells are
independent, so arrays of another shape are the same bits under other names."""
WORD_BYTES = 8  # a layer begins on a 64-bit word


@dataclass(frozen=True)
class ArrayGeometry:
    """One SRAM array.

    Byte b of an array lies in the row 8*b // columns; its bit k (0 = least significant, 7 = sign) in the column
    8*b % columns + k.
    """

    rows: int = 512
    """Word lines."""
    columns: int = 64
    """Bit cells of one row; a multiple of 8."""

    def __post_init__(self) -> None:
        for name in ("rows", "columns"):
            object.__setattr__(self, name, checked_integer(getattr(self, name), f"an array's {name}"))
        if self.rows < 1 or self.columns < 8 or self.columns % 8:
            raise FaultsimError(
                f"an array of {self.rows}x{self.columns} cells: rows must be at least 1 and columns a multiple of 8"
            )

    @property
    def cells(self) -> int:
        """Number of bit cells."""
        return self.rows * self.columns

    @property
    def bytes(self) -> int:
        """Number of bytes."""
        return self.cells // 8

    def locate(self, bit_address: Address) -> tuple[Address, Address, Address]:
        """Return (array, row, column) of bit `8 * byte address + bit`. Also works on integer arrays."""
        return bit_address // self.cells, bit_address % self.cells // self.columns, bit_address % self.columns


class Placement(StrEnum):
    """How a model's weights, layer after layer in row-major order, come to lie in the memory."""

    UNLIMITED = "unlimited"
    """Every weight has cells of its own."""
    TILED = "tiled"
    """Address = offset in the model modulo the capacity: one bad cell hits many weights."""
    TILED_PER_LAYER = "tiled_per_layer"
    """The same, every layer beginning at address 0."""
    NEURALFUSE_2022 = "neuralfuse_2022"
    """The placement of the published NeuralFuse code, see SRAM.address_map."""


@dataclass(frozen=True)
class AddressMap:
    """Addresses of weights, as the kernel computes them.

    Weight i of a layer with base address b lies at j = b + i; for repeat > 1 at
    (j // (word * repeat)) * word + j % word; modulo the memory's bytes unless it is unlimited.
    """

    blocks: int
    """Size of the memory, in blocks of 4,096 bytes; 0: unlimited."""
    word: int = 16
    """Bytes of memory that serve `repeat` runs of weights before the next bytes do."""
    repeat: int = 1
    per_layer: bool = False
    """Whether every layer begins at address 0."""


@dataclass(frozen=True)
class SRAM:
    """The memory that holds the weights; the defaults are the paper's accelerator (Appendix C)."""

    placement: Placement = Placement.UNLIMITED
    capacity_bytes: int = 256 * 1024
    """Size of the weight memory; it matters to the tiled placements."""
    array: ArrayGeometry = ArrayGeometry()

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "placement", Placement(self.placement))
        except ValueError:
            known = ", ".join(p.value for p in Placement)
            raise FaultsimError(f"unknown placement {str(self.placement)!r}: it can be {known}") from None
        capacity = checked_integer(self.capacity_bytes, "the capacity of a weight memory")
        object.__setattr__(self, "capacity_bytes", capacity)
        if self.capacity_bytes < BLOCK_BYTES or self.capacity_bytes % BLOCK_BYTES:
            raise FaultsimError(
                f"a weight memory of {self.capacity_bytes} bytes: the capacity must be a multiple of {BLOCK_BYTES}"
            )
        if self.capacity_bytes % self.array.bytes:
            raise FaultsimError(
                f"a weight memory of {self.capacity_bytes} bytes is no whole number of arrays of "
                f"{self.array.bytes} bytes"
            )

    @property
    def address_map(self) -> AddressMap:
        """Where the weights of a layer lie.

        For `neuralfuse_2022` as in the released code of the paper: one map of 8,192 rows x 128 columns (128 KiB), used
        by every layer from its first row on, with 16 weights a row. Each row serves 16 runs of 16 weights: weight i
        uses row i // 256 mod 8192 and column group i mod 16. `capacity_bytes` is ignored.
        """
        blocks = self.capacity_bytes // BLOCK_BYTES
        match self.placement:
            case Placement.UNLIMITED:
                return AddressMap(0)
            case Placement.TILED:
                return AddressMap(blocks)
            case Placement.TILED_PER_LAYER:
                return AddressMap(blocks, per_layer=True)
            case Placement.NEURALFUSE_2022:
                return AddressMap(8192 * 128 // 8 // BLOCK_BYTES, word=16, repeat=16, per_layer=True)

    def bases(self, sizes: list[int]) -> list[int]:
        """Address of the first weight of each layer, from the layers' sizes in weights (= bytes)."""
        bases, at = [], 0
        for size in sizes:
            bases.append(0 if self.address_map.per_layer else at)
            at += -(-size // WORD_BYTES) * WORD_BYTES
        return bases
