"""Fault maps: the failing cells of a chip as a list that can be saved, loaded, drawn, and read through.

Two file formats, both without pickle. `.npz` holds five arrays of one length, array, row, column (integers),
stuck_at (-1, 0, 1) and voltage (float64, NaN allowed), and `meta`, a JSON string with the keys format
("faultsim fault map"), version (1), arrays, rows, columns and source. `.csv`, for people who measured a chip:

    # arrays=64 rows=512 columns=64
    voltage,array,row,column,stuck_at
    0.83,0,17,5,1
    ,2,511,63,

An empty stuck_at means that the bit reads inverted, an empty voltage that the cell fails at every voltage. Without
the comment line the arrays have 512x64 cells and the highest array mentioned is the last.
"""

import json
import math
import re
import zipfile
import zlib
from array import array as numbers
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .draw import checked_rate
from .errors import FaultsimError
from .faults import Chip, FaultKind, FaultModel
from .files import write_atomically
from .sram import BLOCK_BYTES, ArrayGeometry
from .voltage import VoltageCurve

if TYPE_CHECKING:
    import torch

FORMAT, VERSION = "faultsim fault map", 1
COLUMNS = ("voltage", "array", "row", "column", "stuck_at")
MOST_CELLS = 1 << 25  # every cell of 1,024 arrays: 0.7 GB in memory
MOST_BYTES = 1 << 30  # of the measured memory, and of a file
_TYPES = {"array": np.int32, "row": np.int32, "column": np.int32, "stuck_at": np.int8, "voltage": np.float64}
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
    )  #: float64 [cells]: the cell fails at this supply voltage and below; NaN: at every voltage
    arrays: int  #: how many arrays were looked at
    geometry: ArrayGeometry = field(default_factory=ArrayGeometry)
    source: str = ""  #: where the map comes from, one line

    def __post_init__(self) -> None:
        _check_extent(self.arrays, self.geometry)
        if self.source != " ".join(self.source.split()):
            raise FaultsimError(
                f"a fault map's source must be one line without double spaces, not {self.source!r}"
            )
        given = {name: np.asarray(getattr(self, name)) for name in _TYPES}
        shapes = {values.shape for values in given.values()}
        if len(shapes) != 1 or len(shapes.pop()) != 1:
            raise FaultsimError(
                f"a fault map needs five arrays of one length and dimension: {', '.join(_TYPES)}"
            )
        for name, values in given.items():
            if values.dtype.kind not in ("iu" if name != "voltage" else "iuf"):
                wanted = "integers" if name != "voltage" else "numbers"
                raise FaultsimError(f"a fault map's {name} must be {wanted}, not {values.dtype}")
        if wrong := _first_wrong(given, self.arrays, self.geometry):
            index, complaint = wrong
            raise FaultsimError(f"fault map, cell {index}: {complaint}")
        order = np.argsort(_bit_address(given, self.geometry), kind="stable")
        for name, values in given.items():
            values = values[order].astype(_TYPES[name])
            values.setflags(write=False)
            object.__setattr__(self, name, values)

    def __len__(self) -> int:
        return len(self.array)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FaultMap):
            return NotImplemented
        return (self.arrays, self.geometry, self.source) == (
            other.arrays,
            other.geometry,
            other.source,
        ) and all(
            np.array_equal(getattr(self, name), getattr(other, name), equal_nan=name == "voltage")
            for name in _TYPES
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

        Below the lowest voltage that was measured a real chip has more failing cells than its map knows of.
        """
        if voltage is None:
            if not np.isnan(self.voltage).all():
                raise FaultsimError(
                    f"fault map {self.source!r}: its cells fail from some voltage on; say which voltage"
                )
            return self
        if not (math.isfinite(voltage) and voltage > 0):
            raise FaultsimError(f"voltage {voltage} must be a finite number above 0")
        return self._subset(np.isnan(self.voltage) | (self.voltage >= voltage))

    def in_array(self, index: int) -> "FaultMap":
        """The failing cells of one array."""
        if not 0 <= index < self.arrays:
            raise FaultsimError(f"array {index}: the fault map has arrays 0 to {self.arrays - 1}")
        return self._subset(self.array == index)

    def _subset(self, chosen: np.ndarray) -> "FaultMap":
        columns = (getattr(self, name)[chosen] for name in ("array", "row", "column", "stuck_at", "voltage"))
        return FaultMap(*columns, self.arrays, self.geometry, self.source)

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

    # -- files --------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Writes `.npz` or `.csv`, atomically; the same map gives the same bytes. FaultsimError if it can't."""
        path = Path(path)
        match path.suffix.lower():
            case ".npz":
                write_atomically(path, self._write_npz)
            case ".csv":
                write_atomically(path, self._write_csv)
            case _:
                raise FaultsimError(f"fault map {path}: the name must end in .npz or .csv")

    @classmethod
    def load(cls, path: str | Path) -> "FaultMap":
        """Reads what save() wrote or a person typed; FaultsimError naming the file, and in a CSV the line."""
        path = Path(path)
        suffix = path.suffix.lower()
        if suffix not in (".npz", ".csv"):
            raise FaultsimError(f"fault map {path}: the name must end in .npz or .csv")
        try:
            if not path.is_file():
                raise FaultsimError(f"fault map {path}: there is no such file")
            if path.stat().st_size > MOST_BYTES:
                raise FaultsimError(f"fault map {path}: larger than {MOST_BYTES >> 30} GiB")
            return (_read_npz if suffix == ".npz" else _read_csv)(path)
        except OSError as error:
            raise FaultsimError(f"fault map {path}: cannot be read: {error.strerror or error}") from None

    def _write_npz(self, path: Path) -> None:
        meta = {
            "format": FORMAT,
            "version": VERSION,
            "arrays": self.arrays,
            "rows": self.geometry.rows,
            "columns": self.geometry.columns,
            "source": self.source,
        }
        columns = {name: getattr(self, name) for name in _TYPES}
        np.savez_compressed(path, meta=np.array(json.dumps(meta)), **columns)

    def _write_csv(self, path: Path) -> None:
        with path.open("w", encoding="utf-8", newline="\n") as file:
            file.write(f"# arrays={self.arrays} rows={self.geometry.rows} columns={self.geometry.columns}\n")
            if self.source:
                file.write(f"# source: {self.source}\n")
            file.write(",".join(COLUMNS) + "\n")
            for start in range(0, len(self), 65536):
                cells = (getattr(self, name)[start : start + 65536].tolist() for name in COLUMNS)
                for v, array, row, column, state in zip(*cells, strict=True):
                    file.write(
                        f"{'' if v != v else repr(v)},{array},{row},{column},{'' if state < 0 else state}\n"
                    )


def _check_extent(arrays: int, geometry: ArrayGeometry) -> None:
    if not isinstance(arrays, int | np.integer) or arrays < 1 or arrays * geometry.bytes > MOST_BYTES:
        raise FaultsimError(
            f"a fault map of {arrays} arrays of {geometry.rows}x{geometry.columns} cells: at least one array, "
            f"at most {MOST_BYTES >> 30} GiB of memory is possible"
        )


def _bit_address(cells: dict, geometry: ArrayGeometry) -> np.ndarray:
    row = cells["array"].astype(np.int64) * geometry.rows + cells["row"]
    return row * geometry.columns + cells["column"]


def _first_wrong(cells: dict, arrays: int, geometry: ArrayGeometry) -> tuple[int, str] | None:
    """Index of a cell that cannot be, and why."""
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
        return index, f"{where} was named before: each cell once, with the highest voltage at which it failed"
    return None


def _read_npz(path: Path) -> FaultMap:
    foreign = FaultsimError(f"fault map {path}: this is no fault map of faultsim, or a damaged one")
    names = {f"{name}.npy" for name in (*_TYPES, "meta")}
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
        if set(sizes) != names or len(archive.infolist()) != len(names):
            raise foreign
        # Before anything is unpacked: a small archive can hold terabytes.
        if sizes["meta.npy"] > 65536 or max(sizes.values()) > MOST_CELLS * 8 + 1024:
            raise FaultsimError(f"fault map {path}: more than {MOST_CELLS:,} cells")
        with np.load(path, allow_pickle=False) as file:
            meta = json.loads(str(file["meta"]))
            if meta["format"] != FORMAT:
                raise foreign
            if meta["version"] != VERSION:
                raise FaultsimError(
                    f"fault map {path}: version {meta['version']}, this faultsim reads version {VERSION}"
                )
            geometry = ArrayGeometry(int(meta["rows"]), int(meta["columns"]))
            columns = {name: file[name] for name in _TYPES}
            return FaultMap(
                **columns, arrays=int(meta["arrays"]), geometry=geometry, source=str(meta["source"])
            )
    except FaultsimError as error:
        raise error if str(path) in str(error) else FaultsimError(f"fault map {path}: {error}") from None
    except OSError:
        raise
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        ValueError,
        TypeError,
        KeyError,
        RuntimeError,
        MemoryError,
    ):
        raise foreign from None


