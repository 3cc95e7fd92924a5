"""The two file formats of fault maps, both without pickle.

`.npz` holds five arrays of one length, array, row, column (integers), stuck_at (-1, 0, 1) and voltage (float64, NaN
allowed), and `meta`, a JSON string with format ("faultsim fault map"), version (1), arrays, rows, columns, source, and
perhaps lowest_voltage.
`.csv` is for people who measured a chip:

    # arrays=64 rows=512 columns=64
    # source: lab 3, wafer 12
    # lowest_voltage=0.8
    voltage,array,row,column,stuck_at
    0.83,0,17,5,1
    ,2,511,63,

An empty stuck_at means that the bit reads inverted, an empty voltage that the cell fails at every voltage. Without
the first comment the arrays have 512x64 cells, and the highest array that is mentioned is the last one. The lowest
voltage that was measured needs to be said only where no cell failed there that hadn't before.
"""

import json
import math
import re
import zipfile
from array import array as Numbers
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from ..errors import FaultsimError
from ..io.bounds import are_integers, parse_integer, parse_json, parse_number, read_npy_header
from ..io.files import write_atomically
from ..sram import ArrayGeometry
from .fault_cells import MOST_CELLS, TYPES, check_extent, find_first_wrong

FORMAT, VERSION = "faultsim fault map", 1
COLUMNS = ("voltage", "array", "row", "column", "stuck_at")
MOST_FILE_BYTES = 1 << 31
MOST_LINE = 1 << 16  # characters
_MOST_META = 1 << 20  # bytes
_HEADER = ",".join(COLUMNS)
_EXTENT = re.compile(r"(arrays|rows|columns)=([0-9]{1,9})")
_LOWEST = re.compile(r"lowest_voltage=(\S+)")


def _suffix(path: Path) -> str:
    """Return `.npz` or `.csv`; FaultsimError for another name."""
    if path.suffix.lower() not in (".npz", ".csv"):
        raise FaultsimError(f"fault map {path}: the name must end in .npz or .csv")
    return path.suffix.lower()


def write(path: Path, fields: Mapping[str, Any]) -> None:
    """Write the fields of a fault map, in the format that the name's suffix says.

    `lowest_voltage` is written unless it is None, which means that it follows from the cells.
    """
    write_format = _write_npz if _suffix(path) == ".npz" else _write_csv
    write_atomically(path, lambda temporary: write_format(temporary, fields))


def read(path: Path) -> dict[str, Any]:
    """Read a fault map, in the format that the name's suffix says.

    Returns
    -------
    dict
        The fields of a `FaultMap`: its five arrays, `arrays`, `geometry`, `source` and `lowest_voltage`.

    Raises
    ------
    FaultsimError
        Naming the file, and in a CSV the line, that is wrong.
    """
    read_format = _read_npz if _suffix(path) == ".npz" else _read_csv
    try:
        if not path.is_file():
            raise FaultsimError(f"fault map {path}: there is no such file")
        if path.stat().st_size > MOST_FILE_BYTES:
            raise FaultsimError(f"fault map {path}: larger than {MOST_FILE_BYTES >> 30} GiB")
        return read_format(path)
    except OSError as error:
        raise FaultsimError(f"fault map {path}: cannot be read: {error.strerror or error}") from None


# -- npz -----------------------------------------------------------------------------------------------------


def _write_npz(path: Path, fields: Mapping[str, Any]) -> None:
    lowest = fields["lowest_voltage"]
    meta = {
        "format": FORMAT,
        "version": VERSION,
        "arrays": fields["arrays"],
        "rows": fields["geometry"].rows,
        "columns": fields["geometry"].columns,
        "source": fields["source"],
        **({} if lowest is None else {"lowest_voltage": lowest}),
    }
    np.savez_compressed(path, meta=np.array(json.dumps(meta)), **{name: fields[name] for name in TYPES})


def _read_npz(path: Path) -> dict[str, Any]:
    def refuse(cause: str) -> NoReturn:
        raise FaultsimError(f"fault map {path}: {cause}")

    foreign = "this is no fault map of faultsim, or a damaged one"
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
            expected = {*TYPES, "meta"}
            # LZMA may take gigabytes for a small entry; NumPy doesn't write it
            plain = all(
                e.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for e in entries.values()
            )
            if entries.keys() != expected or len(archive.infolist()) != len(expected) or not plain:
                refuse(foreign)
            meta = parse_json(str(_entry(archive, entries["meta"])[()]))
            if not isinstance(meta, dict) or meta["format"] != FORMAT:
                refuse(foreign)
            if meta["version"] != VERSION:
                refuse(f"format version {meta['version']!r}, this faultsim reads version {VERSION}")
            sizes = [meta[name] for name in ("arrays", "rows", "columns")]
            lowest = meta.get("lowest_voltage")
            numeric = lowest is None or type(lowest) in (int, float)
            if not are_integers(sizes, 1, 2**31 - 1) or not isinstance(meta["source"], str) or not numeric:
                refuse(foreign)
            arrays, geometry = sizes[0], ArrayGeometry(*sizes[1:])
            check_extent(arrays, geometry)
            # looked at before anything is unpacked: a small archive can hold terabytes
            if any(entries[name].file_size > MOST_CELLS * 8 + 4096 for name in TYPES):
                refuse(f"more than {MOST_CELLS:,} cells")
            cells = {name: _entry(archive, entries[name]) for name in TYPES}
        return {
            **cells,
            "arrays": arrays,
            "geometry": geometry,
            "source": meta["source"],
            "lowest_voltage": lowest,
        }
    except OSError:
        raise
    except FaultsimError as error:
        raise error if str(path) in str(error) else FaultsimError(f"fault map {path}: {error}") from None
    except Exception:  # zipfile and zlib may fail in many ways on foreign bytes
        refuse(foreign)


