"""What commands printed and wrote, as facts that JSON can hold, and where two of them differ."""

import csv
import hashlib
import html
import json
import math
import os
import platform
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

VARIES = {"date", "commit", "versions", "device", "seconds", "threads", "provenance", "library_version"}
"""Differ between two runs of one program, or tell who ran it: they are not recorded."""

LONG_CSV = 40
"""Of a CSV file with more lines only the digest is recorded."""

FLOATS = ("accuracy", "correct", "mean", "std", "interval", "ci95", "worst", "best", "value", "loss", "clean",
          "perturbed", "average", "rms", "cheapest", "lowest", "at_floor", "gain", "own", "recovered")  # fmt: skip
"""Words in the names of what comes out of a model's floating-point arithmetic."""

NEAR = 0.1
"""Elsewhere: how far such a number may be off, absolutely or relatively. One of 20 answers is 0.05; the roundings of
another processor may turn two."""

DIGESTS = ("sha256", "weights")
"""Names of digests: of trained weights they are compared on a machine like the recorded one only."""


def machine() -> dict[str, str]:
    """What decides how a model's floats are rounded."""
    import torch

    try:
        cpu = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        vendor = re.search(r"^vendor_id\s*:\s*(.*)$", cpu, re.MULTILINE)[1]
    except (OSError, TypeError):
        vendor = platform.processor() or platform.machine()
    return {
        "torch": torch.__version__,
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "vendor": vendor,
        "onednn": os.environ.get("ONEDNN_MAX_CPU_ISA", ""),
    }


def gather(printed: list[str], folder: Path, inputs: set[str]) -> dict[str, Any]:
    """The facts of a case: of JSON that was printed, and of each file in the folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in inputs)
    return {
        "printed": [_steady(json.loads(text)) for text in printed if text.startswith(("{", "["))],
        "files": {
            os.fspath(path.relative_to(folder)): _READERS.get(path.suffix, _nothing)(path) for path in files
        },
    }


def _steady(value: Any) -> Any:
    """Without what varies; JSON within strings is opened."""
    if isinstance(value, dict):
        return {key: _steady(item) for key, item in value.items() if key not in VARIES}
    if isinstance(value, list | tuple):
        return [_steady(item) for item in value]
    if isinstance(value, str) and value.startswith(("{", "[")):
        try:
            return _steady(json.loads(value))
        except ValueError:
            return value
    return value


def _nothing(path: Path) -> None:
    """The file is there; what is in it depends on libraries, as in a picture."""


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _csv(path: Path) -> Any:
    text = path.read_bytes()
    lines = text.decode().splitlines()
    if len(lines) > LONG_CSV:
        return {"lines": len(lines), "sha256": _digest(text)}
    columns, *rows = csv.reader(line for line in lines if line and not line.startswith("#"))
    return {"columns": columns, "rows": [dict(zip(columns, map(_number, row), strict=True)) for row in rows]}


def _number(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _array(array: Any) -> dict[str, Any]:
    import numpy as np

    facts = {
        "shape": f"{array.dtype}{list(array.shape)}",
        "sha256": _digest(np.ascontiguousarray(array).tobytes()),
    }
    if array.dtype.kind == "f":
        facts["rms"] = float(np.sqrt(np.mean(np.square(array, dtype=np.float64)))) if array.size else 0.0
    return facts


def _arrays(path: Path) -> Any:
    import numpy as np

    loaded = np.load(path, allow_pickle=False)
    if path.suffix == ".npy":
        return _array(loaded)
    return {
        name: _steady(str(loaded[name])) if loaded[name].dtype.kind in "US" else _array(loaded[name])
        for name in sorted(loaded.files)
    }


def _safetensors(path: Path) -> Any:
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        tensors = {name: _array(file.get_tensor(name)) for name in sorted(file.keys())}
        return {"metadata": _steady(file.metadata()), "tensors": tensors}


def _onnx(path: Path) -> Any:
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(path).graph
    return {
        "operators": [node.op_type for node in graph.node],
        "inputs": [value.name for value in graph.input],
        "outputs": [value.name for value in graph.output],
        "tensors": {tensor.name: _array(numpy_helper.to_array(tensor)) for tensor in graph.initializer},
    }


def _page(path: Path) -> Any:
    """The cells of the tables of an HTML page that hold numbers."""
    cells = re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", path.read_text(encoding="utf-8"), re.DOTALL)
    texts = (html.unescape(re.sub(r"<[^>]*>", "", cell)).strip() for cell in cells)
    return {
        "cells": [
            [float(part) for part in found] for text in texts if (found := re.findall(r"\d+(?:\.\d+)?", text))
        ]
    }


_READERS: dict[str, Callable[[Path], Any]] = {
    ".csv": _csv,
    ".json": lambda path: _steady(json.loads(path.read_text())),
    ".jsonl": lambda path: [_steady(json.loads(line)) for line in path.read_text().splitlines()],
    ".npy": _arrays,
    ".npz": _arrays,
    ".safetensors": _safetensors,
    ".onnx": _onnx,
    ".html": _page,
}


def differences(
    recorded: Any, found: Any, *, alike: bool, trains: bool, path: tuple[str, ...] = ()
) -> Iterator[str]:
    """Where facts differ from the recorded ones, each in one line.

    Parameters
    ----------
    recorded, found
        Facts, as `gather` returns them.
    alike
        This machine is like the recorded one (`machine()`): then everything must be equal. Elsewhere what comes out of
        floating-point arithmetic of a model need only be near.
    trains
        The case trains weights: elsewhere their digests are not compared.
    """
    where = "/".join(path)
    if isinstance(recorded, dict) and isinstance(found, dict):
        for key in sorted(recorded.keys() | found.keys()):
            if key not in recorded or key not in found:
                yield f"{where}/{key}: only {'found' if key in found else 'recorded'}"
            else:
                further = {"alike": alike, "trains": trains, "path": (*path, key)}
                yield from differences(recorded[key], found[key], **further)
    elif isinstance(recorded, list) and isinstance(found, list) and len(recorded) == len(found):
        for index, (old, new) in enumerate(zip(recorded, found, strict=True)):
            yield from differences(old, new, alike=alike, trains=trains, path=(*path, str(index)))
    elif not (same(recorded, found) or (not alike and _near(recorded, found, path, trains))):
        yield f"{where}: {json.dumps(recorded)[:80]} was recorded, {json.dumps(found)[:80]} found"


def same(recorded: Any, found: Any) -> bool:
    """Equal, of the same type too; not a number equals itself."""
    if isinstance(recorded, float) and isinstance(found, float) and math.isnan(recorded):
        return math.isnan(found)
    return type(recorded) is type(found) and recorded == found


def _near(recorded: Any, found: Any, path: tuple[str, ...], trains: bool) -> bool:
    names = [name for name in path if not name.isdigit()]
    if isinstance(recorded, str) and isinstance(found, str):
        return trains and names[-1] in DIGESTS and len(recorded) == len(found)
    numbers = isinstance(recorded, int | float) and isinstance(found, int | float)
    floats = "configuration" not in names and any(
        word in name for name in names[-2:] for word in (*FLOATS, "chips", "cells")
    )
    return (
        numbers
        and floats
        and math.isclose(recorded, found, rel_tol=NEAR, abs_tol=NEAR * max(1, abs(recorded)))
    )