_EXTENT = re.compile(r"(arrays|rows|columns)=([0-9]{1,9})")


def _read_csv(path: Path) -> FaultMap:
    columns = {name: numbers("d" if name == "voltage" else "q") for name in COLUMNS}
    lines = numbers("q")  # line number of each cell
    extent, source, header = {}, path.name, None

    def wrong(line: int, complaint: str) -> FaultsimError:
        return FaultsimError(f"fault map {path}, line {line}: {complaint}")

    try:
        with path.open(encoding="utf-8-sig") as file:
            for line, text in enumerate(file, 1):
                text = text.strip()
                if not text:
                    continue
                if text.startswith("#"):
                    words = text[1:].split()
                    if words and all(_EXTENT.fullmatch(word) for word in words):
                        extent |= {name: int(value) for name, value in (word.split("=") for word in words)}
                    elif words and words[0] == "source:":
                        source = " ".join(words[1:])
                    continue
                cells = [cell.strip() for cell in text.split(",")]
                if header is None:
                    header = cells
                    if tuple(cells) != COLUMNS:
                        raise wrong(line, f"the header must be {','.join(COLUMNS)}, not {text[:80]!r}")
                    continue
                if len(lines) == MOST_CELLS:
                    raise wrong(line, f"more than {MOST_CELLS:,} cells")
                try:
                    voltage, *whole, state = cells
                    values = (float(voltage or "nan"), *map(int, whole), int(state or -1))
                    for name, value in zip(COLUMNS, values, strict=True):
                        columns[name].append(value)
                except (ValueError, OverflowError):
                    raise wrong(
                        line,
                        f"{','.join(COLUMNS)} expected (voltage and stuck_at may be empty), not {text[:80]!r}",
                    ) from None
                if voltage and not math.isfinite(values[0]):
                    raise wrong(line, f"voltage {voltage!r} must be a finite number above 0")
                lines.append(line)
    except UnicodeDecodeError:
        raise FaultsimError(f"fault map {path}: this is no text file") from None
    if header is None:
        raise FaultsimError(f"fault map {path}: the file is empty, the header {','.join(COLUMNS)} is missing")
    cells = {name: np.frombuffer(values, values.typecode) for name, values in columns.items()}
    if "arrays" not in extent and not lines:
        raise FaultsimError(
            f"fault map {path}: no cells; a line '# arrays=N' must say how many arrays were measured"
        )
    try:
        geometry = ArrayGeometry(**{name: extent[name] for name in ("rows", "columns") if name in extent})
        arrays = extent.get("arrays", max(int(cells["array"].max(initial=0)), 0) + 1)
        _check_extent(arrays, geometry)
    except FaultsimError as error:
        raise FaultsimError(f"fault map {path}: {error}") from None
    if found := _first_wrong(cells, arrays, geometry):
        index, complaint = found
        hint = "" if extent else "; a line '# arrays=64 rows=512 columns=64' can say what was measured"
        raise wrong(lines[index], complaint + (hint if "is outside" in complaint else ""))
    return FaultMap(**cells, arrays=arrays, geometry=geometry, source=source)


