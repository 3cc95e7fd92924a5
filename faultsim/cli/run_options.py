"""The options of commands that train what a table lacks, declared once: `reproduce` and `transfer`."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import FaultsimError

if TYPE_CHECKING:
    from ..training.loop import Pace
    from .reproduce_steps import Settings

PAPER = {
    "recipe": "paper",
    "trainer": "eopm",
    "base-epochs": None,
    "epochs": 100,
    "n-models": 10,
    "batch-size": 256,
    "precision": "float32",
    "learning-rate": 1e-3,
    "schedule": "constant",
    "average": 0.0,
    "seed": 0,
}
STAGED = PAPER | {
    "epochs": 2,
    "n-models": 5,
    "batch-size": 96,
    "learning-rate": 1e-3,
    "schedule": "linear",
}
SMOKE = PAPER | {"recipe": "modern", "base-epochs": 4, "epochs": 2, "n-models": 2}

NamesOption = Annotated[
    list[str] | None, typer.Option(help="Only this one; several with commas, or repeated.")
]
FaultsOption = Annotated[
    list[str] | None,
    typer.Option(help="Only this fault model: neuralfuse_2022 or iid_flips. [default: both]"),
]
OutOption = Annotated[
    Path | None,
    typer.Option(help="Run directory: holds everything that was computed; the next call goes on with it."),
]
DataFolderOption = Annotated[
    Path | None, typer.Option(help="Folder that holds the data sets. [default: they are downloaded]")
]
RecipeOption = Annotated[
    str | None, typer.Option(help="Recipe of the base models: paper, paper_short or modern. [default: paper]")
]
TrainerOption = Annotated[
    str | None,
    typer.Option(
        help="Of generators: eopm, as in the paper, or staged, which takes a hundredth of its passes or less; see "
        "'faultsim train-generator --help'. With staged the options below are of its last stage, whose defaults are "
        "2 epochs, batches of 96, N = 5 and a rate falling to 0. [default: eopm]",
        show_default=False,
    ),
]
BaseEpochsOption = Annotated[
    int | None, typer.Option(help="Epochs of the base models. [default: the recipe's]")
]
EpochsOption = Annotated[int | None, typer.Option(help="Epochs of generators, at most. [default: 100]")]
NModelsOption = Annotated[int | None, typer.Option(help="N: perturbed models a step. [default: 10]")]
BatchOption = Annotated[
    int | None, typer.Option(help="Images of one step of generators' training. [default: 256]")
]
PrecisionOption = Annotated[
    str | None,
    typer.Option(help="Precision of generators' training: float32 or bfloat16. [default: float32]"),
]
LearningRateOption = Annotated[
    float | None, typer.Option(help="Learning rate of generators' training. [default: 0.001]")
]
ScheduleOption = Annotated[
    str | None,
    typer.Option(
        help="Schedule of the learning rate: constant, or linear (to 0 in the last of --epochs). [default: constant]"
    ),
]
AverageOption = Annotated[
    float | None,
    typer.Option(
        help="Decay a step, like 0.998, of an average of a generator's weights, which is the result; 0: none. "
        "[default: 0]"
    ),
]
SeedOption = Annotated[int | None, typer.Option(help="Seed of all training. [default: 0]")]
RunDeviceOption = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N. [default: auto]")]
BudgetOption = Annotated[
    str | None,
    typer.Option(
        help="Stop after this time, like 90s, 30m or 2h: the most valuable missing steps come first, and the state of "
        "an unfinished training is kept."
    ),
]
TrainingBudgetOption = Annotated[
    str | None,
    typer.Option(help="Stop after this time, like 90s, 30m or 2h; the state of the training is kept."),
]
PlanOption = Annotated[
    bool, typer.Option("--plan", help="Say which steps are missing and what they cost, and do none.")
]
ShowOption = Annotated[bool, typer.Option("--show", help="Show what there is, and compute nothing.")]


def settings(options: dict[str, Any], smoke: bool = False) -> tuple[str, Settings]:
    """(recipe, everything else) of a run from its options, by their names; FaultsimError for impossible values."""
    from .reproduce_steps import Settings

    defaults = SMOKE if smoke else STAGED if options.get("trainer") == "staged" else PAPER
    recipe, *rest = (default if options[key] is None else options[key] for key, default in defaults.items())
    found = Settings(*rest)
    found.check(recipe)
    return recipe, found


def names(words: list[str] | None, option: str) -> list[str]:
    """The words of an option that may be repeated and holds lists with commas."""
    found = [name.strip() for word in words or [] for name in word.split(",")]
    if "" in found:
        raise FaultsimError(f"{option}: an empty name; write names with commas between them")
    return found


def seconds(budget: str | None) -> float | None:
    """What --budget says."""
    if budget is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", budget.strip())
    if not match or float(match[1]) == 0:
        raise FaultsimError(f"--budget {budget!r}: write a time like 90s, 30m or 2h")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


def pace(budget: str | None) -> Pace:
    """When a training that begins now keeps its state, and stops."""
    from ..training.loop import Pace

    left = seconds(budget)
    return Pace() if left is None else Pace(deadline=time.monotonic() + left)
