"""`faultsim transfer`: generators trained for one base model in front of another, as with restricted access."""

from __future__ import annotations

from typing import Annotated

import typer

from ..errors import FaultsimError
from .numerals import parse_numbers
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
)


def transfer(
    source: Annotated[
        list[str], typer.Option(help="Base models that generators are trained for, the surrogates.")
    ],
    target: Annotated[
        list[str],
        typer.Option(help="Base models they are measured with; nothing of them is used in training."),
    ],
    generator: Annotated[
        list[str] | None,
        typer.Option(
            help="ConvL, ConvS, DeConvL, DeConvS, UNetL or UNetS. [default: ConvL,UNetL, as the paper]"
        ),
    ] = None,
    dataset: Annotated[str, typer.Option(help="cifar10, cifar100, gtsrb or digits.")] = "cifar10",
    train_bit_error_rate: Annotated[
        str, typer.Option(help="Share of failing cells in training, like 0.015 or 1.5%; several with commas.")
    ] = "0.015",
    test_bit_error_rate: Annotated[
        str, typer.Option(help="Share of failing cells in evaluation, like 0.01 or 1%; several with commas.")
    ] = "0.01,0.005",
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
    as_json: JsonOption = False,
) -> None:
    """Train generators for one base model and measure them with others, which stay black boxes.

    As in the paper, section 3.2. What the run directory lacks is trained and evaluated on 10 chips, as
    `faultsim reproduce` does it; both commands go on in each other's directories. Rows of the paper's Tables 2 and 11
    to 15 have their published values beside them. --source, --target and --generator take lists with commas and may be
    repeated. For a model behind an HTTP server or in an ONNX file see `faultsim evaluate-blackbox`.
    """
    from neuralfuse.paper.cells import FAULTS, transferred
    from neuralfuse.paper.rows import lines

    from . import accuracy_table
    from .reproduce import existing, run
    from .run_options import settings

    options = {
        "out": out, "data-dir": data_dir, "recipe": recipe, "trainer": trainer,
        "base-epochs": base_epochs, "epochs": epochs,
        "n-models": n_models, "batch-size": batch_size, "precision": precision, "learning-rate": learning_rate,
        "schedule": schedule, "average": average, "seed": seed, "device": device, "budget": budget, "plan": plan,
    }  # fmt: skip
    found_recipe, chosen = settings(options)
    wanted = transferred(
        dataset,
        names(source, "--source"),
        names(target, "--target"),
        names(generator, "--generator") or ["ConvL", "UNetL"],
        parse_numbers(train_bit_error_rate, "--train-bit-error-rate", rates=True),
        parse_numbers(test_bit_error_rate, "--test-bit-error-rate", rates=True),
        names(faults, "--faults") or FAULTS,
    )
    if show:
        for option, value in options.items():
            if option != "out" and value not in (None, False):
                raise FaultsimError(f"--{option} cannot be combined with --show, which computes nothing")
        existing(out)
    elif out is None:
        raise FaultsimError(
            "where shall models and results be kept? add --out RUN_DIR, or --show to see what there is"
        )
    elif not run({"transfer": wanted}, found_recipe, chosen, options):
        return
    found = lines(wanted, out, shipped=show)
    if as_json:
        print(accuracy_table.as_json({"transfer": found}))
    else:
        accuracy_table.show_lines(found)
