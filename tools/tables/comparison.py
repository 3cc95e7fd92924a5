"""The table of the comparison of mitigations."""

from __future__ import annotations

from pathlib import Path

from faultsim.studies.pareto import find_front
from tools.comparison.kept import FOLDER, Point, Row, list_rows, read_points
from tools.tables.text import commit_and_date, markdown, reading, remarked


def mitigations(base: str, preset: str, root: Path) -> str:
    """Accuracy and energy of each variant of a base model at each voltage, under one fault model."""
    with reading(root / FOLDER / base):
        points = read_points(root, base)
        rows = list_rows(points, preset)
        voltages = sorted({row.voltage for row in rows}, reverse=True)
        found = {(row.variant, row.voltage): row for row in rows}
        counted = _front([row for row in rows if not row.uncounted])
        fronts = {*_front(rows), *counted}
        table = []
        for name in dict.fromkeys(row.variant for row in rows):
            cells = [name]
            for voltage in voltages:
                row = found.get((name, voltage))
                cells += ["", ""] if row is None else _cells(row, row in fronts, row in counted)
            table.append(cells)
        head = [""]
        for voltage in voltages:
            head += [f"{voltage:.2f} Vmin: accuracy, %", "energy, %"]
        return remarked(markdown(head, table, 1), _remarks([p for p in points if p.preset == preset]))


def _cells(row: Row, on_a_front: bool, counted: bool) -> list[str]:
    half = 100 * (row.high - row.low) / 2
    accuracy = f"{100 * row.mean:.1f} ±{half:.1f}" if half else f"{100 * row.mean:.1f}"
    marked = f"**{accuracy}**" if on_a_front else accuracy
    return [marked + ("+" if counted else ""), f"{'≥' if row.uncounted else ''}{100 * row.energy:.1f}"]


def _front(rows: list[Row]) -> list[Row]:
    return find_front(rows, lambda row: row.energy, lambda row: row.mean)


def _remarks(points: list[Point]) -> list[str]:
    measured: dict[tuple[str, str], list[Point]] = {}
    for point in points:
        about, how = point.about, point.about["configuration"]
        text = (
            f"{len(how['chips'])} chips (seed {how['seed']}), the first {how['images']:,} images of the "
            f"{how['dataset']} test set, {about['precision']}; {about['device']}; {commit_and_date(about)}"
        )
        names = ", ".join(variant["name"] for variant in how["variants"])
        measured.setdefault((names, text), []).append(point)
    remarks = []
    for number, ((names, text), mine) in enumerate(measured.items()):
        voltages = sorted({row.voltage for point in mine for row in point.rows}, reverse=True)
        seconds = sorted(round(point.about["processor_seconds"]) for point in mine)
        spent = f"{seconds[0]}" if seconds[0] == seconds[-1] else f"{seconds[0]} to {seconds[-1]}"
        remarks.append(
            (f"{names}: " if number else "")  # entries that were measured later
            + f"{', '.join(f'{voltage:.2f}' for voltage in voltages)} Vmin: {text}; {spent} s of one core for each"
        )
    missing: dict[str, list[str]] = {}
    for row in (row for point in points for row in point.rows):
        if row.uncounted and row.variant not in missing.setdefault(row.uncounted, []):
            missing[row.uncounted].append(row.variant)
    return [
        "±: half of the 95 % interval of the mean over the chips; bold: on the Pareto front; +: on the front of those "
        "whose energy is counted in full",
        *(f"≥, not counted, {what}: {', '.join(names)}" for what, names in missing.items()),
        *remarks,
    ]
