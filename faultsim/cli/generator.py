"""`faultsim train-generator`: a NeuralFuse generator for a base model."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import FaultsimError
from ..show.units import format_percent
from .option_groups import FaultOptions, PointOptions, expand_options
from .options import DataDirOption, DeviceOption
from .options import device as device_named
from .run_options import TrainingBudgetOption, pace, say

if TYPE_CHECKING:
    from neuralfuse.stages import Staged
    from neuralfuse.training import Training


@expand_options
def train_generator(
    generator: Annotated[
        str,
        typer.Option(
            help="ConvL, ConvS, DeConvL, DeConvS, UNetL, UNetS, or ConvXS or ConvQ (not in the paper)."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The weight file to write (.safetensors).")],
    point: PointOptions,
    faults: FaultOptions,
    base: Annotated[
        list[Path] | None,
        typer.Option(
            help="Base model weights. [default: the bundled weights of --model] Repeat the option to train with "
            "several base models as surrogates of a model that cannot be reached; their losses are averaged.",
            show_default=False,
        ),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            help="Start from this generator, for instance of another voltage. [default: random initialization]",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="The base model: DigitsNet or DigitsVGG, which are bundled, or package.module:function. "
            "[default: the model that --base names, else DigitsNet]",
            show_default=False,
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="digits, cifar10, cifar100 or gtsrb. [default: the base model's]", show_default=False
        ),
    ] = None,
    data_dir: DataDirOption = None,
    trainer: Annotated[
        str,
        typer.Option(
            help="eopm (random bit errors, new chips at every step), staged (classes, then a pattern for each class, "
            "then EOPM: see below) or adversarial (the --flips worst bits of every step)."
        ),
    ] = "eopm",
    n_models: Annotated[
        int | None,
        typer.Option(help="N: perturbed models per step. [default: 10; staged: 5]", show_default=False),
    ] = None,
    divided: Annotated[
        bool | None,
        typer.Option(
            help="Pass each image of a step through one of the N + 1 models only: the same expected loss for a "
            "fraction of the passes. [default: no; staged: yes]",
            show_default=False,
        ),
    ] = None,
    flips: Annotated[int | None, typer.Option(help="K: bits that adversarial training inverts.")] = None,
    weight: Annotated[float, typer.Option("--lambda", help="Weight of the perturbed loss.")] = 5.0,
    loss: Annotated[
        str | None,
        typer.Option(
            help="Loss per image: cross_entropy, as in the paper, or error_probability, 1 - p(y), which is bounded. "
            "[default: cross_entropy; staged: error_probability]",
            show_default=False,
        ),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(help="Learning rate of Adam. [default: 0.001]", show_default=False),
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(
            help="Learning rate schedule: constant, or linear to 0 at the end of --epochs. "
            "[default: constant; staged: linear]",
            show_default=False,
        ),
    ] = None,
    average: Annotated[
        float,
        typer.Option(
            help="Decay per step, like 0.998, of a moving average of the generator's weights, which is the result; "
            "0: no average."
        ),
    ] = 0.0,
    batch_size: Annotated[
        int | None, typer.Option(help="Images per step. [default: 256; staged: 96]", show_default=False)
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Largest number of epochs; training stops earlier when it has converged. "
            "[default: 100; staged: 2]",
            show_default=False,
        ),
    ] = None,
    classifier_epochs: Annotated[
        int | None, typer.Option(help="staged: epochs of stage 1. [default: 20]", show_default=False)
    ] = None,
    pattern_epochs: Annotated[
        int | None, typer.Option(help="staged: epochs of stage 2. [default: 2]", show_default=False)
    ] = None,
    drawing_epochs: Annotated[
        int | None, typer.Option(help="staged: epochs of stage 3. [default: 6]", show_default=False)
    ] = None,
    reuse: Annotated[
        Path | None,
        typer.Option(
            help="staged: folder with generators trained in stages. A classifier of the same encoder and patterns for "
            "the same base model are taken from there; their cost is added."
        ),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(
            help="Precision of matrix products: float32 or bfloat16. bfloat16 was slower on a CPU without AMX; "
            "'faultsim bench eopm --precision bfloat16' measures it."
        ),
    ] = "float32",
    in_flight: Annotated[
        int | None,
        typer.Option(
            help="Perturbed models that a GPU computes at once; fewer need less memory and more time. [default: 4]",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of initial weights, order, augmentation and chips.")] = 0,
    budget: TrainingBudgetOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Train a NeuralFuse generator in front of a frozen base model.

    Training stops when it has converged: when the mean loss of the last 1,000 steps (rounded up to whole epochs) is
    less than 0.5 % below that of the 1,000 steps before. With --schedule linear it takes all --epochs. The training
    writes its state to OUT.state.safetensors every minute, and the losses to OUT.log.jsonl. Start it again with the
    same options (with a constant learning rate, more epochs are allowed) to continue after an interruption.

    EOPM (the default) and --trainer staged need --bit-error-rate or --voltage. Staged training needs a hundredth of
    EOPM's passes through the base model, or less. Its stages: (1) The generator's encoder with a linear head learns the
    classes. (2) For each class, a search finds a pattern that makes perturbed models predict this class for any image.
    (3) The generator learns to draw the pattern of the image's class, without the base model. (4) EOPM, with --epochs,
    --batch-size, --n-models and so on. Stages 1 to 3 repeat a small dataset more often than the defaults say. The
    patterns are written to OUT.patterns.safetensors ('faultsim patterns' draws them), the classifier of stage 1 to
    OUT.classifier.safetensors, and the accuracy of both to the metadata of OUT.

    Adversarial training needs --flips K: at every step it inverts the K bits of the base model's weights that raise
    its loss on the batch most, to first order (the paper, Appendix L).

    Several processes can share each step, on CPUs or with one GPU each:

    torchrun --nproc-per-node=2 -m faultsim train-generator OPTIONS

    The first process writes the files. The number of processes changes only the order in which sums are rounded, so a
    training can continue with another number. On CPUs, set OMP_NUM_THREADS to the threads of one process (torchrun's
    default is 1). If one process fails, all of them end, and a report by torchrun follows the error message.
    """
    from neuralfuse import distributed
    from neuralfuse.stages import EOPM_STAGE
    from neuralfuse.to_file import train
    from neuralfuse.training import Training

    from ..conditions import Conditions
    from ..io.files import keep_apart
    from ..subject import Subject, load_subject
    from ..training.to_file import check_weight_path

    check_weight_path(out)
    written = {"--out": out, "the state of --out": out.with_suffix(".state.safetensors")}
    keep_apart(written, {"--base": base, "--start": start, "--curve": point.curve})
    other = {"n_models": n_models, "divided": divided, "in_flight": in_flight}
    chosen = {
        "loss": loss,
        "learning_rate": learning_rate,
        "schedule": schedule,
        "batch_size": batch_size,
        "max_epochs": epochs,
    }
    training = Training(
        **(EOPM_STAGE if trainer == "staged" else {})
        | _errors(trainer, flips, point, faults, other)
        | {name: value for name, value in chosen.items() if value is not None},
        weight=weight,
        average=average,
        precision=precision,
        seed=seed,
    )
    lengths = {"classifier": classifier_epochs, "patterns": pattern_epochs, "drawing": drawing_epochs}
    staged = _stages(trainer, training, lengths, reuse)
    with distributed.join(device_named(device)) as (ranks, where):
        if budget is not None and ranks.count > 1:
            raise FaultsimError("--budget cannot be combined with several processes, whose clocks differ")
        subjects: list[Subject] = []

        def load_bases() -> list[Subject]:
            for file in base or [None]:
                subjects.append(load_subject(model, file, dataset, data_dir, where))
            return subjects

        metadata = train(
            out,
            generator,
            load_bases,
            staged or training,
            data_dir=data_dir,
            start=start,
            reuse=reuse,
            pace=pace(budget),
            in_flight=in_flight,
            ranks=ranks,
            report=say,
        )
    if not ranks.first:
        return
    subject = subjects[0]
    if flips is not None:
        against = f"against {flips:,} bit flips"
    else:
        conditions = Conditions(training.faults, point.voltage_curve(), share=subject.stored.share)
        against = f"at bit error rate {format_percent(training.bit_error_rate)} ({conditions})"
    print(
        f"{generator} for {subject.name} on {metadata['dataset']} {against}: loss {metadata['losses']['loss']:.4f} "
        f"after {metadata['epochs']} epochs, written to {out}"
    )
    print(subject.stored.share)


