"""`faultsim train-generator`: a NeuralFuse generator for a base model."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import FaultsimError
from ..show.units import format_percent
from .option_groups import FaultOptions, FormatOptions, PointOptions, expand_options
from .options import DataDirOption, DeviceOption
from .run_options import TrainingBudgetOption, pace, say
from .trainer_options import TrainerOptions


@expand_options
def train_generator(
    *,
    generator: Annotated[
        str,
        typer.Option(
            help="ConvL, ConvS, DeConvL, DeConvS, UNetL, UNetS, or ConvXS, ConvQ or ConvQS (not in the paper)."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The weight file to write (.safetensors).")],
    point: PointOptions,
    faults: FaultOptions,
    stored: FormatOptions,
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
    how: TrainerOptions,
    budget: TrainingBudgetOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Train a NeuralFuse generator for a base model.

    The base model is frozen.

    Training stops when it has converged: when the mean loss of the last 1,000 steps (rounded up to whole epochs) is
    less than 0.5 % below that of the 1,000 steps before. With --schedule linear it takes all --epochs. The training
    writes its state to OUT.state.safetensors every minute, and the losses to OUT.log.jsonl. Start it again with the
    same options (with a constant learning rate, more epochs are allowed) to continue after an interruption.

    EOPM (the default) and the trainers staged and lookup need --bit-error-rate or --voltage. Staged training needs a
    hundredth of EOPM's passes through the base model, or less. Its stages: (1) The generator's encoder with a linear
    head learns the classes. (2) For each class, a search finds a pattern that makes perturbed models predict this class
    for any image. (3) The generator learns to draw the pattern of the image's class, without the base model. (4) EOPM,
    with --epochs, --batch-size, --n-models and so on. Stages 1 to 3 repeat a small dataset more often than the defaults
    say. The patterns are written to OUT.patterns.safetensors ('faultsim patterns' draws them), the classifier of stage
    1 to OUT.classifier.safetensors, and the accuracy of both to the metadata of OUT.

    --trainer lookup ends after stage 2. OUT then has no decoder: it is this classifier with the patterns, and adds the
    pattern of the class that it recognizes. On VGG11 this was better than drawing. 'faultsim make-lookup OUT
    --confidence 0.6' makes one that leaves an image as it is where it doubts.

    --bits and --format say what the base model's weights are in the memory; the generator's are int8.

    Adversarial training needs --flips K: at every step it inverts the K bits of the base model's weights that raise
    its loss on the batch most, to first order (the paper, Appendix L).

    Several processes can share each step, on CPUs or with one GPU each:

    torchrun --nproc-per-node=2 -m faultsim train-generator OPTIONS

    The first process writes the files. The number of processes changes only the order in which sums are rounded, so a
    training can continue with another number. On CPUs, set OMP_NUM_THREADS to the threads of one process (torchrun's
    default is 1). If one process fails, all of them end, and a report by torchrun follows the error message.
    """
    from neuralfuse import distributed
    from neuralfuse.to_file import summarize, train

    from ..io.files import keep_apart
    from ..kernel.devices import choose_device
    from ..studies.conditions import Conditions
    from ..studies.subject import Subject, load_subject
    from ..training.to_file import check_weight_path

    check_weight_path(out)
    written = {"--out": out, "the state of --out": out.with_suffix(".state.safetensors")}
    keep_apart(written, {"--base": base, "--start": start, "--curve": point.curve})
    training = how.training(point, faults)
    staged = how.staged(training)
    held = stored.chosen()
    with distributed.join(choose_device(device)) as (ranks, where):
        if budget is not None and ranks.count > 1:
            raise FaultsimError("--budget cannot be combined with several processes, whose clocks differ")
        subjects: list[Subject] = []

        def load_bases() -> list[Subject]:
            for file in base or [None]:
                subjects.append(load_subject(model, file, dataset, data_dir, where, format=held))
            return subjects

        metadata = train(
            out,
            generator,
            load_bases,
            staged or training,
            data_dir=data_dir,
            start=start,
            reuse=how.reuse,
            pace=pace(budget),
            in_flight=how.in_flight,
            ranks=ranks,
            report=say,
        )
    if not ranks.first:
        return
    subject = subjects[0]
    if how.flips is not None:
        against = f"against {how.flips:,} bit flips"
    else:
        memory = subject.stored
        conditions = Conditions(
            training.faults, point.voltage_curve(), share=memory.share, format=memory.format
        )
        against = f"at bit error rate {format_percent(training.bit_error_rate)} ({conditions})"
    print(
        f"{generator} for {subject.name} on {metadata['dataset']} {against}: {summarize(metadata)}, written to {out}"
    )
    print(subject.stored.share)