# -- maps of simulated chips ----------------------------------------------------------------------------------------


def failing_cells(
    chip: Chip, arrays: int | None, bit_error_rate: float, model: FaultModel | None = None
) -> FaultMap:
    """The failing cells of a chip's first arrays (None: those of the model's memory, 64 in the paper's 256 KiB).

    Voltages are NaN: the rate was given, not the voltage. Transient faults have no map and raise FaultsimError.
    """
    import torch

    from . import ops

    model = model or FaultModel()
    rate = checked_rate(bit_error_rate)
    if model.kind is FaultKind.TRANSIENT:
        raise FaultsimError(
            "transient faults differ from read to read and have no map; flip lists the same cells"
        )
    geometry = model.memory.array
    if arrays is None:
        blocks = model.memory.layout.blocks or model.memory.capacity_bytes // BLOCK_BYTES
        arrays = blocks * BLOCK_BYTES // geometry.bytes
    _check_extent(arrays, geometry)
    size = arrays * geometry.bytes
    if 8 * size * rate > MOST_CELLS:
        raise FaultsimError(
            f"{arrays} arrays at a bit error rate of {rate:g} have some {8 * size * rate:.2g} failing cells, "
            f"more than the {MOST_CELLS:,} of one map; take fewer arrays"
        )
    seeds, table, rule = ops.seeds([chip]), ops.table(rate), ops.rule(model)
    found, stuck = [np.empty(0, np.int64)], [np.empty(0, np.int8)]
    for start in range(0, size, _CHUNK):
        memory = torch.empty(min(_CHUNK, size - start), dtype=torch.int8)
        # Physical cells, in the order of their addresses: no placement.
        failing, states = torch.ops.faultsim.fault_mask(memory, seeds, table, rule, [start, 0, 1, 1])
        failing, states = failing[0].numpy(), states[0].numpy()
        touched = np.flatnonzero(failing)
        byte, bit = np.nonzero(np.unpackbits(failing[touched, None], axis=1, bitorder="little"))
        found.append((start + touched[byte]) * 8 + bit)
        if model.kind is FaultKind.FLIP:
            stuck.append(np.full(len(byte), -1, np.int8))
        else:
            stuck.append((states[touched[byte]] >> bit & 1).astype(np.int8))
    array, row, column = geometry.locate(np.concatenate(found))
    nan = np.full(len(array), np.nan)
    source = f"chip {chip.seed}, {model.kind}, bit error rate {rate!r}"
    return FaultMap(array, row, column, np.concatenate(stuck), nan, arrays, geometry, source)


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
    source = f"chip {chip.seed}, {model.kind}, curve {curve.name}"
    columns = (lowest.array, lowest.row, lowest.column, lowest.stuck_at)
    return FaultMap(*columns, highest, lowest.arrays, lowest.geometry, source)


