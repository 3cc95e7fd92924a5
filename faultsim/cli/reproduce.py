"""`faultsim reproduce`: the paper's tables and figures, ours and the published values."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import FaultsimError
from .option_groups import expand_options
from .options import JsonOption
from .run_options import NamesOption, RunOptions, check_only, check_run_directory, names

if TYPE_CHECKING:
    from neuralfuse.paper.result import Cell

_ROWS = ("dataset", "base", "generator")


@expand_options
def reproduce(
    name: Annotated[
        str | None,
        typer.Argument(
            help="table1, table2, table5 ... table16, figure2 ... figure6, or all of these; of the later, full paper "
            "full-table3, full-table8, full-table10, full-table11 or full-table21 ... full-table23.",
            show_default=False,
        ),
    ] = None,
    *,
    dataset: NamesOption = None,
    base: NamesOption = None,
    generator: NamesOption = None,
    options: RunOptions,
    smoke: Annotated[
        bool,
        typer.Option(
            "--smoke",
            help="Try every step in minutes: digits and tiny networks (not in the paper), few epochs.",
        ),
    ] = False,
    status: Annotated[
        bool,
        typer.Option(
            "--status", help="For each table: how many cells have results, how far off, on what hardware."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Reproduce tables and figures of the paper.

    It prints them next to the published values. figure2, table6, table7, table8, full-table3 and full-table8 need no
    trained model; exit status 1 means that a value does not agree.

    The others need trained models. The command first lists what the run directory lacks and what it costs, then trains
    and evaluates it: on 10 chips, with the fault model of the paper's released code and with independent flips. The
    same command continues after an interruption, and tables share what they have in common. Figures are written into
    the run directory as pictures and CSV files. Exit status 0 means that the command ran, not that the values agree.
    --dataset, --base and --generator select rows; each takes a list with commas and may be repeated.
    """
    from neuralfuse.paper.cells import NAMES as TRAINED
    from neuralfuse.paper.full_cells import FULL
    from neuralfuse.paper.reproduction import COMPUTED, FULL_COMPUTED

    rows = dict(zip(_ROWS, (dataset, base, generator), strict=True))
    given = [option for option, value in rows.items() if value is not None] + options.given
    given += ["smoke"] if smoke else []
    if status:
        from neuralfuse.paper.status import collect_everything

        from .reproduce_status import show_status

        check_only(given, ("out",), "--status, which only reads results")
        if name is not None:
            raise FaultsimError(f"--status is about all tables: leave {name} out")
        check_run_directory(options.out)
        show_status(collect_everything(options.out), as_json)
    elif name is None:
        raise FaultsimError(
            "which table or figure? give table1 ... table16, figure2 ... figure6, all or --status"
        )
    elif name in (*COMPUTED, *FULL_COMPUTED):
        check_only(
            given, ("out",) if name == "figure2" else (), f"{name}, which is computed without training"
        )
        _compute(name, options.out, as_json)
    elif name in (*TRAINED, *FULL) or name == "all":
        _train(list(TRAINED) if name == "all" else [name], rows, options, given, smoke, as_json)
    else:
        known = ", ".join(sorted((*COMPUTED, *TRAINED, *FULL_COMPUTED, *FULL), key=_number))
        raise FaultsimError(f"unknown table or figure {name!r}: it can be {known}, all")


def _number(name: str) -> tuple[bool, bool, int]:
    short = name.removeprefix("full-")
    word = "table" if short.startswith("table") else "figure"
    return short != name, word == "figure", int(short.removeprefix(word))


def _train(
    targets: list[str],
    rows: Mapping[str, list[str] | None],
    options: RunOptions,
    given: Sequence[str],
    smoke: bool,
    as_json: bool,
) -> None:
    from neuralfuse.paper.cells import select_cells

    for option in ("dataset", "base"):
        if smoke and rows[option]:
            raise FaultsimError(
                f"--{option} cannot be combined with --smoke, which takes the digits and tiny networks"
            )
    settings = options.settings(smoke=smoke)
    chosen = [names(rows[option], f"--{option}") for option in _ROWS]
    presets = options.presets()
    if len(targets) > 1:
        check_only(given, [option for option in given if option not in _ROWS], "all")
    tables = {
        name: select_cells(name, *chosen, presets, n_models=settings.n_models, smoke=smoke)
        for name in targets
    }
    if options.show:
        check_only(given, (*_ROWS, "faults", "out", "show", "smoke"), "--show, which computes nothing")
    if not options.carry_out(tables, settings):
        return
    _show(tables, settings.recipe, options, as_json)
    if len(targets) > 1 and not as_json:
        _compute_all(options.out)


def _show(tables: Mapping[str, Sequence[Cell]], recipe: str, options: RunOptions, as_json: bool) -> None:
    """Print tables, and write figures into the run directory."""
    from neuralfuse.paper.cells import FIGURES
    from neuralfuse.paper.rows import collect_lines

    from . import accuracy_table
    from .reproduce_status import show_status

    found = {name: collect_lines(cells, options.out, kept=options.show) for name, cells in tables.items()}
    written: list[Path] = []
    for name in found:
        if options.out is not None and name in FIGURES:
            from neuralfuse.paper.figures import write_figure

            written += write_figure(name, found[name], recipe, options.out)
    if as_json:
        typer.echo(accuracy_table.as_json(found))
    elif len(found) > 1:
        show_status(found, False)
    else:
        for name, of_table in found.items():
            accuracy_table.show(name, of_table)
    _name_files(written, as_json)


def _compute_all(out: Path | None) -> None:
    """Print a line for each table that needs no trained model. Exit status 1 when a value does not agree."""
    from neuralfuse.paper.reproduction import COMPUTED, compute

    results = {name: compute(name) for name in COMPUTED}
    for name, result in results.items():
        print(f"{name}: {result.summary}")
    _write_curve(out, False)
    if not all(result.agrees for result in results.values()):
        raise typer.Exit(1)


def _compute(name: str, out: Path | None, as_json: bool) -> None:
    from neuralfuse.paper.reproduction import compute

    from .reproduce_status import show_computed

    result = compute(name)
    show_computed(result, as_json)
    _write_curve(out, as_json)
    if not result.agrees:
        raise typer.Exit(1)


def _write_curve(out: Path | None, as_json: bool) -> None:
    if out is not None:
        from neuralfuse.paper.figures import write_curve

        _name_files(write_curve(out), as_json)


def _name_files(written: Sequence[Path], as_json: bool) -> None:
    for path in written:
        print(f"written: {path}", file=sys.stderr if as_json else sys.stdout)
