"""The kept results of the comparison: results/comparison/BASE has a folder for each fault model and operating point."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path("results") / "comparison"
FILES = ("results.csv", "summary.csv", "sweep.json", "about.json")
"""Of each point; the picture of a single point says nothing."""


class Row(NamedTuple):
    """One variant at one operating point under one fault model."""

    preset: str
    voltage: float
    variant: str
    mean: float
    low: float
    high: float
    energy: float
    """Weight memory energy of one inference, a fraction of the unprotected model's at Vmin."""
    uncounted: str
    """What the energy leaves out."""


class Point(NamedTuple):
    """An operating point under a fault model."""

    preset: str
    rows: list[Row]
    about: dict[str, Any]
    """Configuration, provenance and how it was computed."""


def read_points(root: Path, base: str) -> list[Point]:
    """Read all points of a base model: first those of all entries, then those of entries measured later."""
    found = (root / FOLDER / base).rglob("summary.csv")
    return [_read(path.parent) for path in sorted(found, key=lambda path: (len(path.parts), path))]


def list_rows(points: list[Point], preset: str) -> list[Row]:
    """List the rows under one fault model, each variant at each voltage once."""
    found: dict[tuple[str, float], Row] = {}
    for point in points:
        for row in point.rows:
            if row.preset == preset:
                found.setdefault((row.variant, row.voltage), row)
    return list(found.values())


def _read(folder: Path) -> Point:
    preset = folder.name.rpartition("-")[0]
    about = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))
    about |= json.loads((folder / "about.json").read_text(encoding="utf-8"))
    return Point(preset, list(_read_rows(folder / "summary.csv", preset)), about)


def _read_rows(path: Path, preset: str) -> Iterator[Row]:
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            energy = 1 - float(row["energy_saving"])
            numbers = (float(row[name]) for name in ("mean", "ci95_low", "ci95_high"))
            yield Row(
                preset, float(row["voltage"]), row["variant"], *numbers, energy, row.get("uncounted", "")
            )
