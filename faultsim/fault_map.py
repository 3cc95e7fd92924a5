"""Fault maps: the failing cells of a chip as a list that can be saved, loaded, drawn, and read through."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .errors import FaultsimError
from .faults import Chip, FaultKind, FaultModel
from .hit_table import checked_rate
from .sram import BLOCK_BYTES, ArrayGeometry
from .voltage import VoltageCurve

if TYPE_CHECKING:
    import torch

MOST_CELLS = 1 << 25  # in one map: every cell of 1,024 arrays, 0.7 GB
MOST_BYTES = 1 << 30  # of the memory that a map describes
TYPES = {"array": np.int32, "row": np.int32, "column": np.int32, "stuck_at": np.int8, "voltage": np.float64}
_CHUNK = 64 * BLOCK_BYTES  # bytes of memory looked at in one go


@dataclass(frozen=True, eq=False)
class FaultMap:
    """Failing cells of `arrays` SRAM arrays: equally long arrays, in the order of array, row and column.

    Raises FaultsimError for cells outside the arrays, cells named twice and values that mean nothing.
    """

    array: np.ndarray  #: int32 [cells], from 0
    row: np.ndarray  #: int32 [cells]
    column: np.ndarray  #: int32 [cells]
    stuck_at: np.ndarray  #: int8 [cells]: -1 the bit reads inverted; 0, 1 it reads as that
    voltage: (
        np.ndarray
    )  #: float64 [cells]: the cell fails at this supply voltage and below; NaN: at every one
    arrays: int  #: how many arrays were looked at
    geometry: ArrayGeometry = field(default_factory=ArrayGeometry)
    source: str = ""  #: where the map comes from, one line
    lowest_voltage: float | None = None
    """The lowest supply voltage that was measured; None: the lowest of the cells. Below it nothing is known."""

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
        if wrong := first_wrong(given, self.arrays, self.geometry):
            index, complaint = wrong
            raise FaultsimError(f"fault map, cell {index}: {complaint}")
        object.__setattr__(self, "arrays", int(self.arrays))
        object.__setattr__(self, "lowest_voltage", _lowest(self.lowest_voltage, given["voltage"]))
        order = np.argsort(_bit_address(given, self.geometry), kind="stable")
        for name, values in given.items():
            values = values[order].astype(TYPES[name])
            values.setflags(write=False)
            object.__setattr__(self, name, values)

    def __len__(self) -> int:
        return len(self.array)

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
        """Size of the memory that was looked at."""
        return self.arrays * self.geometry.bytes

    @property
    def bit_error_rate(self) -> float:
        """Failing cells per cell, whatever their voltage."""
        return len(self) / (8 * self.bytes)

    def at(self, voltage: float | None) -> "FaultMap":
        """The cells that fail at a supply voltage. None is allowed where no cell of the map depends on it.

        FaultsimError below the lowest voltage that was measured: more cells fail there than the map knows of.
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
        """The failing cells of one array."""
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
        """(clear, set, flip), each uint8 [bytes]: a stored byte b reads ((b & ~clear) | set) ^ flip."""
        address = _bit_address(vars(self), self.geometry)
        bits = (1 << (address % 8)).astype(np.uint8)
        result = []
        for state in (0, 1, -1):
            mask, chosen = np.zeros(self.bytes, np.uint8), self.stuck_at == state
            np.bitwise_or.at(mask, address[chosen] // 8, bits[chosen])
            result.append(mask)
        return tuple(result)

    def save(self, path: str | Path) -> None:
        """Writes `.npz` or `.csv` (faultsim.fault_map_files), atomically; equal maps give equal bytes."""
        from .fault_map_files import save

        save(self, Path(path))

    @classmethod
    def load(cls, path: str | Path) -> "FaultMap":
        """Reads what save() wrote or a person typed; FaultsimError names the file, and in a CSV the line."""
        from .fault_map_files import load

        return load(Path(path))


def check_extent(arrays: int, geometry: ArrayGeometry) -> None:
    """FaultsimError unless a map can have so many arrays."""
    if not isinstance(arrays, int | np.integer) or arrays < 1 or arrays * geometry.bytes > MOST_BYTES:
        raise FaultsimError(
            f"a map of {arrays} arrays of {geometry.rows}x{geometry.columns} cells: it must have at least one "
            f"array and describe at most {MOST_BYTES >> 30} GiB of memory"
        )


def _lowest(stated: float | None, voltages: np.ndarray) -> float | None:
    """The lowest voltage of a map whose cells have these; FaultsimError for one that cannot be."""
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


def first_wrong(cells: dict, arrays: int, geometry: ArrayGeometry) -> tuple[int, str] | None:
    """Index of a cell that cannot be and the reason, from arrays with the names in TYPES."""
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
    address = _bit_address(cells, geometry)
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


def _bit_address(cells: dict, geometry: ArrayGeometry) -> np.ndarray:
    row = cells["array"].astype(np.int64) * geometry.rows + cells["row"]
    return row * geometry.columns + cells["column"]


# -- maps of simulated chips ---------------------------------------------------------------------------------


def failing_cells(
    chip: Chip, arrays: int | None, bit_error_rate: float, model: FaultModel | None = None
) -> FaultMap:
    """Failing cells of a chip's first arrays (None: those of the model's memory, 64 in the paper's 256 KiB).

    Voltages are NaN: the rate was given, not the voltage. Transient faults have no map: FaultsimError.
    """
    import torch

    from . import ops

    model = model or FaultModel()
    rate = checked_rate(bit_error_rate)
    if model.kind is FaultKind.TRANSIENT:
        raise FaultsimError(
            "transient faults differ from read to read and have no map; the kind flip lists the same cells"
        )
    geometry = model.memory.array
    if arrays is None:
        blocks = model.memory.layout.blocks or model.memory.capacity_bytes // BLOCK_BYTES
        arrays = blocks * BLOCK_BYTES // geometry.bytes
    check_extent(arrays, geometry)
    size = arrays * geometry.bytes
    if 8 * size * rate > MOST_CELLS:
        raise FaultsimError(
            f"{arrays} arrays at a bit error rate of {rate:g} have some {8 * size * rate:.2g} failing cells, "
            f"more than the {MOST_CELLS:,} of one map; take fewer arrays"
        )
    seeds, table, rule = ops.seeds([chip]), ops.table(rate), ops.rule(model)
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
        stuck_at.append(np.full_like(state, -1) if model.kind is FaultKind.FLIP else state)
    array, row, column = geometry.locate(np.concatenate(addresses))
    unknown = np.full(len(array), np.nan)
    source = f"chip {chip.seed}, {model.kind}, bit error rate {rate!r}"
    return FaultMap(array, row, column, np.concatenate(stuck_at), unknown, arrays, geometry, source)


def chip_map(
    chip: Chip,
    voltages: Sequence[float],
    curve: VoltageCurve | None = None,
    arrays: int | None = None,
    model: FaultModel | None = None,
) -> FaultMap:
    """A chip's failing cells at the lowest of some voltages, each with the highest of them at which it fails."""
    model, curve = model or FaultModel(), curve or VoltageCurve.default()
    if not len(voltages):
        raise FaultsimError("a chip's map needs at least one voltage")
    rising = sorted(map(float, voltages))
    lowest = failing_cells(chip, arrays, curve.bit_error_rate(rising[0]), model)
    addresses, highest = _bit_address(vars(lowest), lowest.geometry), np.full(len(lowest), rising[0])
    for voltage in rising[1:]:
        cells = failing_cells(chip, lowest.arrays, curve.bit_error_rate(voltage), model)
        highest[np.searchsorted(addresses, _bit_address(vars(cells), cells.geometry))] = voltage
    source = " ".join(f"chip {chip.seed}, {model.kind}, curve {curve.name}".split())
    where = (lowest.array, lowest.row, lowest.column, lowest.stuck_at)
    return FaultMap(*where, highest, lowest.arrays, lowest.geometry, source, rising[0])


# -- reading through a map -----------------------------------------------------------------------------------


class MeasuredChip:
    """A chip whose faults come from a map.

    What its failing cells do is in the map, so of a fault model only the memory (placement, capacity) matters.
    """

    def __init__(self, fault_map: FaultMap, label: str | None = None) -> None:
        self.fault_map = fault_map
        self.label = label or fault_map.source or "measured"  #: its name in results
        self._latest: tuple = (None, None)  # masks of a voltage and device: a model asks layer by layer

    @classmethod
    def load(cls, path: str | Path) -> "MeasuredChip":
        """From a file of FaultMap.save(); the label is the file's name without its ending."""
        return cls(FaultMap.load(path), Path(path).stem)

    def __repr__(self) -> str:
        return f"MeasuredChip({self.label!r}, {len(self.fault_map)} cells in {self.fault_map.arrays} arrays)"

    def _masks(self, voltage: float | None, device: "torch.device") -> list["torch.Tensor"]:
        import torch

        key, masks = self._latest
        if key != (voltage, device):
            masks = self.fault_map.at(voltage).masks()
            masks = [torch.from_numpy(mask).view(torch.int8).to(device) for mask in masks]
            self._latest = (voltage, device), masks
        return masks

    def read(
        self,
        weights: "torch.Tensor",
        voltage: float | None,
        model: FaultModel | None = None,
        base: int = 0,
    ) -> "torch.Tensor":
        """int8 weights [...] as they are read at a supply voltage; `base` is the address of the first of them.

        Cells are taken in row-major logical order whatever the strides. FaultsimError where the weights reach
        beyond the memory that was measured.
        """
        import torch

        if weights.dtype != torch.int8:
            raise TypeError(f"weights must be int8, not {weights.dtype}")
        stored = weights.contiguous().view(-1)
        layout = (model or FaultModel()).memory.layout
        capacity, run = layout.blocks * BLOCK_BYTES, layout.word * layout.repeat
        end = base + stored.numel()
        if layout.repeat > 1:
            end = -(-end // run) * layout.word
        needed = min(end, capacity) if capacity else end
        if stored.numel() and needed > self.fault_map.bytes:
            raise FaultsimError(
                f"fault map {self.label!r} covers {self.fault_map.bytes:,} bytes of memory, the weights take "
                f"{needed:,}: use tiled placement and a capacity that was measured"
            )
        clear, ones, flip = self._masks(voltage, weights.device)
        out = torch.empty_like(stored)
        for start in range(0, stored.numel(), _CHUNK):  # chunks, for an address has eight bytes
            stop = min(start + _CHUNK, stored.numel())
            at = torch.arange(base + start, base + stop, device=weights.device)
            if layout.repeat > 1:
                at = at // run * layout.word + at % layout.word
            if capacity:
                at = at % capacity
            out[start:stop] = ((stored[start:stop] & ~clear[at]) | ones[at]) ^ flip[at]
        return out.view(weights.shape)
