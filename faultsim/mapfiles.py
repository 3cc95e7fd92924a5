"""The two file formats of fault maps, both without pickle.

`.npz` holds five arrays of one length, array, row, column (integers), stuck_at (-1, 0, 1) and voltage (float64, NaN
allowed), and `meta`, a JSON string with format ("faultsim fault map"), version (1), arrays, rows, columns and source.
`.csv` is for people who measured a chip:

    # arrays=64 rows=512 columns=64
    # source: lab 3, wafer 12
    voltage,array,row,column,stuck_at
    0.83,0,17,5,1
    ,2,511,63,

An empty stuck_at means that the bit reads inverted, an empty voltage that the cell fails at every voltage. Without
the first comment the arrays have 512x64 cells, and the highest array that is mentioned is the last one.
"""

import json
import math
import re
import zipfile
import zlib
from array import array as numbers
from pathlib import Path

import numpy as np

from .errors import FaultsimError
from .faultmap import MOST_CELLS, TYPES, FaultMap, check_extent, first_wrong
from .files import write_atomically
from .sram import ArrayGeometry

FORMAT, VERSION = "faultsim fault map", 1
COLUMNS = ("voltage", "array", "row", "column", "stuck_at")
MOST_FILE_BYTES = 1 << 31
_HEADER = ",".join(COLUMNS)
_EXTENT = re.compile(r"(arrays|rows|columns)=([0-9]{1,9})")


def _format_of(path: Path) -> str:
    if path.suffix.lower() not in (".npz", ".csv"):
        raise FaultsimError(f"fault map {path}: the name must end in .npz or .csv")
    return path.suffix.lower()


def save(fault_map: FaultMap, path: Path) -> None:
    """Writes a map in the format that the name's ending says."""
    write = _write_npz if _format_of(path) == ".npz" else _write_csv
    write_atomically(path, lambda temporary: write(fault_map, temporary))


def load(path: Path) -> FaultMap:
    """Reads a map in the format that the name's ending says."""
    read = _read_npz if _format_of(path) == ".npz" else _read_csv
    try:
        if not path.is_file():
            raise FaultsimError(f"fault map {path}: there is no such file")
        if path.stat().st_size > MOST_FILE_BYTES:
            raise FaultsimError(f"fault map {path}: larger than {MOST_FILE_BYTES >> 30} GiB")
        return read(path)
    except OSError as error:
        raise FaultsimError(f"fault map {path}: cannot be read: {error.strerror or error}") from None


# -- npz -----------------------------------------------------------------------------------------------------


def _write_npz(fault_map: FaultMap, path: Path) -> None:
    meta = {
        "format": FORMAT,
        "version": VERSION,
        "arrays": fault_map.arrays,
        "rows": fault_map.geometry.rows,
        "columns": fault_map.geometry.columns,
        "source": fault_map.source,
    }
    cells = {name: getattr(fault_map, name) for name in TYPES}
    np.savez_compressed(path, meta=np.array(json.dumps(meta)), **cells)


def _read_npz(path: Path) -> FaultMap:
    foreign = FaultsimError(f"fault map {path}: this is no fault map of faultsim, or a damaged one")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
        if sorted(entry.filename for entry in entries) != sorted(f"{name}.npy" for name in (*TYPES, "meta")):
            raise foreign
        # Looked at before anything is unpacked: a small archive can hold terabytes.
        if any(entry.file_size > MOST_CELLS * 8 + 4096 for entry in entries):
            raise FaultsimError(f"fault map {path}: more than {MOST_CELLS:,} cells")
        with np.load(path, allow_pickle=False) as file:
            meta = json.loads(str(file["meta"]))
            if meta["format"] != FORMAT:
                raise foreign
            if meta["version"] != VERSION:
                raise FaultsimError(
                    f"fault map {path}: format version {meta['version']!r}, this faultsim reads version {VERSION}"
                )
            geometry = ArrayGeometry(int(meta["rows"]), int(meta["columns"]))
            cells = {name: file[name] for name in TYPES}
        return FaultMap(**cells, arrays=int(meta["arrays"]), geometry=geometry, source=str(meta["source"]))
    except OSError:
        raise
    except FaultsimError as error:
        raise error if str(path) in str(error) else FaultsimError(f"fault map {path}: {error}") from None
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        MemoryError,
        ValueError,
        TypeError,
        KeyError,
        RuntimeError,
    ):
        raise foreign from None


