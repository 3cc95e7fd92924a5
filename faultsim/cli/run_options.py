"""Options of commands that train what a table lacks (`reproduce`, `transfer`), as one group, and of budgets."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import FaultsimError
from .cluster_options import ClusterOptions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from neuralfuse.paper.result import Cell
    from neuralfuse.paper.settings import Settings

    from ..training.loop import Pace

NamesOption = Annotated[
    list[str] | None, typer.Option(help="Only this one; several with commas, or repeated.")
]
FaultsOption = Annotated[
    list[str] | None,
    typer.Option(help="Only this fault model: neuralfuse_2022 or iid_flips. [default: both]"),
]
OutOption = Annotated[
    Path | None,
    typer.Option(help="Run directory with everything that was computed; the next call continues in it."),
]
DataFolderOption = Annotated[
    Path | None, typer.Option(help="Folder of the datasets. [default: they are downloaded]")
]
RecipeOption = Annotated[
    str | None, typer.Option(help="Recipe of the base models: paper, paper_short or modern. [default: paper]")
]
TrainerOption = Annotated[
    str | None,
    typer.Option(
        help="Trainer of generators: eopm, as in the paper, or staged or lookup, which need a hundredth of its passes "
        "or less ('faultsim train-generator --help'). With staged the following options are those of its last stage; "
        "their defaults are 2 epochs, batches of 96, N = 5 and a linear schedule. [default: eopm]",
        show_default=False,
    ),
]
BaseEpochsOption = Annotated[
    int | None, typer.Option(help="Epochs of the base models. [default: the recipe's]")
]
EpochsOption = Annotated[
    int | None, typer.Option(help="Largest number of epochs of generators. [default: 100]")
]
NModelsOption = Annotated[int | None, typer.Option(help="N: perturbed models per step. [default: 10]")]
BatchOption = Annotated[
    int | None, typer.Option(help="Images per step of generators' training. [default: 256]")
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
        help="Learning rate schedule: constant, or linear to 0 at the end of --epochs. [default: constant]"
    ),
]
AverageOption = Annotated[
    float | None,
    typer.Option(
        help="Decay per step, like 0.998, of a moving average of a generator's weights, which is the result; 0: no "
        "average. [default: 0]"
    ),
]
SeedOption = Annotated[int | None, typer.Option(help="Seed of all trainings. [default: 0]")]
RunComputeOption = Annotated[
    str | None,
    typer.Option(help="What evaluations compute in: float32 or bfloat16. [default: float32]"),
]
RunDeviceOption = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N. [default: auto]")]
BudgetOption = Annotated[
    str | None,
    typer.Option(
        help="Stop after this time, like 90s, 30m or 2h. The most valuable missing steps come first; the next call "
        "continues an unfinished training."
    ),
]
TrainingBudgetOption = Annotated[
    str | None,
    typer.Option(help="Stop after this time, like 90s, 30m or 2h; the same command continues the training."),
]
PlanOption = Annotated[
    bool, typer.Option("--plan", help="List the missing steps and their cost, and compute nothing.")
]
ShowOption = Annotated[bool, typer.Option("--show", help="Show the existing results, and compute nothing.")]


@dataclass(frozen=True)
class RunOptions:
    """A run directory, and how everything in it is trained."""

    faults: FaultsOption = None
    out: OutOption = None
    data_dir: DataFolderOption = None
    recipe: RecipeOption = None
    trainer: TrainerOption = None
    base_epochs: BaseEpochsOption = None
    epochs: EpochsOption = None
    n_models: NModelsOption = None
    batch_size: BatchOption = None
    precision: PrecisionOption = None
    learning_rate: LearningRateOption = None
    schedule: ScheduleOption = None
    average: AverageOption = None
    seed: SeedOption = None
    compute: RunComputeOption = None
    device: RunDeviceOption = None
    budget: BudgetOption = None
    plan: PlanOption = False
    show: ShowOption = False
    cluster: ClusterOptions = field(default_factory=ClusterOptions)

    @property
    def given(self) -> list[str]:
        """The options that the user gave, without dashes in front."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "cluster"}
        values |= vars(self.cluster)
        return [name.replace("_", "-") for name, value in values.items() if value not in (None, False)]

    def settings(self, *, smoke: bool = False) -> Settings:
        """The settings; FaultsimError for impossible values."""
        from neuralfuse.paper.settings import Settings

        return Settings.choose(
            smoke=smoke, **{field.name: getattr(self, field.name) for field in fields(Settings)}
        )

    def presets(self) -> list[str]:
        """The presets of bit errors; the default is both."""
        from neuralfuse.paper.cells import FAULTS

        return names(self.faults, "--faults") or list(FAULTS)

    def carry_out(self, tables: Mapping[str, Sequence[Cell]], settings: Settings) -> bool:
        """Do what the run directory lacks, or what --plan and --show say; False if there is nothing to show then."""
        from neuralfuse.paper.budget import Clock
        from neuralfuse.paper.run import Plan, carry_out

        from ..kernel.devices import choose_device

        if self.show:
            check_run_directory(self.out)
            return True
        if self.out is None:
            raise FaultsimError(
                "where to write models and results? add --out RUN_DIR, or --show to see the existing ones"
            )
        plan, device = Plan.of(tables, self.out, settings), self.device or "auto"
        budget = seconds(self.budget)
        if not self.plan:
            with self.cluster.open(device) as workers:
                here = self.cluster.find_device(device)
                where = {"data_dir": self.data_dir, "device": here, "client": workers}
                carry_out(plan, self.out, **where, budget=budget, report=say)
            return True
        if budget is not None:
            raise FaultsimError("--budget cannot be combined with --plan, which does nothing")
        for line in plan.describe(Clock.of(settings, choose_device(device))):
            say(line)
        return False


def check_run_directory(out: Path | None) -> None:
    """Raise FaultsimError for a run directory that does not exist."""
    if out is not None and not out.is_dir():
        raise FaultsimError(f"{out} is no run directory: nothing was computed there yet")


def check_only(given: Sequence[str], allowed: Sequence[str], what: str) -> None:
    """Raise FaultsimError for a given option that is not allowed with something."""
    for option in given:
        if option not in allowed:
            raise FaultsimError(f"--{option} cannot be combined with {what}")


def names(words: list[str] | None, option: str) -> list[str]:
    """Split the values of an option that may be repeated and holds lists with commas."""
    found = [name.strip() for word in words or [] for name in word.split(",")]
    if "" in found:
        raise FaultsimError(f"{option}: an empty name; write names with commas between them")
    return found


def seconds(budget: str | None) -> float | None:
    """Parse --budget."""
    if budget is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", budget.strip())
    if not match or float(match[1]) == 0:
        raise FaultsimError(f"--budget {budget!r}: write a time like 90s, 30m or 2h")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


def pace(budget: str | None) -> Pace:
    """Return the pace of a training that starts now."""
    from ..training.loop import Pace

    return Pace.within(seconds(budget))


def say(line: str) -> None:
    """Print progress to stderr; stdout is for results."""
    print(line, file=sys.stderr, flush=True)
