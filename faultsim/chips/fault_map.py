"""A fault map: the failing cells of a chip as a list that can be saved, loaded and drawn."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import FaultsimError
from ..sram import BLOCK_BYTES, ArrayGeometry
from . import fault_map_files
from .fault_cells import TYPES, check_extent, compute_bit_address, find_first_wrong


@dataclass(frozen=True, eq=False, repr=False)
class FaultMap:
    """Failing cells of some SRAM arrays, in the order of array, row and column.

    Cells may be given in any order and integer type; they are sorted and converted. `len(fault_map)` is the number of
    failing cells.

    Raises
    ------
    FaultsimError
        For cells outside the arrays, cells named twice, and values that cannot be.
    """

    array: np.ndarray
    """SRAM array of each failing cell, int32 [cells], counted from 0."""
    row: np.ndarray
    """Word line, int32 [cells]."""
    column: np.ndarray
    """Bit line, int32 [cells]."""
    stuck_at: np.ndarray
    """What the cell reads, int8 [cells]: 0 or 1; -1: the inverse of what was stored."""
    voltage: np.ndarray
    """Highest supply voltage at which the cell fails, float64 [cells]; NaN: it fails at every voltage."""
    arrays: int
    """Number of SRAM arrays that the map describes."""
    geometry: ArrayGeometry = field(default_factory=ArrayGeometry)
    """Rows and columns of each array."""
    source: str = ""
    """Where the map comes from, in one line."""
    lowest_voltage: float | None = None
    """Lowest supply voltage that was measured; below it nothing is known. Default: the lowest of the cells."""

    def __post_init__(self) -> None:
        check_extent(self.arrays, self.geometry)
        if self.source != " ".join(self.source.split()):
            raise FaultsimError(f"a map's source must be one line without double spaces, not {self.source!r}")
        given = {name: np.asarray(getattr(self, name)) for name in TYPES}
        shapes = {values.shape for values in given.values()}
        if len(shapes) != 1 or len(shapes.pop()) != 1:
            raise FaultsimError(f"a fault map needs five arrays of one length: {', '.join(TYPES)}")
        for name, values in given.items():
            if values.dtype.kind not in ("iu" if name != "voltage" else "iuf"):
                wanted = "integers" if name != "voltage" else "numbers"
                raise FaultsimError(f"a fault map's {name} must be {wanted}, not {values.dtype}")
        if wrong := find_first_wrong(given, self.arrays, self.geometry):
            index, complaint = wrong
            raise FaultsimError(f"fault map, cell {index}: {complaint}")
        object.__setattr__(self, "arrays", int(self.arrays))
        object.__setattr__(self, "lowest_voltage", _lowest(self.lowest_voltage, given["voltage"]))
        order = np.argsort(compute_bit_address(given, self.geometry), kind="stable")
        for name, values in given.items():
            values = values[order].astype(TYPES[name])
            values.setflags(write=False)
            object.__setattr__(self, name, values)

    def __len__(self) -> int:
        return len(self.array)

    def __repr__(self) -> str:
        size = f"{self.geometry.rows}x{self.geometry.columns}"
        source = f", source {self.source!r}" if self.source else ""
        return f"FaultMap({len(self):,} failing cells in {self.arrays:,} arrays of {size}{source})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FaultMap):
            return NotImplemented
        return (self.arrays, self.geometry, self.source, self.lowest_voltage) == (
            other.arrays,
            other.geometry,
            other.source,
            other.lowest_voltage,
        ) and all(
            np.array_equal(getattr(self, name), getattr(other, name), equal_nan=name == "voltage")
            for name in TYPES
        )

    @property
    def bytes(self) -> int:
        """Size of the memory that the map describes."""
        return self.arrays * self.geometry.bytes

    @property
    def bit_error_rate(self) -> float:
        """Fraction of all cells that fail, whatever their voltage."""
        return len(self) / (8 * self.bytes)

    @property
    def addresses(self) -> np.ndarray:
        """Address of each failing cell, 8 * byte + bit, int64 [cells], ascending."""
        return compute_bit_address(vars(self), self.geometry)

    def at(self, voltage: float | None) -> "FaultMap":
        """Return the cells that fail at a supply voltage.

        Parameters
        ----------
        voltage
            In the unit of the map. None is allowed where no cell depends on it.

        Raises
        ------
        FaultsimError
            Below the lowest voltage that was measured: more cells fail there than the map knows of.
        """
        if voltage is None:
            if not np.isnan(self.voltage).all():
                raise FaultsimError(
                    f"fault map {self.source!r}: its cells fail from some voltage down; say at which voltage"
                )
            return self
        if not (math.isfinite(voltage) and voltage > 0):
            raise FaultsimError(f"voltage {voltage} must be a finite number above 0")
        if self.lowest_voltage is None:
            return self
        if voltage < self.lowest_voltage:
            raise FaultsimError(
                f"voltage {voltage:g} is below {self.lowest_voltage:g}, the lowest that was measured for the fault map "
                f"{self.source!r}: more cells fail there than it knows of"
            )
        return self._subset(np.isnan(self.voltage) | (self.voltage >= voltage), voltage)

    def in_array(self, index: int) -> "FaultMap":
        """Return the failing cells of one SRAM array."""
        if not 0 <= index < self.arrays:
            raise FaultsimError(f"array {index}: the fault map has arrays 0 to {self.arrays - 1}")
        return self._subset(self.array == index, self.lowest_voltage)

    def _subset(self, chosen: np.ndarray, lowest_voltage: float | None) -> "FaultMap":
        return FaultMap(
            **{name: getattr(self, name)[chosen] for name in TYPES},
            arrays=self.arrays,
            geometry=self.geometry,
            source=self.source,
            lowest_voltage=lowest_voltage,
        )

    def masks(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (clear, set, flip), each uint8 [bytes]: a stored byte b reads ((b & ~clear) | set) ^ flip."""
        address = self.addresses
        bits = (1 << (address % 8)).astype(np.uint8)
        clear, ones, flip = (np.zeros(self.bytes, np.uint8) for _ in range(3))
        for state, mask in ((0, clear), (1, ones), (-1, flip)):
            chosen = self.stuck_at == state
            np.bitwise_or.at(mask, address[chosen] // 8, bits[chosen])
        return clear, ones, flip

    def list_cells(self, states: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """List failing cells block by block, as the kernel reads them.

        Parameters
        ----------
        states
            Values of `stuck_at`: only these cells.

        Returns
        -------
        cells : numpy.ndarray
            uint16, in the order of their addresses: the place in a block of 4,096 bytes, and above it 1 for a cell that
            is stuck at 1.
        begin : numpy.ndarray
            int64 [blocks + 1]: block b has the cells begin[b] to begin[b + 1] - 1.
        """
        chosen = np.isin(self.stuck_at, states)
        address, cells = self.addresses[chosen], 8 * BLOCK_BYTES
        begin = np.searchsorted(address, np.arange(-(-self.bytes // BLOCK_BYTES) + 1) * cells)
        ones = (self.stuck_at[chosen] == 1).astype(np.int64)
        return (address % cells | ones << 15).astype(np.uint16), begin.astype(np.int64)

    def save(self, path: str | Path) -> None:
        """Write the map as `.npz` or `.csv` (see `faultsim.chips.fault_map_files`), atomically.

        Equal maps give equal bytes.
        """
        # a file states the lowest voltage only where it doesn't follow from the cells
        follows = self.lowest_voltage is None or (self.voltage == self.lowest_voltage).any()
        fields = {**vars(self), "lowest_voltage": None if follows else self.lowest_voltage}
        fault_map_files.write(Path(path), fields)

    @classmethod
    def load(cls, path: str | Path) -> "FaultMap":
        """Read what `save` wrote or a person typed.

        Raises
        ------
        FaultsimError
            Naming the file, and in a CSV the line, that is wrong.
        """
        fields = fault_map_files.read(Path(path))
        try:
            return cls(**fields)
        except FaultsimError as error:
            raise FaultsimError(f"fault map {path}: {error}") from None


def _lowest(stated: float | None, voltages: np.ndarray) -> float | None:
    """Return the lowest voltage of a map whose cells have these; FaultsimError for one that cannot be."""
    known = voltages[~np.isnan(voltages)]
    of_cells = float(known.min()) if len(known) else None
    if stated is None:
        return of_cells
    if not (math.isfinite(stated) and stated > 0 and (of_cells is None or stated <= of_cells)):
        raise FaultsimError(
            f"a map's lowest voltage {stated} must be above 0 and not above that of any cell"
            + ("" if of_cells is None else f", {of_cells}")
        )
    return float(stated)