def _stages(
    trainer: str, training: "Training", lengths: dict[str, int | None], reuse: Path | None
) -> "Staged | None":
    """Return the staged training with these numbers of epochs; FaultsimError for options that need --trainer staged."""
    from neuralfuse.stages import Staged

    options = {
        "classifier": "--classifier-epochs",
        "patterns": "--pattern-epochs",
        "drawing": "--drawing-epochs",
    }
    given = {name: epochs for name, epochs in lengths.items() if epochs is not None}
    if trainer != "staged":
        for option in [*(options[name] for name in given), *(["--reuse"] if reuse else [])]:
            raise FaultsimError(f"{option} needs --trainer staged")
        return None
    if reuse is not None and not reuse.is_dir():
        raise FaultsimError(f"--reuse {reuse} is no folder")
    staged = Staged(training)
    stages = {name: replace(getattr(staged, name), epochs=epochs, steps=0) for name, epochs in given.items()}
    return replace(staged, **stages)


def _errors(
    trainer: str, flips: int | None, point: PointOptions, faults: FaultOptions, other: dict[str, Any]
) -> dict[str, Any]:
    """Return the arguments of Training that say which bit errors it uses; FaultsimError for options of another trainer.

    `other` holds the other options that only EOPM has.
    """
    from neuralfuse.training import TRAINERS

    if trainer not in TRAINERS:
        *first, last = TRAINERS
        raise FaultsimError(f"unknown trainer {trainer!r}: it can be {', '.join(first)} or {last}")
    if trainer == "adversarial":
        for name, value in {**vars(point), **vars(faults), **other}.items():
            if value is not None:
                raise FaultsimError(
                    f"--{name.replace('_', '-')} cannot be combined with --trainer adversarial; remove it"
                )
        if flips is None:
            raise FaultsimError("how many bits are inverted? add --flips, for instance 1000")
        return {"flips": flips}
    if flips is not None:
        raise FaultsimError(f"--flips cannot be combined with --trainer {trainer}: add --trainer adversarial")
    volts, rate = point.point()
    found = {"bit_error_rate": rate, "voltage": volts, "faults": faults.fault_model()}
    return found | {name: other[name] for name in ("n_models", "divided") if other[name] is not None}
