"""`faultsim reproduce`: the paper's tables and figures, ours beside the published values."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import FaultsimError
from .options import JsonOption
from .run_options import (
    AverageOption,
    BaseEpochsOption,
    BatchOption,
    BudgetOption,
    DataFolderOption,
    EpochsOption,
    FaultsOption,
    LearningRateOption,
    NamesOption,
    NModelsOption,
    OutOption,
    PlanOption,
    PrecisionOption,
    RecipeOption,
    RunDeviceOption,
    ScheduleOption,
    SeedOption,
    ShowOption,
    TrainerOption,
    names,
    seconds,
    settings,
)

if TYPE_CHECKING:
    from neuralfuse.paper.result import Cell

    from .reproduce_steps import Settings


def reproduce(
    name: Annotated[
        str | None,
        typer.Argument(
            help="table1, table2, table5 ... table16, figure2 ... figure6, or all.", show_default=False
        ),
    ] = None,
    dataset: NamesOption = None,
    base: NamesOption = None,
    generator: NamesOption = None,
    faults: FaultsOption = None,
    out: OutOption = None,
    data_dir: DataFolderOption = None,
    recipe: RecipeOption = None,
    trainer: TrainerOption = None,
    base_epochs: BaseEpochsOption = None,
    epochs: EpochsOption = None,
    n_models: NModelsOption = None,
    batch_size: BatchOption = None,
    precision: PrecisionOption = None,
    learning_rate: LearningRateOption = None,
    schedule: ScheduleOption = None,
    average: AverageOption = None,
    seed: SeedOption = None,
    device: RunDeviceOption = None,
    budget: BudgetOption = None,
    plan: PlanOption = False,
    show: ShowOption = False,
    smoke: Annotated[
        bool,
        typer.Option(
            "--smoke",
            help="Try every step in minutes: digits and tiny networks (not in the paper), few epochs.",
        ),
    ] = False,
    status: Annotated[
        bool,
        typer.Option("--status", help="Of each table: the cells there are, how far off, on what hardware."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Compute tables and figures of the paper again, beside the published values.

    figure2, table6, table7 and table8 are computed on the spot; exit status 1 when a value doesn't agree.

    The others need trained models: what the run directory lacks is trained and evaluated on 10 chips, under the fault
    model of the paper's released code and with independent flips; what is missing, and its cost, is said first. A run
    that was stopped goes on; what one table computed is used by all. Figures are written into the run directory as
    pictures with the rows behind them. Exit status 0 says that it ran, not that the values agree. --dataset, --base
    and --generator choose rows; each takes a list with commas and may be repeated.
    """
    from neuralfuse.paper import NAMES as COMPUTED
    from neuralfuse.paper.cells import NAMES as TRAINED

    options = {
        "dataset": dataset, "base": base, "generator": generator, "faults": faults, "out": out,
        "data-dir": data_dir, "recipe": recipe, "trainer": trainer,
        "base-epochs": base_epochs, "epochs": epochs, "n-models": n_models,
        "batch-size": batch_size, "precision": precision,
        "learning-rate": learning_rate, "schedule": schedule, "average": average, "seed": seed, "device": device,
        "budget": budget, "plan": plan, "show": show, "smoke": smoke,
    }  # fmt: skip
    given = [option for option, value in options.items() if value is not None and value is not False]
    if status:
        from neuralfuse.paper.status import everything

        from . import reproduce_status

        _only(given, ("out",), "--status, which reads what there is")
        if name is not None:
            raise FaultsimError(f"--status is about all tables: leave {name} out")
        existing(out)
        reproduce_status.status(everything(out), as_json)
    elif name is None:
        raise FaultsimError(
            "which table or figure? give table1 ... table16, figure2 ... figure6, all or --status"
        )
    elif name in COMPUTED:
        _only(given, ("out",) if name == "figure2" else (), f"{name}, which is computed without training")
        _computed(name, out, as_json)
    elif name in TRAINED or name == "all":
        _trained(list(TRAINED) if name == "all" else [name], options, given, as_json)
    else:
        known = ", ".join(sorted((*COMPUTED, *TRAINED), key=_number))
        raise FaultsimError(f"unknown table or figure {name!r}; known are {known}, all")


def _number(name: str) -> tuple[bool, int]:
    word = "table" if name.startswith("table") else "figure"
    return word == "figure", int(name.removeprefix(word))


def _only(given: list[str], allowed: tuple[str, ...], what: str) -> None:
    for option in given:
        if option not in allowed:
            raise FaultsimError(f"--{option} cannot be combined with {what}")


