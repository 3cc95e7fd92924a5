"""SCALE-Sim's topology files: one CSV row per layer.

The columns are those of SCALE-Sim's convolution topologies: name, input height and width (padding
included), filter height and width, channels, filters, stride, and perhaps a sparsity ratio. SCALE-Sim skips
the first line, wants a comma at the end of every row, has one stride for both directions, and reads a row
whose name contains "DP" as depthwise: one convolution with a single input channel for each of its channels.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from energy.errors import EnergyError
from energy.layers import Layer

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
_DEPTHWISE = "DP"


def read_topology(path: str | Path) -> list[Layer]:
    """The layers of a SCALE-Sim convolution topology.

    Raises EnergyError, with the line, for a missing or unreadable file, missing columns, values that are no
    positive integers, sparsity, and kernels larger than their input.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise EnergyError(
            f"topology {path} can't be read ({reason}); give a SCALE-Sim topology CSV"
        ) from None
    if lines and lines[0].split(",")[1:2] and lines[0].split(",")[1].strip().isdigit():
        raise EnergyError(
            f"{path}, line 1: the first line is a header that SCALE-Sim skips, but this one holds a layer; "
            f"put a line such as {', '.join(HEADER)!r} above it"
        )
    layers = [
        _parse(line, f"{path}, line {number}")
        for number, line in enumerate(lines[1:], start=2)
        if line.strip(" \t,")
    ]
    if not layers:
        raise EnergyError(f"topology {path} holds no layer; it needs a header line and a row for each layer")
    return layers


def _parse(line: str, where: str) -> Layer:
    cells = [cell.strip() for cell in line.split(",")]
    while cells and not cells[-1]:
        cells.pop()
    if len(cells) not in (8, 9):
        raise EnergyError(f"{where}: a layer has the columns {', '.join(HEADER)}; this row has {len(cells)}")
    if len(cells) == 9 and cells.pop() != "1:1":
        raise EnergyError(f"{where}: sparse layers can't be counted; leave the ratio out or write 1:1")
    name, *texts = cells
    try:
        height, width, kernel_height, kernel_width, channels, filters, stride = (int(t) for t in texts)
    except ValueError:
        raise EnergyError(f"{where}: sizes have to be positive integers, not {', '.join(texts)}") from None
    repeats = 1
    if _DEPTHWISE in name:
        channels, repeats = 1, channels
    try:
        return Layer(
            name, height, width, kernel_height, kernel_width, channels, filters, stride, stride, repeats
        )
    except EnergyError as error:
        raise EnergyError(f"{where}: {error}") from None


def write_topology(layers: Iterable[Layer], path: str | Path) -> None:
    """Write the layers as a topology that SCALE-Sim reads to the same counts.

    A depthwise layer becomes one row with "DP" in its name; other repeated layers become a row per repeat.
    In the names, a comma becomes a semicolon, and "DP" becomes "dp" unless SCALE-Sim is to understand it.
    The file is written in one step. Raises EnergyError for strides that differ in the two directions, and
    when the file can't be written.
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
    """The layer as rows that SCALE-Sim runs once each, or as its one depthwise row."""
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