# -- reading through a map ------------------------------------------------------------------------------------------


class MeasuredChip:
    """A chip whose faults come from a map. What its failing cells do is in the map, so of a fault model only the
    memory (placement and capacity) matters to it."""

    def __init__(self, fault_map: FaultMap, label: str | None = None) -> None:
        self.fault_map = fault_map
        self.label = label or fault_map.source or "measured"  #: its name in results
        self._masks: tuple = (None, None)  # of the latest voltage and device: a model asks layer by layer

    @classmethod
    def load(cls, path: str | Path) -> "MeasuredChip":
        """From a file of FaultMap.save(); the label is the file's name without its ending."""
        return cls(FaultMap.load(path), Path(path).stem)

    def __repr__(self) -> str:
        return f"MeasuredChip({self.label!r}, {len(self.fault_map)} cells in {self.fault_map.arrays} arrays)"

    def _masks_on(self, voltage: float | None, device: "torch.device") -> list["torch.Tensor"]:
        import torch

        key, masks = self._masks
        if key != (voltage, device):
            masks = [
                torch.from_numpy(mask).view(torch.int8).to(device)
                for mask in self.fault_map.at(voltage).masks()
            ]
            self._masks = ((voltage, device), masks)
        return masks

    def read(
        self, weights: "torch.Tensor", voltage: float | None, model: FaultModel | None = None, base: int = 0
    ) -> "torch.Tensor":
        """int8 weights [...] as they are read at a supply voltage; `base` is the address of the first of them.

        Cells are taken in row-major logical order whatever the strides. FaultsimError where the weights reach beyond
        the memory that was measured.
        """
        import torch

        if weights.dtype != torch.int8:
            raise TypeError(f"weights must be int8, not {weights.dtype}")
        layout = (model or FaultModel()).memory.layout
        stored = weights.contiguous().view(-1)
        end = base + stored.numel()
        if layout.repeat > 1:
            end = -(-end // (layout.word * layout.repeat)) * layout.word
        needed = min(end, layout.blocks * BLOCK_BYTES) if layout.blocks else end
        if stored.numel() and needed > self.fault_map.bytes:
            raise FaultsimError(
                f"{self!r} covers {self.fault_map.bytes:,} bytes of memory, the weights reach to {needed:,}: use the "
                "placement tiled with a capacity that was measured"
            )
        clear, ones, flip = self._masks_on(voltage, weights.device)
        out = torch.empty_like(stored)
        for start in range(0, stored.numel(), _CHUNK):  # addresses take eight bytes a weight
            stop = min(start + _CHUNK, stored.numel())
            at = torch.arange(base + start, base + stop, device=weights.device)
            if layout.repeat > 1:
                at = at // (layout.word * layout.repeat) * layout.word + at % layout.word
            if layout.blocks:
                at = at % (layout.blocks * BLOCK_BYTES)
            out[start:stop] = ((stored[start:stop] & ~clear[at]) | ones[at]) ^ flip[at]
        return out.view(weights.shape)