def _trained(targets: list[str], options: dict[str, Any], given: list[str], as_json: bool) -> None:
    from neuralfuse.paper.cells import FAULTS, cells

    smoke, out, show = options["smoke"], options["out"], options["show"]
    for option in ("dataset", "base"):
        if smoke and options[option]:
            raise FaultsimError(
                f"--{option} cannot be combined with --smoke, which takes the digits and tiny networks"
            )
    recipe, chosen_settings = settings(options, smoke)
    chosen = [names(options[option], f"--{option}") for option in ("dataset", "base", "generator")]
    presets = names(options["faults"], "--faults") or list(FAULTS)
    if len(targets) > 1:
        _only(
            given,
            tuple(option for option in options if option not in ("dataset", "base", "generator")),
            "all",
        )
    wanted = {
        name: cells(name, *chosen, presets, n_models=chosen_settings.n_models, smoke=smoke)
        for name in targets
    }
    if show:
        _only(
            given,
            ("dataset", "base", "generator", "faults", "out", "show", "smoke"),
            "--show, which computes nothing",
        )
        existing(out)
    elif out is None:
        raise FaultsimError(
            "where shall models and results be kept? add --out RUN_DIR, or --show to see what there is"
        )
    elif not run(wanted, recipe, chosen_settings, options):
        return
    _tell(wanted, recipe, out, shown=show, as_json=as_json)
    if len(targets) > 1 and not as_json:
        _compute_all(out)


def existing(out: Path | None) -> None:
    """Raises FaultsimError for a run directory that isn't there."""
    if out is not None and not out.is_dir():
        raise FaultsimError(f"{out} is no run directory: nothing was computed there yet")


def run(
    wanted: Mapping[str, Sequence[Cell]], recipe: str, chosen: Settings, options: Mapping[str, Any]
) -> bool:
    """Does what is missing of tables, by their names; False when only the plan was asked for."""
    from neuralfuse.paper.cells import NEED_OUTPUTS, trained_by, union
    from neuralfuse.paper.plan import Kind, missing, steps

    from .options import device as device_named
    from .reproduce_steps import Clock, carry_out, say

    wanted = {name: [trained_by(cell, chosen.trainer) for cell in cells] for name, cells in wanted.items()}
    counts = union(wanted.values())
    out, budget = options["out"], seconds(options["budget"])
    outputs = [cell for name, cells in wanted.items() if name in NEED_OUTPUTS for cell in cells]
    planned = steps(counts, recipe, out)
    planned += [step for step in steps(outputs, recipe, out, (Kind.OUTPUTS,)) if step not in planned]
    device = options["device"] or "auto"
    if options["plan"]:
        if budget is not None:
            raise FaultsimError("--budget cannot be combined with --plan, which does nothing")
        say(planned, missing(planned), Clock.of(chosen, device_named(device)))
        return False
    carry_out(planned, out, chosen, options["data-dir"], device, wanted=counts, budget=budget)
    return True


def _tell(wanted: dict, recipe: str, out: Path | None, *, shown: bool, as_json: bool) -> None:
    """What there is of the tables; figures into the run directory."""
    from neuralfuse.paper.cells import FIGURES
    from neuralfuse.paper.rows import lines

    from . import accuracy_table, reproduce_status

    found = {name: lines(cells, out, shipped=shown) for name, cells in wanted.items()}
    written = []
    if out is not None:
        for name in found:
            if name in FIGURES:
                from neuralfuse.paper.figures import write_figure

                written += write_figure(name, found[name], recipe, out)
    if as_json:
        typer.echo(accuracy_table.as_json(found))
    elif len(found) > 1:
        reproduce_status.status(found, False)
    else:
        for name, of_table in found.items():
            accuracy_table.show(name, of_table)
    for path in written:
        print(f"written: {path}", file=sys.stderr if as_json else sys.stdout)


def _compute_all(out: Path | None) -> None:
    """Those that need no trained model: a line each. Exit status 1 when a value doesn't agree."""
    from neuralfuse.paper import NAMES as COMPUTED
    from neuralfuse.paper import reproduce as compute

    from . import reproduce_status

    results = {name: compute(name) for name in COMPUTED}
    for name, result in results.items():
        print(f"{name}: {reproduce_status.agreement(result)}")
    if out is not None:
        from neuralfuse.paper.figures import write_curve

        for path in write_curve(out):
            print(f"written: {path}")
    if not all(result.agrees for result in results.values()):
        raise typer.Exit(1)


def _computed(name: str, out: Path | None, as_json: bool) -> None:
    from neuralfuse.paper import reproduce as compute

    from . import reproduce_status

    result = compute(name)
    reproduce_status.computed(result, as_json)
    if out is not None:
        from neuralfuse.paper.figures import write_curve

        for path in write_curve(out):
            print(f"written: {path}", file=sys.stderr if as_json else sys.stdout)
    if not result.agrees:
        raise typer.Exit(1)
