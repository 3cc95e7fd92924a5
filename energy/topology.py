"""SCALE-Sim's topology files: one CSV row per layer.

The columns of convolution topologies are name, input height and width (padding included), filter height and
width, channels, filters, stride, and perhaps a sparsity ratio. SCALE-Sim skips the first line, leaves out
what follows the last comma of a row, has one stride for both directions, and reads a row whose name contains
"DP" as depthwise: one convolution with a single input channel for each of its channels. The columns of
matrix products (SCALE-Sim's -i gemm) are name, M, N, K, and perhaps a sparsity ratio: [M, K] x [K, N] is N
filters of 1 x K over an M x K map. The header tells which of both a file holds.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from .errors import EnergyError
from .layers import Layer

HEADER = (
    "Layer name",
    "IFMAP Height",
    "IFMAP Width",
    "Filter Height",
    "Filter Width",
    "Channels",
    "Num Filter",
    "Strides",
)
GEMM_HEADER = ("Layer", "M", "N", "K")
_DEPTHWISE = "DP"
_MOST_BYTES = 16 << 20
_MOST_LAYERS = 100_000


def read_topology(path: str | Path) -> list[Layer]:
    """Read a SCALE-Sim topology, of convolutions or of matrix products.

    Empty rows are passed over, and so are comments: a row that begins with #, and whatever follows the last comma.

    Raises
    ------
    EnergyError
        With the line, for a missing, unreadable or too large file, missing columns, values that are no positive
        integers of at most 9 digits, sparsity, and kernels larger than their input.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise EnergyError(f"topology {path} is larger than {_MOST_BYTES >> 20} MiB")
        lines = content.decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise EnergyError(
            f"topology {path} can't be read ({reason}); give a SCALE-Sim topology CSV"
        ) from None
    header = [cell.strip() for cell in lines[0].split(",")] if lines else []
    if header[1:2] and header[1].isdigit():
        raise EnergyError(
            f"{path}, line 1: the first line is a header that SCALE-Sim skips, but this one holds a layer; "
            f"put a line such as {', '.join(HEADER)!r} above it"
        )
    parse = _parse_gemm if [cell.upper() for cell in header[1:4]] == ["M", "N", "K"] else _parse
    layers = [
        parse(line, f"{path}, line {number}")
        for number, line in enumerate(lines[1:], start=2)
        if line.strip(" \t,") and not line.lstrip().startswith("#")
    ]
    if not layers:
        raise EnergyError(f"topology {path} holds no layer; it needs a header line and a row for each layer")
    if len(layers) > _MOST_LAYERS:
        raise EnergyError(f"topology {path} holds more than {_MOST_LAYERS:,} layers")
    return layers


def _parse(line: str, where: str) -> Layer:
    name, sizes = _cells(line, where, HEADER)
    height, width, kernel_height, kernel_width, channels, filters, stride = sizes
    repeats = 1
    if _DEPTHWISE in name:
        channels, repeats = 1, channels
    try:
        return Layer(
            name, height, width, kernel_height, kernel_width, channels, filters, stride, stride, repeats
        )
    except EnergyError as error:
        raise EnergyError(f"{where}: {error}") from None


def _parse_gemm(line: str, where: str) -> Layer:
    name, (m, n, k) = _cells(line, where, GEMM_HEADER)
    try:
        return Layer(name, m, k, 1, k, 1, n)
    except EnergyError as error:
        raise EnergyError(f"{where}: {error}") from None


def _cells(line: str, where: str, header: tuple[str, ...]) -> tuple[str, list[int]]:
    """Return the name and the sizes of a row with the columns of `header`."""
    cells = [cell.strip() for cell in line.split(",")]
    for index in range(len(header), len(cells)):  # a comment, as SCALE-Sim leaves it out
        if cells[index].startswith("#") or (index == len(cells) - 1 and not _is_ratio(cells[index])):
            del cells[index:]
            break
    while cells and not cells[-1]:
        cells.pop()
    if len(cells) not in (len(header), len(header) + 1):
        raise EnergyError(f"{where}: a layer has the columns {', '.join(header)}; this row has {len(cells)}")
    if len(cells) > len(header) and cells.pop() != "1:1":
        raise EnergyError(f"{where}: sparse layers can't be counted; leave the ratio out or write 1:1")
    name, *texts = cells
    if not all(re.fullmatch(r"[+-]?[0-9]{1,9}", text) for text in texts):
        found = ", ".join(texts)
        raise EnergyError(
            f"{where}: sizes have to be positive integers, not {found if len(found) <= 100 else found[:97] + '...'}"
        )
    return name, [int(text) for text in texts]


def _is_ratio(text: str) -> bool:
    """Whether a cell says N:M, even wrongly: it is no comment then."""
    return bool(re.match(r"[0-9]+\s*(:|$)", text))


def write_topology(layers: Iterable[Layer], path: str | Path) -> None:
    """Write the layers as a topology that SCALE-Sim reads to the same counts.

    A depthwise layer becomes one row with "DP" in its name; other repeated layers become a row per repeat. In the
    names, a comma becomes a semicolon, and "DP" becomes "dp" unless SCALE-Sim is to understand it. The file is written
    in one step.

    Raises
    ------
    EnergyError
        For strides that differ in the two directions, and when the file cannot be written.
    """
    rows = [", ".join(HEADER) + ","]
    for layer in layers:
        rows += [_format(row) for row in _rows(layer)]
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text("\n".join(rows) + "\n", encoding="utf-8", newline="\n")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise EnergyError(f"topology {path} can't be written ({error.strerror}); give another path") from None


def _rows(layer: Layer) -> list[Layer]:
    """Return the layer as rows that SCALE-Sim runs once each, or as its one depthwise row."""
    name = layer.name.replace(",", ";").replace("\n", " ").replace(_DEPTHWISE, _DEPTHWISE.lower())
    if layer.repeats == 1:
        return [replace(layer, name=name)]
    if layer.channels == 1:
        return [replace(layer, name=f"{name}_{_DEPTHWISE}", channels=layer.repeats, repeats=1)]
    return [replace(layer, name=f"{name}_{index}", repeats=1) for index in range(layer.repeats)]


def _format(layer: Layer) -> str:
    if layer.stride_height != layer.stride_width:
        raise EnergyError(
            f"layer {layer.name!r} has stride {layer.stride_height}x{layer.stride_width}; a SCALE-Sim "
            "topology has one stride for both directions"
        )
    cells = (
        layer.name,
        layer.input_height,
        layer.input_width,
        layer.kernel_height,
        layer.kernel_width,
        layer.channels,
        layer.filters,
        layer.stride_height,
    )
    return ", ".join(str(cell) for cell in cells) + ","