def _entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.ndarray:
    """Read an array of numbers, or of one text; ValueError for anything else."""
    with archive.open(entry) as file:
        kind, shape, _ = read_npy_header(file)
        if not re.fullmatch(r"[<>|][iuf][1248]" if shape else r"<U[0-9]{1,6}", kind):
            raise ValueError("neither numbers nor a text")
        dtype = np.dtype(kind)
        size = dtype.itemsize * math.prod(shape)
        if size > (entry.file_size if shape else _MOST_META):
            raise ValueError("more than there is")
        data = file.read(size + 1)  # zipfile checks its sum when it comes to the end
    if len(data) != size:
        raise ValueError("another size than it says")
    return np.frombuffer(data, dtype).reshape(shape)


# -- csv -----------------------------------------------------------------------------------------------------


def _write_csv(path: Path, fields: Mapping[str, Any]) -> None:
    geometry, lowest = fields["geometry"], fields["lowest_voltage"]
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(f"# arrays={fields['arrays']} rows={geometry.rows} columns={geometry.columns}\n")
        file.write(f"# source: {fields['source']}\n")
        if lowest is not None:
            file.write(f"# lowest_voltage={lowest!r}\n")
        file.write(f"{_HEADER}\n")
        count = len(fields["array"])
        for start in range(0, count, 65536):  # in parts: Python's numbers take five times the memory
            part = (fields[name][start : start + 65536].tolist() for name in COLUMNS)
            for v, array, row, column, state in zip(*part, strict=True):
                volts, stuck = "" if math.isnan(v) else repr(v), "" if state < 0 else state
                file.write(f"{volts},{array},{row},{column},{stuck}\n")


def _read_csv(path: Path) -> dict[str, Any]:
    read: dict[str, Numbers[Any]] = {name: Numbers("d" if name == "voltage" else "q") for name in COLUMNS}
    lines: Numbers[int] = Numbers("q")
    extent: dict[str, int] = {}
    lowest, header = None, False
    source = " ".join(path.name.encode(errors="replace").decode().split())

    def wrong(line: int, complaint: str) -> FaultsimError:
        return FaultsimError(f"fault map {path}, line {line}: {complaint}")

    try:
        with path.open(encoding="utf-8-sig") as file:
            for line, text in enumerate(iter(lambda: file.readline(MOST_LINE), ""), 1):
                if len(text) == MOST_LINE:
                    raise wrong(line, f"more than {MOST_LINE:,} characters")
                text = text.strip()
                if text.startswith("#"):
                    words = text[1:].split()
                    if words and all(map(_EXTENT.fullmatch, words)):
                        extent |= {name: int(value) for name, value in map(lambda w: w.split("="), words)}
                    elif stated := _LOWEST.fullmatch(" ".join(words)):
                        try:
                            lowest = parse_number(stated[1])
                        except ValueError as error:
                            raise wrong(line, f"lowest_voltage: {error}") from None
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
                            read[name].append(value)
                    except ValueError:
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
    cells = {name: np.frombuffer(values, values.typecode) for name, values in read.items()}
    arrays = extent.pop("arrays", None)
    if arrays is None:
        arrays = max(int(cells["array"].max()), 0) + 1
    try:
        geometry = ArrayGeometry(**extent)
        check_extent(arrays, geometry)
    except FaultsimError as error:
        raise FaultsimError(f"fault map {path}: {error}") from None
    if found := find_first_wrong(cells, arrays, geometry):
        index, complaint = found
        raise wrong(lines[index], complaint)
    return {**cells, "arrays": arrays, "geometry": geometry, "source": source, "lowest_voltage": lowest}


def _cell(text: str) -> tuple[float, int, int, int, int]:
    """Return the numbers of one line; ValueError where they are none."""
    voltage, *place, state = (word.strip() for word in text.split(","))
    array, row, column = map(parse_integer, place)
    volts = parse_number(voltage) if voltage else math.nan
    return volts, array, row, column, parse_integer(state) if state else -1
