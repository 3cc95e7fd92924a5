"""Fault maps of simulated chips."""

from collections.abc import Sequence

import numpy as np

from ..errors import FaultsimError
from ..faults import Chip, FaultKind, FaultModel
from ..hit_table import checked_rate
from ..sram import BLOCK_BYTES
from ..voltage import VoltageCurve
from .fault_cells import MOST_CELLS, check_extent
from .fault_map import FaultMap

_CHUNK = 64 * BLOCK_BYTES  # bytes of memory looked at at once


def find_failing_cells(
    chip: Chip, arrays: int | None, bit_error_rate: float, faults: FaultModel | None = None
) -> FaultMap:
    """List the failing cells of a simulated chip at a bit error rate.

    Parameters
    ----------
    chip
        The simulated chip.
    arrays
        How many SRAM arrays, from the first; None: those of the weight memory (64 in the paper's 256 KiB).
    bit_error_rate
        Fraction of failing cells, 0 to 1.
    faults
        Kind of fault and the memory. Default: flips in the paper's memory.

    Returns
    -------
    FaultMap
        The voltages of its cells are NaN: a rate was given, no voltage.

    Raises
    ------
    FaultsimError
        For transient faults, which differ from read to read and have no map, and for more cells than a map holds.
    """
    import torch

    from ..kernel import ops

    faults = faults or FaultModel()
    rate = checked_rate(bit_error_rate)
    if faults.kind is FaultKind.TRANSIENT:
        raise FaultsimError(
            "transient faults differ from read to read and have no map; the kind flip lists the same cells"
        )
    geometry = faults.memory.array
    if arrays is None:
        blocks = faults.memory.address_map.blocks or faults.memory.capacity_bytes // BLOCK_BYTES
        arrays = blocks * BLOCK_BYTES // geometry.bytes
    check_extent(arrays, geometry)
    size = arrays * geometry.bytes
    if 8 * size * rate > MOST_CELLS:
        raise FaultsimError(
            f"{arrays} arrays at a bit error rate of {rate:g} have some {8 * size * rate:.2g} failing cells, "
            f"more than the {MOST_CELLS:,} of one map; take fewer arrays"
        )
    seeds, table, rule = ops.encode_chips([chip]), ops.encode_rate(rate), ops.encode_kind(faults)
    addresses, stuck_at = [np.empty(0, np.int64)], [np.empty(0, np.int8)]
    for start in range(0, size, _CHUNK):
        memory = torch.empty(min(_CHUNK, size - start), dtype=torch.int8)
        # Physical cells, in the order of their addresses: no placement.
        failing, states = torch.ops.faultsim.fault_mask(memory, seeds, table, rule, [start, 0, 1, 1])
        failing, states = failing[0].numpy(), states[0].numpy()
        touched = np.flatnonzero(failing)
        byte, bit = np.nonzero(np.unpackbits(failing[touched, None], axis=1, bitorder="little"))
        addresses.append((start + touched[byte]) * 8 + bit)
        state = (states[touched[byte]] >> bit & 1).astype(np.int8)
        stuck_at.append(np.full_like(state, -1) if faults.kind is FaultKind.FLIP else state)
    array, row, column = geometry.locate(np.concatenate(addresses))
    unknown = np.full(len(array), np.nan)
    source = f"chip {chip.seed}, {faults.kind}, bit error rate {rate!r}"
    return FaultMap(array, row, column, np.concatenate(stuck_at), unknown, arrays, geometry, source)


def map_chip(
    chip: Chip,
    voltages: Sequence[float],
    curve: VoltageCurve | None = None,
    arrays: int | None = None,
    faults: FaultModel | None = None,
) -> FaultMap:
    """List the failing cells of a simulated chip at some supply voltages.

    Parameters
    ----------
    chip
        The simulated chip.
    voltages
        Supply voltages, in the unit of the curve.
    curve
        Bit error rate against voltage. Default: the paper's SRAM.
    arrays, faults
        As for `find_failing_cells`.

    Returns
    -------
    FaultMap
        The cells that fail at the lowest of the voltages, each with the highest of them at which it fails.
    """
    faults, curve = faults or FaultModel(), curve or VoltageCurve.default()
    if not len(voltages):
        raise FaultsimError("a chip's map needs at least one voltage")
    rising = sorted(map(float, voltages))
    lowest = find_failing_cells(chip, arrays, curve.bit_error_rate(rising[0]), faults)
    addresses, highest = lowest.addresses, np.full(len(lowest), rising[0])
    for voltage in rising[1:]:
        cells = find_failing_cells(chip, lowest.arrays, curve.bit_error_rate(voltage), faults)
        highest[np.searchsorted(addresses, cells.addresses)] = voltage
    source = " ".join(f"chip {chip.seed}, {faults.kind}, curve {curve.name}".split())
    where = (lowest.array, lowest.row, lowest.column, lowest.stuck_at)
    return FaultMap(*where, highest, lowest.arrays, lowest.geometry, source, rising[0])
