"""`faultsim train-generator`: a NeuralFuse generator for a base model."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import FaultsimError
from .options import (
    CapacityOption,
    CurveOption,
    DataDirOption,
    DeviceOption,
    FaultKindOption,
    PlacementOption,
    PolarityOption,
    PresetOption,
    ReadErrorOption,
    curve_of,
    fault_model,
    fraction,
    operating_point,
    percent,
)
from .options import device as device_named
from .run_options import TrainingBudgetOption, pace

if TYPE_CHECKING:
    from torch import nn

    from neuralfuse.staged import Staged
    from neuralfuse.training import Training


def train_generator(
    generator: Annotated[
        str,
        typer.Option(
            help="ConvL, ConvS, DeConvL, DeConvS, UNetL, UNetS, or ConvXS or ConvQ (not in the paper)."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The weight file to write (.safetensors).")],
    base: Annotated[
        list[Path] | None,
        typer.Option(
            help="Weight file of the base model. [default: that of --model; DigitsNet without] Repeat it to train "
            "with several, as surrogates of a model that cannot be reached: their losses are averaged.",
            show_default=False,
        ),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            help="Weight file of a generator to begin with, for instance of another voltage. [default: random weights]"
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="The base model: DigitsNet or DigitsVGG, which ship, or package.module:function."),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="digits, cifar10, cifar100 or gtsrb. [default: the base model's]")
    ] = None,
    data_dir: DataDirOption = None,
    trainer: Annotated[
        str,
        typer.Option(
            help="eopm (random bit errors on ever new chips), staged (first the classes, then a pattern for each, then "
            "EOPM: see below) or adversarial (the --flips worst bits of each step)."
        ),
    ] = "eopm",
    bit_error_rate: Annotated[
        float | None,
        typer.Option(
            parser=fraction, metavar="FRACTION", help="Share of failing cells to train for, like 0.01 or 1%."
        ),
    ] = None,
    voltage: Annotated[
        float | None, typer.Option(help="Instead of --bit-error-rate: voltage to train for, of --curve.")
    ] = None,
    fault_kind: FaultKindOption = None,
    placement: PlacementOption = None,
    preset: PresetOption = None,
    polarity: PolarityOption = None,
    read_error: ReadErrorOption = None,
    capacity: CapacityOption = None,
    curve: CurveOption = None,
    n_models: Annotated[
        int | None,
        typer.Option(help="N: perturbed models a step. [default: 10; staged: 5]", show_default=False),
    ] = None,
    divided: Annotated[
        bool | None,
        typer.Option(
            help="Each image of a step passes through one of the N + 1 models, not through all: the same loss in "
            "expectation for a fraction of the passes. [default: no; staged: yes]",
            show_default=False,
        ),
    ] = None,
    flips: Annotated[int | None, typer.Option(help="K: bits that adversarial training inverts.")] = None,
    weight: Annotated[float, typer.Option("--lambda", help="Weight of the perturbed loss.")] = 5.0,
    loss: Annotated[
        str | None,
        typer.Option(
            help="Of one answer: cross_entropy, as in the paper, or error_probability, 1 - p(y), which is bounded. "
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
            help="Of the learning rate: constant, or linear, to 0 in the last of --epochs. "
            "[default: constant; staged: linear]",
            show_default=False,
        ),
    ] = None,
    average: Annotated[
        float,
        typer.Option(
            help="Decay a step, like 0.998, of an average of the generator's weights that is the result; 0: none."
        ),
    ] = 0.0,
    batch_size: Annotated[
        int | None, typer.Option(help="Images of one step. [default: 256; staged: 96]", show_default=False)
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            help="At most; training stops when it has converged. [default: 100; staged: 2]",
            show_default=False,
        ),
    ] = None,
    classifier_epochs: Annotated[
        int | None, typer.Option(help="staged: of the first stage. [default: 20]", show_default=False)
    ] = None,
    pattern_epochs: Annotated[
        int | None,
        typer.Option(help="staged: of the search for class patterns. [default: 2]", show_default=False),
    ] = None,
    drawing_epochs: Annotated[
        int | None, typer.Option(help="staged: of drawing them. [default: 6]", show_default=False)
    ] = None,
    reuse: Annotated[
        Path | None,
        typer.Option(
            help="staged: folder of other generators trained in stages; a classifier with the same encoder and "
            "patterns for the same base model are taken from there. Their cost counts."
        ),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(
            help="float32 or bfloat16: of the matrix products. bfloat16 was slower on a CPU without AMX; "
            "'faultsim bench eopm --precision bfloat16' measures it."
        ),
    ] = "float32",
    in_flight: Annotated[
        int | None,
        typer.Option(
            help="Perturbed models that a GPU computes at once: fewer take less memory, and longer. [default: 4]",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of initial weights, order, augmentation and chips.")] = 0,
    budget: TrainingBudgetOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Train a NeuralFuse generator in front of a base model, which stays as it is.

    Training has converged when the mean loss of the last 1,000 steps (rounded up to whole epochs) is less than 0.5 %
    below that of as many steps before; with --schedule linear it takes all --epochs. The state is kept every minute in
    OUT.state.safetensors, the curve in OUT.log.jsonl; a run that was stopped goes on when it is started again with the
    same options (or, with a constant learning rate, more epochs).

    EOPM (the default) needs --bit-error-rate or --voltage, and so does --trainer staged, which takes a hundredth of
    its passes through the base model or less. Its stages: (1) the generator's encoder with a linear head learns the
    classes; (2) for each class a pattern is found that makes perturbed models answer this class whatever image lies
    under it; (3) the generator learns to draw the pattern of the image's class, without the base model; (4) EOPM, with
    --epochs, --batch-size, --n-models and so on. Small data sets are shown more often in (1) to (3) than the defaults
    say. The patterns are kept in OUT.patterns.safetensors ('faultsim patterns' draws them), the classifier of (1) in
    OUT.classifier.safetensors, how often both are right in the metadata of OUT.

    Adversarial training needs --flips K: at each step it inverts the K bits of the base model's weights that raise its
    loss on the batch most, to first order (Appendix L).

    Several processes share each step, on CPUs or with a GPU each:

    torchrun --nproc-per-node=2 -m faultsim train-generator OPTIONS

    The first process writes the files. Their number changes nothing but the order in which sums are rounded, so a run
    may go on with another one. On CPUs, set OMP_NUM_THREADS to the threads of one process (torchrun makes it 1). When
    one process fails all end, and a report by torchrun follows the line that says why.
    """
    import torch

    from neuralfuse import distributed
    from neuralfuse.staged import EOPM_STAGE, judge, train_staged
    from neuralfuse.stages import reusable, save_stages
    from neuralfuse.training import Base, Epoch, Training
    from neuralfuse.training import train_generator as train

    from ..conditions import Conditions
    from ..data import find_augmentation, load
    from ..io.checkpoint import save_weights
    from ..io.files import keep_apart
    from ..io.provenance import provenance
    from ..subject import load_subject
    from .training_log import report_epochs, report_stages

    if out.suffix != ".safetensors":
        raise FaultsimError(f"--out {out}: the name of a weight file must end in .safetensors")
    written = {"--out": out, "the state of --out": out.with_suffix(".state.safetensors")}
    keep_apart(written, {"--base": base, "--start": start, "--curve": curve})
    random = {
        "bit_error_rate": bit_error_rate,
        "voltage": voltage,
        "curve": curve,
        "fault_kind": fault_kind,
        "placement": placement,
        "preset": preset,
        "polarity": polarity,
        "read_error": read_error,
        "capacity": capacity,
        "n_models": n_models,
        "divided": divided,
        "in_flight": in_flight,
    }
    chosen = {
        "loss": loss,
        "learning_rate": learning_rate,
        "schedule": schedule,
        "batch_size": batch_size,
        "max_epochs": epochs,
    }
    training = Training(
        **(EOPM_STAGE if trainer == "staged" else {})
        | _errors(trainer, flips, random)
        | {name: value for name, value in chosen.items() if value is not None},
        weight=weight,
        average=average,
        precision=precision,
        seed=seed,
    )
    lengths = {"classifier": classifier_epochs, "patterns": pattern_epochs, "drawing": drawing_epochs}
    staged = _stages(trainer, training, lengths, reuse)
    with distributed.joined(device_named(device)) as (ranks, where):
        if budget is not None and ranks.count > 1:
            raise FaultsimError("--budget cannot be combined with several processes, whose clocks differ")
        if staged is not None and ranks.count > 1:
            raise FaultsimError("--trainer staged runs in one process: start it without torchrun")
        torch.manual_seed(seed)
        network, origin = _begin(generator, start)
        subjects = [
            load_subject(model, file, dataset, data_dir, where, per_channel=False) for file in base or [None]
        ]
        subject = subjects[0]
        if others := [other.network for other in subjects[1:]]:
            origin = {**origin, "surrogates": others}
        data = load(subject.dataset.name, "train", data_dir)
        common = {
            "augment": find_augmentation(data.name),
            "state": out.with_suffix(".state.safetensors"),
            "context": {"generator": generator, "base": subject.network, "device": where.type, **origin},
            "pace": pace(budget),
            "in_flight": in_flight,
        }
        bases = [Base(other.model, other.stored) for other in subjects]
        log = out.with_suffix(".log.jsonl")
        if staged is None:
            report = report_epochs(log, training.max_epochs, ranks.count)
            losses, cost = train(network, bases, data, training, report=report, ranks=ranks, **common)
            found = {"cost": cost.describe()}
        else:
            about = {
                "generator": generator,
                "dataset_fingerprint": data.fingerprint,
                "base": [other.network for other in subjects],
                "training": staged.describe(),
            }
            about = json.loads(json.dumps(about))
            outcome = train_staged(
                network,
                bases,
                data,
                staged,
                report=report_stages(log, staged, len(data)),
                **({} if reuse is None else reusable(reuse, out, about)),
                **common,
            )
            losses = [Epoch(**entry) for entry in outcome.curves["eopm"]]
            found = judge(outcome, bases[0], subject.dataset, staged)
    if not ranks.first:
        return
    metadata = {
        "generator": generator,
        "dataset": data.name,
        "dataset_fingerprint": data.fingerprint,
        "base": subject.network,
        "training": (staged or training).describe(),
        **origin,
        **found,
        "epochs": len(losses),
        "losses": vars(losses[-1]),
        "world_size": ranks.count,
        "memory": subject.stored.share.as_dict(),
        **provenance(str(where)),
    }
    if staged is not None:
        save_stages(
            out,
            outcome,
            about | {"dataset": data.name, "class_names": data.class_names} | provenance(str(where)),
            found,
        )
    save_weights(out, network, metadata)
    against = "" if flips is None else f"against {flips:,} bit flips"
    if flips is None:
        conditions = Conditions(training.faults, curve_of(voltage, curve), share=subject.stored.share)
        against = f"at bit error rate {percent(training.bit_error_rate)} ({conditions})"
    print(
        f"{generator} for {subject.name} on {data.name} {against}: "
        f"loss {losses[-1].loss:.4f} after {len(losses)} epochs, written to {out}"
    )
    print(subject.stored.share)


