"""`faultsim reproduce`: the paper's tables, ours beside the published values."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from faultsim.cli.options import JsonOption
from faultsim.errors import FaultsimError

if TYPE_CHECKING:
    from neuralfuse.reproduce import Reproduction

PAPER = {
    "recipe": "paper",
    "base-epochs": None,
    "epochs": 100,
    "n-models": 10,
    "precision": "float32",
    "seed": 0,
}
SMOKE = PAPER | {"recipe": "modern", "base-epochs": 4, "epochs": 2, "n-models": 2}
NamesOption = Annotated[
    list[str] | None, typer.Option(help="Only this one; several with commas, or repeated.")
]


def reproduce(
    name: Annotated[
        str, typer.Argument(help="table6, table7 or table8 (computed), table1, table9 or table10 (trained).")
    ],
    dataset: NamesOption = None,
    base: NamesOption = None,
    generator: NamesOption = None,
    out: Annotated[
        Path | None, typer.Option(help="Run directory: holds everything, and can be continued.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder that holds the data sets; fetched without.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Of the base models: paper or modern. [default: paper]")
    ] = None,
    base_epochs: Annotated[
        int | None, typer.Option(help="Of the base models. [default: the recipe's]")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Of generators, at most. [default: 100]")] = None,
    n_models: Annotated[int | None, typer.Option(help="N: perturbed models a step. [default: 10]")] = None,
    precision: Annotated[
        str | None, typer.Option(help="Of generators' training: float32 or bfloat16. [default: float32]")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of all training. [default: 0]")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N. [default: auto]")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say which steps are missing, and do none.")] = False,
    show: Annotated[bool, typer.Option("--show", help="Show what there is, and compute nothing.")] = False,
    smoke: Annotated[
        bool,
        typer.Option(
            "--smoke", help="Try every step in minutes: digits and DigitsNet (not in the paper), few epochs."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Compute a table of the paper again and lay it beside the published values.

    table6, table7 and table8 are computed on the spot; exit status 1 when a value doesn't agree.

    table1, table9 and table10 need trained models: what the run directory lacks is trained and evaluated on 10 chips,
    under the fault model of the paper's released code and with independent flips; a run that was stopped goes on. Exit
    status 0 says that it ran, not that the values agree. --dataset, --base and --generator choose rows; each takes a
    list with commas and may be repeated.
    """
    from neuralfuse.reproduce import NAMES as COMPUTED
    from neuralfuse.reproduce.accuracy import NAMES as TRAINED

    options = {
        "dataset": dataset, "base": base, "generator": generator, "out": out, "data-dir": data_dir, "recipe": recipe,
        "base-epochs": base_epochs, "epochs": epochs, "n-models": n_models, "precision": precision, "seed": seed,
        "device": device, "plan": plan, "show": show, "smoke": smoke,
    }  # fmt: skip
    given = [option for option, value in options.items() if value is not None and value is not False]
    if name in TRAINED:
        _trained(name, options, given, as_json)
        return
    if name in COMPUTED and given:
        raise FaultsimError(f"--{given[0]} has no meaning for {name}, which is computed without training")
    if name not in COMPUTED:
        raise FaultsimError(f"unknown table {name!r}; known are {', '.join((*COMPUTED, *TRAINED))}")
    _computed(name, as_json)


def _trained(name: str, options: dict[str, Any], given: list[str], as_json: bool) -> None:
    from neuralfuse.reproduce.accuracy import cells, lines, missing, steps

    from . import accuracy_table
    from .accuracy import Settings, carry_out, say

    smoke, out, show = options["smoke"], options["out"], options["show"]
    for option in ("dataset", "base"):
        if smoke and options[option]:
            raise FaultsimError(
                f"--{option} has no meaning with --smoke, which takes the digits and DigitsNet"
            )
    chosen = [_names(options[option], f"--{option}") for option in ("dataset", "base", "generator")]
    wanted = cells(name, *chosen, smoke=smoke)
    if show:
        allowed = ("dataset", "base", "generator", "out", "show", "smoke")
        for option in given:
            if option not in allowed:
                raise FaultsimError(f"--{option} has no meaning with --show, which computes nothing")
        if out is not None and not out.is_dir():
            raise FaultsimError(f"{out} is no run directory: nothing was computed there yet")
    elif out is None:
        raise FaultsimError(
            "where shall models and results be kept? add --out RUN_DIR, or --show to see what there is"
        )
    else:
        defaults = SMOKE if smoke else PAPER
        recipe, *rest = (options[key] if key in given else default for key, default in defaults.items())
        settings = Settings(*rest)
        settings.check(recipe)
        planned = steps(wanted, recipe, out)
        if options["plan"]:
            say(planned, missing(planned))
            return
        carry_out(planned, out, settings, options["data-dir"], options["device"] or "auto")
    found = lines(wanted, out, shipped=show)
    if as_json:
        typer.echo(accuracy_table.as_json(name, found))
    else:
        accuracy_table.show(name, found)


def _names(words: list[str] | None, option: str) -> list[str]:
    """The words of an option that may be repeated and holds lists with commas."""
    names = [name.strip() for word in words or [] for name in word.split(",")]
    if "" in names:
        raise FaultsimError(f"{option}: an empty name; write names with commas between them")
    return names


def _computed(name: str, as_json: bool) -> None:
    from neuralfuse.reproduce import reproduce as compute

    result = compute(name)
    if as_json:
        rows = [{**asdict(row), "difference": row.difference} for row in result.rows]
        typer.echo(json.dumps({**asdict(result), "rows": rows, "agrees": result.agrees}, indent=2))
    else:
        _print(result)
    if not result.agrees:
        raise typer.Exit(1)


def _print(result: Reproduction) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    table = Table(box=box.SIMPLE_HEAD, title=result.title, title_justify="left", show_edge=False, padding=0)
    table.add_column("")
    table.add_column("")
    for heading in ("ours", "published", "difference"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("agrees")
    if result.note:
        table.add_column(result.note, justify="right", no_wrap=True)
    for row in result.rows:
        cells = [f"{row.ours:,.{result.decimals}f}", f"{row.published:,.{result.decimals}f}"]
        cells.append(f"{row.difference:+,.{result.decimals}f}" if row.difference else "0")
        agrees = "yes" if row.agrees else "NO"
        table.add_row(row.subject, row.quantity, *cells, agrees, *([row.note] if result.note else []))
    console.print(table)
    agreeing = sum(row.agrees for row in result.rows)
    console.print(f"{agreeing} of {len(result.rows)} values agree ({result.criterion}).")
