"""A run directory of `reproduce` in a report (faultsim.show.report): accuracies, published values, figures."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from faultsim.errors import FaultsimError
from faultsim.io.bounds import parse_json, read_bytes, read_text
from faultsim.io.run_directory import MOST_JSON
from faultsim.show.report.collect import Reader
from faultsim.show.report.document import (
    MINUS,
    Chart,
    Point,
    Row,
    Section,
    Series,
    Table,
    Tile,
    format_value,
    list_origin,
    look_up,
)
from faultsim.show.report.sweep_files import MOST_CSV
from faultsim.show.series_styles import SeriesStyle

from .cells import TITLES
from .result import Result, read
from .rows import find_published
from .words import (
    HEADINGS,
    PRESETS,
    format_published,
    format_result,
    label_pair,
    summarize_result,
    title_table,
)

INFORMATION = "reproduce.json"
# what a chart of accuracies shows: part of a result, of the published row, name, style
_PARTS = (
    ("perturbed", "P.A.", SeriesStyle(0, 0)),
    ("perturbed_fused", "P.A.+N.F.", SeriesStyle(1, 1)),
)
_LARGEST_PICTURE = 1 << 20  # bytes
_MOST_ROWS = 500
_PNG = b"\x89PNG\r\n\x1a\n"
_EXPLANATION = (
    "C.A.: accuracy without bit errors, P.A.: with bit errors, mean over chips; +N.F.: behind the generator; IP: what "
    "the generator wins back. Bars: one standard deviation over the chips. Hollow: the paper's values."
)


def make_sections(directory: Path, shown: str) -> list[Section]:
    """Make the section on a reproduction.

    Parameters
    ----------
    directory : Path
        Run directory.
    shown : str
        The name of the directory for the reader.

    Returns
    -------
    list of Section
        One, or none where there is neither a run's description nor a result.

    Raises
    ------
    FaultsimError
        If all results are damaged.
    """
    results, notes = _results(directory)
    if not results and not (directory / INFORMATION).exists():
        if notes:
            raise FaultsimError(notes[0])
        return []
    order = list(PRESETS)  # as in the other tables; unknown ones last
    results.sort(
        key=lambda r: (
            title_table(r.cell),
            order.index(r.cell.faults) if r.cell.faults in order else len(order),
        )
    )
    tables, charts = [], []
    for title, group in groupby(results, key=lambda result: title_table(result.cell)):
        of_table = list(group)
        tables.append(_table(title, of_table))
        charts += _charts(title, of_table)
    information = _information(directory, notes)
    if not results:
        notes.append("no result is finished yet")
    pictures, data = _figures(directory, notes)
    return [
        Section(
            title="Accuracy with NeuralFuse",
            kind="Reproduction of the paper",
            path=shown,
            tiles=_tiles(results),
            facts=_facts(information, results),
            charts=tuple(charts),
            explanation=_EXPLANATION if charts else "",
            pictures=tuple(pictures),
            tables=(*tables, *data),
            notes=tuple(notes),
            configuration=json.dumps(look_up(information, "configuration"), indent=2) if information else "",
        )
    ]


READER = Reader(
    (INFORMATION, "result-*.json", "unprotected-*.json", "outputs-*.npz", "figure*.png", "figure*.csv"),
    make_sections,
)


# -- reading -------------------------------------------------------------------------------------------------


def _results(directory: Path) -> tuple[list[Result], list[str]]:
    """Read the results that can be read, and say what is wrong with the others."""
    found, notes = [], []
    for path in sorted(directory.glob("result-*.json")):
        try:
            result = read(path)
            summarize_result(result)
            title_table(result.cell), label_pair(result.cell), format_result(result)
        except FaultsimError as error:
            notes.append(str(error))
        except (KeyError, TypeError, AttributeError, ValueError, ZeroDivisionError, OverflowError):
            notes.append(f"{path} doesn't say how its result was obtained")
        else:
            found.append(result)
    return found, notes


def _information(directory: Path, notes: list[str]) -> dict:
    path = directory / INFORMATION
    if not path.exists():
        return {}
    try:
        found = parse_json(read_text(path, MOST_JSON), MOST_JSON)
        if not isinstance(found, dict):
            raise ValueError("it holds no object")
    except (OSError, ValueError) as error:
        notes.append(f"{path} cannot be read ({error})")
        return {}
    return found


def _figures(directory: Path, notes: list[str]) -> tuple[list[tuple[str, bytes]], list[Table]]:
    """Read the pictures that reproduce drew, and the rows behind them."""
    pictures, tables = [], []
    for path in sorted(directory.glob("figure*.png")):
        try:
            content = read_bytes(path, _LARGEST_PICTURE)
        except (OSError, ValueError) as error:
            notes.append(f"{path} is not shown: {error}")
            continue
        if not content.startswith(_PNG):
            notes.append(f"{path} is no PNG picture")
        else:
            pictures.append((_caption(path.stem), content))
    for path in sorted(directory.glob("figure*.csv")):
        try:
            header, *rows = csv.reader(io.StringIO(read_text(path, MOST_CSV), ""), strict=True)
            if any(len(row) != len(header) for row in rows) or not header:
                raise ValueError("a row has another number of cells than the header")
        except (OSError, ValueError, csv.Error) as error:
            notes.append(f"{path} cannot be read ({error})")
            continue
        shown = tuple(Row(tuple(row)) for row in rows[:_MOST_ROWS])
        more = (f"The first {_MOST_ROWS} of {len(rows)} rows.",) if len(rows) > _MOST_ROWS else ()
        tables.append(Table(f"Values: {_caption(path.stem)}", tuple(header), shown, notes=more, folded=True))
    return pictures, tables


def _caption(stem: str) -> str:
    name, _, of = stem.partition("-")
    title = TITLES.get(name)
    words_of = f"Figure {name.removeprefix('figure')}" + (f": {title}" if title else "")
    return f"{words_of}, {PRESETS.get(of, of)}" if of else words_of


# -- showing -------------------------------------------------------------------------------------------------


def _by_label(results: Sequence[Result]) -> list[tuple[str, list[Result]]]:
    """Rows belong together that differ in the fault model only."""
    found: dict[str, list[Result]] = {}
    for result in results:
        found.setdefault(label_pair(result.cell), []).append(result)
    return list(found.items())


def _table(title: str, results: Sequence[Result]) -> Table:
    rows: list[Row] = []
    notes: list[str] = []
    for label, group in _by_label(results):
        rows.append(Row((label,), "group"))
        known = find_published(group[0].cell)
        if known is not None:
            rows.append(Row(("the paper", *format_published(known), ""), "published"))
        for result in group:
            note = summarize_result(result)
            if note not in notes:
                notes.append(note)
            cells = (result.cell.faults, *format_result(result), f"[{notes.index(note) + 1}]")
            rows.append(Row(cells))
    return Table(
        title,
        ("faults", *HEADINGS, "how"),
        tuple(rows),
        notes=(
            "In percent. ±: population standard deviation over chips.",
            *(f"[{number}] {note}" for number, note in enumerate(notes, 1)),
        ),
    )


def _charts(title: str, results: Sequence[Result]) -> list[Chart]:
    """One for each fault model: accuracy under bit errors of each row, without and with the generator."""
    presets = list(dict.fromkeys(result.cell.faults for result in results))
    return [_chart(title, preset, [r for r in results if r.cell.faults == preset]) for preset in presets]


def _chart(title: str, preset: str, results: Sequence[Result]) -> Chart:
    series = []
    rows = _by_label(results)
    for part, name, style in _PARTS:
        ours, theirs = [], []
        for place, (label, group) in enumerate(rows):
            for result in group:
                mean, std = result.mean(part), result.std(part)
                values = (f"{label}, ours", f"{name}: {mean:.2f} ± {std:.2f} %", PRESETS.get(preset, preset))
                ours.append(Point(mean, place - 0.12, values, bars=(mean - std, mean + std)))
            known = find_published(group[0].cell)
            value = getattr(known, part, None)
            if value is not None:
                spread = getattr(known, f"{part}_std")
                text = f"{name}: {value:.2f}" + ("" if spread is None else f" ± {spread:.2f}") + " %"
                bars = None if spread is None else (value - spread, value + spread)
                theirs.append(Point(value, place + 0.2, (f"{label}, the paper", text), bars=bars))
        series.append(Series(f"{name}, ours", tuple(ours), joined=False, style=style))
        if theirs:
            series.append(Series(f"{name}, the paper", tuple(theirs), joined=False, hollow=True, style=style))
    return Chart(
        title=f"{title}: {PRESETS.get(preset, preset)}",
        x_label="accuracy under bit errors (%)",
        y_label="",
        series=tuple(series),
        y_range=(0, 103),
        categories=tuple(label for label, _ in rows),
        size="half",
    )


def _tiles(results: Sequence[Result]) -> tuple[Tile, ...]:
    if not results:
        return ()
    won = sum(result.improvement for result in results) / len(results)
    known = [(result.mean("perturbed_fused"), find_published(result.cell)) for result in results]
    compared = [(ours, row.perturbed_fused) for ours, row in known if row and row.perturbed_fused is not None]
    tiles = [
        Tile(str(len(results)), f"result{'s' if len(results) > 1 else ''}, each on unseen chips"),
        Tile(f"{won:+.2f}".replace("-", MINUS), "percentage points restored by generators, on average"),
    ]
    if compared:
        reached = sum(ours >= theirs for ours, theirs in compared)
        tiles.append(
            Tile(f"{reached} of {len(compared)}", "at or above the paper's accuracy with NeuralFuse")
        )
    return tuple(tiles)


def _facts(information: dict, results: Sequence[Result]) -> tuple[tuple[str, str], ...]:
    chips = sorted({len(result.correct["perturbed"]) for result in results})
    images = sorted({result.images for result in results})
    settings = (
        ("Generator epochs, at most", "epochs"),
        ("Base model epochs", "base_epochs"),
        ("N, perturbed models a step", "n_models"),
        ("Images of one step", "batch_size"),
        ("Learning rate of generators", "learning_rate"),
        ("Its schedule", "schedule"),
        ("Decay of averaged weights", "average"),
        ("Precision", "precision"),
        ("Precision of evaluations", "compute"),
        ("Seed", "seed"),
    )
    facts = [(name, format_value(look_up(information, f"configuration.{key}"))) for name, key in settings]
    facts += [("Chips", ", ".join(map(str, chips))), ("Test images", ", ".join(f"{n:,}" for n in images))]
    return tuple((name, text) for name, text in facts if text) + list_origin(information)
