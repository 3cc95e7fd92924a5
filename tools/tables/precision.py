"""The table of weights of fewer bits than a base model and its generator were trained with."""

from __future__ import annotations

import json
from pathlib import Path

from neuralfuse.paper.full_cells import BITS
from neuralfuse.paper.result import Result, read_results
from neuralfuse.paper.words import format_result, format_spread
from tools.tables.accuracy import of_base, of_generator, origin
from tools.tables.text import Notes, commit_and_date, markdown, reading

HEAD = ["", "bits", "C.A.", "P.A.", "C.A.+N.F.", "P.A.+N.F.", "IP", ""]


def precision(root: Path) -> str:
    """What each network, alone and behind its generator, is worth with weights of 8 bits and fewer."""
    notes = Notes()
    rows = [*_bundled(root, notes), *_of_the_paper(root, notes)]
    for above, row in zip(rows[:-1][::-1], rows[1:][::-1], strict=True):
        if row[0] == above[0]:
            row[0] = ""
    return notes.below(markdown(HEAD, rows, 1))


def _bundled(root: Path, notes: Notes) -> list[list[str]]:
    """The bundled networks, as `faultsim evaluate --json` said it."""
    found = []
    for path in (root / "results" / "precision").glob("*.json"):
        with reading(path):
            report = json.loads(path.read_text(encoding="utf-8"))
            how = report["configuration"]
            bits = int(how.get("format", f"int{BITS}").removeprefix("int"))
            by_name = {row["name"]: row for row in report["accuracy"]}
            values = [f"{100 * by_name[name]['mean']:.2f}" for name in ("C.A.", "C.A.+N.F.")]
            spread = [
                format_spread(100 * by_name[name]["mean"], 100 * by_name[name]["std"])
                for name in ("P.A.", "P.A.+N.F.")
            ]
            won = f"{100 * by_name['IP']['mean']:+.2f}"
            faults = f"{100 * how['bit_error_rate']:g} % {how['faults']['kind']}"
            generator = how["generator"]["name"].removeprefix("with ")
            name = f"{how['dataset']}, {how['model']}, {generator}, {faults}"
            note = (
                f"{len(how['chips'])} chips, {how['images']} images; bundled models. {report['device']}: "
                f"{commit_and_date(report)}."
            )
            found.append((bits, [name, str(bits), values[0], spread[0], values[1], spread[1], won, note]))
    ordered = [row for _, row in sorted(found, key=lambda pair: -pair[0])]
    return [[*row[:-1], notes.number(row[-1])] for row in ordered]


def _of_the_paper(root: Path, notes: Notes) -> list[list[str]]:
    """Results of the full paper's Table 22: the bit error rate of the test is half of that in training."""
    found = [result for result in read_results(root / "results") if _is_of_table22(result)]
    rows = []
    for result in sorted(found, key=_order):
        cell = result.cell
        with reading(f"a result of {cell.dataset}, {cell.base}, {cell.spec.name}"):
            how = f"{of_base(result)}; {of_generator(result)}"
            what = f"{cell.dataset}, {cell.base}, {cell.spec.name}"
            name = f"{what}, {100 * cell.bit_error_rate:g} % {cell.faults} ({how})"
            note = notes.number(origin(result))
        rows.append([name, str(cell.bits or BITS), *format_result(result), note])
    return rows


def _is_of_table22(result: Result) -> bool:
    cell = result.cell
    reduced = cell.bits is not None
    return reduced or (cell.spec.source == cell.base and cell.spec.bit_error_rate == 2 * cell.bit_error_rate)


def _order(result: Result) -> tuple[str, str, str, str, int]:
    cell = result.cell
    return cell.dataset, cell.base, cell.spec.name, cell.faults, -(cell.bits or BITS)