# -- csv -----------------------------------------------------------------------------------------------------


def _write_csv(fault_map: FaultMap, path: Path) -> None:
    geometry = fault_map.geometry
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(f"# arrays={fault_map.arrays} rows={geometry.rows} columns={geometry.columns}\n")
        file.write(f"# source: {fault_map.source}\n")
        file.write(f"{_HEADER}\n")
        for start in range(0, len(fault_map), 65536):  # Python numbers take five times the room
            cells = (getattr(fault_map, name)[start : start + 65536].tolist() for name in COLUMNS)
            for v, array, row, column, state in zip(*cells, strict=True):
                volts, stuck = "" if math.isnan(v) else repr(v), "" if state < 0 else state
                file.write(f"{volts},{array},{row},{column},{stuck}\n")


def _read_csv(path: Path) -> FaultMap:
    cells = {name: numbers("d" if name == "voltage" else "q") for name in COLUMNS}
    lines, extent, header = numbers("q"), {}, False
    source = " ".join(path.name.encode(errors="replace").decode().split())

    def wrong(line: int, complaint: str) -> FaultsimError:
        return FaultsimError(f"fault map {path}, line {line}: {complaint}")

    try:
        with path.open(encoding="utf-8-sig") as file:
            for line, text in enumerate(file, 1):
                text = text.strip()
                if text.startswith("#"):
                    words = text[1:].split()
                    if words and all(map(_EXTENT.fullmatch, words)):
                        extent |= {name: int(value) for name, value in map(lambda w: w.split("="), words)}
                    elif words and words[0] == "source:":
                        source = " ".join(words[1:])
                elif text and not header:
                    header = True
                    if [word.strip() for word in text.split(",")] != list(COLUMNS):
                        raise wrong(line, f"the header must be {_HEADER}, not {text[:80]!r}")
                elif text:
                    if len(lines) == MOST_CELLS:
                        raise wrong(line, f"more than {MOST_CELLS:,} cells")
                    try:
                        for name, value in zip(COLUMNS, _cell(text), strict=True):
                            cells[name].append(value)
                    except (ValueError, OverflowError):
                        raise wrong(
                            line,
                            f"{_HEADER} expected (voltage, stuck_at: number or empty), not {text[:80]!r}",
                        ) from None
                    lines.append(line)
    except UnicodeDecodeError:
        raise FaultsimError(f"fault map {path}: this is no text file") from None
    if not header:
        raise FaultsimError(f"fault map {path}: there is no header {_HEADER}")
    if not lines and "arrays" not in extent:
        raise FaultsimError(
            f"fault map {path}: no cells, and no '# arrays=N' to say how many arrays were measured"
        )
    cells = {name: np.frombuffer(values, values.typecode) for name, values in cells.items()}
    arrays = extent.pop("arrays", None)
    if arrays is None:
        arrays = max(int(cells["array"].max()), 0) + 1
    try:
        geometry = ArrayGeometry(**extent)
        check_extent(arrays, geometry)
    except FaultsimError as error:
        raise FaultsimError(f"fault map {path}: {error}") from None
    if found := first_wrong(cells, arrays, geometry):
        index, complaint = found
        raise wrong(lines[index], complaint)
    return FaultMap(**cells, arrays=arrays, geometry=geometry, source=source)


def _cell(text: str) -> tuple[float, int, int, int, int]:
    """One line's numbers; ValueError where they aren't."""
    voltage, array, row, column, state = (word.strip() for word in text.split(","))
    volts = float(voltage) if voltage else math.nan
    if voltage and not math.isfinite(volts):
        raise ValueError(voltage)
    return volts, int(array), int(row), int(column), int(state) if state else -1
