"""The failing cells of a fault map as plain NumPy arrays: their types, how many there may be, and what is wrong."""

from collections.abc import Mapping

import numpy as np

from ..errors import FaultsimError
from ..sram import ArrayGeometry

TYPES = {"array": np.int32, "row": np.int32, "column": np.int32, "stuck_at": np.int8, "voltage": np.float64}
"""The five arrays that describe failing cells, by name."""
MOST_CELLS = 1 << 25
"""Most failing cells of one map: every cell of 1,024 arrays, 0.7 GB."""
MOST_BYTES = 1 << 30
"""Most bytes of memory that one map describes."""


def check_extent(arrays: int, geometry: ArrayGeometry) -> None:
    """Raise FaultsimError unless a map can have that many SRAM arrays."""
    if not isinstance(arrays, int | np.integer) or arrays < 1 or arrays * geometry.bytes > MOST_BYTES:
        raise FaultsimError(
            f"a map of {arrays} arrays of {geometry.rows}x{geometry.columns} cells: it must have at least one "
            f"array and describe at most {MOST_BYTES >> 30} GiB of memory"
        )


def find_first_wrong(
    cells: Mapping[str, np.ndarray], arrays: int, geometry: ArrayGeometry
) -> tuple[int, str] | None:
    """Find a cell that cannot exist.

    Parameters
    ----------
    cells
        Arrays of one length under the names of `TYPES`.
    arrays
        Number of SRAM arrays that were measured.
    geometry
        Rows and columns of each.

    Returns
    -------
    tuple[int, str] or None
        Index of the cell and the reason; None where all cells are right.
    """
    for name, end in (("array", arrays), ("row", geometry.rows), ("column", geometry.columns)):
        outside = (cells[name] < 0) | (cells[name] >= end)
        if outside.any():
            index = int(outside.argmax())
            return index, f"{name} {cells[name][index]} is outside 0 to {end - 1}"
    odd = (cells["stuck_at"] < -1) | (cells["stuck_at"] > 1)
    if odd.any():
        index = int(odd.argmax())
        return index, f"stuck_at {cells['stuck_at'][index]} must be 0, 1, or -1 for an inverted bit"
    odd = np.isinf(cells["voltage"]) | (cells["voltage"] <= 0)
    if odd.any():
        index = int(odd.argmax())
        return index, f"voltage {cells['voltage'][index]} must be a finite number above 0"
    address = compute_bit_address(cells, geometry)
    order = np.argsort(address, kind="stable")
    again = address[order[1:]] == address[order[:-1]]
    if again.any():
        index = int(order[1:][again].min())
        where = ", ".join(f"{name} {cells[name][index]}" for name in ("array", "row", "column"))
        return (
            index,
            f"{where} was named before: name a cell once, with the highest voltage at which it failed",
        )
    return None


def compute_bit_address(cells: Mapping[str, np.ndarray], geometry: ArrayGeometry) -> np.ndarray:
    """Return the address of each cell, 8 * byte + bit, int64: the inverse of ArrayGeometry.locate()."""
    row = cells["array"].astype(np.int64) * geometry.rows + cells["row"]
    address: np.ndarray = row * geometry.columns + cells["column"]
    return address