def _stages(
    trainer: str, training: "Training", lengths: dict[str, int | None], reuse: Path | None
) -> "Staged | None":
    """How a generator is trained in stages of these numbers of epochs; FaultsimError for what other trainers lack."""
    from neuralfuse.staged import Staged

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


def _begin(name: str, start: Path | None) -> "tuple[nn.Module, dict[str, Any]]":
    """The generator as training begins with it, and what its metadata says of that: with a file "start", how that was
    trained. FaultsimError for a file that holds another architecture."""
    from neuralfuse import generators
    from neuralfuse.files import read_generator

    if start is None:
        return generators.create(name), {}
    saved = read_generator(start)
    found, network, _, trained = saved
    if found != name:
        raise FaultsimError(
            f"--start {start} holds {found}: begin with a {name}, or train --generator {found}"
        )
    told = ("training", "epochs", "dataset_fingerprint", "start", "commit", "device", "date")
    known = {key: trained[key] for key in told if key in trained}
    return network, {"start": {"weights": saved.fingerprint, **known}}


def _errors(trainer: str, flips: int | None, random: dict[str, Any]) -> dict[str, Any]:
    """The part of Training that says which bit errors there are, from --flips and the options of random ones;
    FaultsimError for those of the other trainer."""
    from neuralfuse.training import TRAINERS

    if trainer not in TRAINERS:
        *first, last = TRAINERS
        raise FaultsimError(f"unknown trainer {trainer!r}: it can be {', '.join(first)} or {last}")
    if trainer == "adversarial":
        for name, value in random.items():
            if value is not None:
                option = "--" + name.replace("_", "-")
                raise FaultsimError(
                    f"{option} cannot be combined with trainer adversarial, which takes the worst bits: leave it out"
                )
        if flips is None:
            raise FaultsimError("how many bits are inverted? add --flips, for instance 1000")
        return {"flips": flips}
    if flips is not None:
        raise FaultsimError("--flips cannot be combined with trainer eopm: add --trainer adversarial")
    volts, rate = operating_point(random["voltage"], random["bit_error_rate"], random["curve"])
    words = ("fault_kind", "placement", "preset", "polarity", "read_error", "capacity")
    found = {
        "bit_error_rate": rate,
        "voltage": volts,
        "faults": fault_model(*(random[word] for word in words)),
    }
    return found | {name: random[name] for name in ("n_models", "divided") if random[name] is not None}
