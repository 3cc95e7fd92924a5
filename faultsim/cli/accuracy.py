"""`faultsim reproduce table1|table9|table10`: the missing steps, one after the other, in a run directory."""

import contextlib
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import FaultsimError

if TYPE_CHECKING:
    import torch

    from neuralfuse.reproduce.accuracy import Step
    from neuralfuse.results import Result

    from .subject import Subject

BATCH_SIZE = 256  # of evaluation


@dataclass(frozen=True)
class Settings:
    """How everything in a run directory is trained; a directory is refused when they are other than its own."""

    base_epochs: int | None  #: of base models; None: the recipe's
    epochs: int  #: of generators, at most
    n_models: int
    precision: str
    seed: int

    def check(self, recipe: str) -> None:
        """Raises FaultsimError now for what training would refuse hours later."""
        from neuralfuse.eopm import PRECISIONS

        from ..train import recipe as recipe_named

        recipe_named(recipe, "cifar10", self.base_epochs)
        for option, value in (("epochs", self.epochs), ("n-models", self.n_models)):
            if value < 1:
                raise FaultsimError(f"--{option} {value}: at least 1 is needed")
        if self.precision not in PRECISIONS:
            raise FaultsimError(f"unknown precision {self.precision!r}: it can be {' or '.join(PRECISIONS)}")
        if not 0 <= self.seed < 2**31:
            raise FaultsimError(f"--seed {self.seed} must be from 0 to 2**31 - 1")


def say(planned: "list[Step]", todo: "list[Step]") -> None:
    """What is there and what is missing, on stderr."""
    done = sum(step.file.exists() for step in planned)
    print(f"{done} of {len(planned)} steps are done, {len(todo)} are missing", file=sys.stderr)
    for number, step in enumerate(todo, 1):
        print(f"  {number}. {step.description} -> {step.file.name}", file=sys.stderr)


def carry_out(
    planned: "list[Step]", directory: Path, settings: Settings, data_dir: Path | None, device: str
) -> None:
    """Does the steps of a plan that are missing, each of which can be killed and goes on when it is asked for again.

    One run at a time owns the directory. Progress goes to stderr. Raises FaultsimError when the directory is in use,
    or holds a run with other settings or files that don't belong together.
    """
    from neuralfuse.reproduce.accuracy import Kind, missing

    from ..provenance import provenance
    from ..results import RunDirectory
    from .options import device as device_named

    where = device_named(device)
    actions: dict[Kind, Callable[[Step], None]] = {
        Kind.BASE: lambda step: _train_base(step, settings, data_dir, device),
        Kind.UNPROTECTED: lambda step: _evaluate(step, data_dir, where),
        Kind.GENERATOR: lambda step: _train_generator(step, settings, data_dir, device, where),
        Kind.RESULT: lambda step: _evaluate(step, data_dir, where),
    }
    with RunDirectory(directory, "reproduce", asdict(settings), ()) as run:
        _clear(directory, [kind.value for kind in Kind])
        run.begin(provenance(str(where)))
        todo = missing(planned)
        say(planned, todo)
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for the table
            for number, step in enumerate(todo, 1):
                print(f"[{number}/{len(todo)}] {step.description}", flush=True)
                actions[step.kind](step)


def _clear(directory: Path, kinds: list[str]) -> None:
    """Removes what a run that was killed in the middle of writing left behind."""
    for kind in kinds:
        for left in directory.glob(f".{kind}-*"):
            with contextlib.suppress(OSError):
                left.unlink()


def _train_base(step: "Step", settings: Settings, data_dir: Path | None, device: str) -> None:
    from .train import train_base

    train_base(
        model=step.cell.base,
        out=step.file,
        dataset=step.cell.dataset,
        data_dir=data_dir,
        recipe=step.recipe,
        epochs=settings.base_epochs,
        seed=settings.seed,
        device=device,
    )


def _train_generator(
    step: "Step", settings: Settings, data_dir: Path | None, device: str, where: "torch.device"
) -> None:
    from .generator import train_generator

    subject = _base(step, data_dir, where)
    train_generator(
        generator=step.cell.generator,
        out=step.file,
        base=_base_file(step),
        dataset=subject.dataset.name,
        data_dir=data_dir,
        bit_error_rate=step.cell.bit_error_rate,
        preset=step.cell.faults,
        n_models=settings.n_models,
        epochs=settings.epochs,
        precision=settings.precision,
        seed=settings.seed,
        device=device,
    )


def _base_file(step: "Step") -> Path:
    from neuralfuse.reproduce.accuracy import Kind

    return step.sibling(Kind.BASE)


def _base(step: "Step", data_dir: Path | None, where: "torch.device") -> "Subject":
    """The base model of a step, which may have been trained elsewhere and put there."""
    from ..checkpoint import read_file
    from .subject import load_subject

    file = _base_file(step)
    trained = read_file(file)[1]
    recipe = trained.get("recipe")
    name = recipe.get("name") if isinstance(recipe, dict) else None
    found = (trained.get("model"), trained.get("dataset"), str(name).split(",")[0])
    wanted = (step.cell.base, step.cell.dataset, step.recipe)
    if found != wanted:
        raise FaultsimError(
            f"{file} holds {found[0]} on {found[1]}, recipe {found[2]}, where {wanted[0]} on {wanted[1]}, recipe "
            f"{wanted[2]}, should be: move it away"
        )
    return load_subject(None, file, None, data_dir, where, batch_size=BATCH_SIZE)


def _evaluate(step: "Step", data_dir: Path | None, where: "torch.device") -> None:
    """Measures the base model, alone (an unprotected step) or behind its generator, and writes the step's file."""
    from neuralfuse.reproduce.accuracy import CHIPS, Kind
    from neuralfuse.results import ALONE, FUSED, Result, read

    from ..evaluation import evaluate
    from ..faults import FaultModel, evaluation_chips
    from ..files import write_text
    from ..provenance import provenance
    from ..results import without_nan

    began = time.monotonic()
    faults, chips = FaultModel.preset(step.cell.faults), evaluation_chips(0, CHIPS)
    subject = _base(step, data_dir, where)
    base, base_origin = _known(
        subject.trained, ("recipe", "seed", "dataset_fingerprint"), subject.network["weights"]
    )
    alone = Result(
        replace(step.cell, generator=None),
        len(subject.dataset),
        {},
        {
            "base": base,
            "faults": faults.describe(),
            "chips": [chip.seed for chip in chips],
            "images_fingerprint": subject.dataset.fingerprint,
            "batch_size": BATCH_SIZE,
            "device": where.type,
        },
        {"base": base_origin},
    )

    def counts(parts: tuple[str, str], transform: "torch.nn.Module | None") -> dict[str, list[int]]:
        rates = zip(parts, ((0.0, chips[:1]), (step.cell.bit_error_rate, chips)), strict=True)
        return {
            part: list(
                evaluate(
                    subject.model,
                    subject.data,
                    on,
                    bit_error_rate=rate,
                    faults=faults,
                    stored=subject.stored,
                    transform=transform,
                ).correct
            )
            for part, (rate, on) in rates
        }

    if step.kind is Kind.UNPROTECTED:
        result = replace(alone, correct=counts(ALONE, None))
    else:
        unprotected = read(step.sibling(Kind.UNPROTECTED))
        ours = {key: alone.configuration[key] for key in ("base", "faults", "chips", "images_fingerprint")}
        if any(unprotected.configuration.get(key) != value for key, value in ours.items()):
            raise FaultsimError(
                f"{step.sibling(Kind.UNPROTECTED)} was measured with another base model, chips or images: move it away"
            )
        fuse, generator, origin = _generator(step, subject, where)
        result = replace(
            alone,
            cell=step.cell,
            correct=unprotected.correct | counts(FUSED, fuse),
            configuration=alone.configuration | {"generator": generator},
            provenance=alone.provenance
            | {"generator": origin, "unprotected": _origin(unprotected.provenance)},
        )
    seconds = round(time.monotonic() - began, 1)
    result = replace(result, provenance=provenance(str(where)) | {"seconds": seconds} | result.provenance)
    write_text(step.file, replace(result, configuration=without_nan(result.configuration)).text())
    print(_outcome(result), flush=True)


def _generator(
    step: "Step", subject: "Subject", where: "torch.device"
) -> "tuple[torch.nn.Module, dict, dict]":
    """(F, configuration, provenance) of the generator of a step; FaultsimError for one that was trained for something
    else."""
    from neuralfuse.reproduce.accuracy import Kind

    from ..checkpoint import read_file
    from ..faults import FaultModel
    from .subject import load_generator

    file = step.sibling(Kind.GENERATOR)
    trained = read_file(file)[1]
    variant, weights = load_generator(file, where, tuple(subject.dataset.images.shape[1:]))
    training, base = trained.get("training", {}), trained.get("base", {})
    found = (
        trained["generator"],
        training.get("bit_error_rate"),
        training.get("faults"),
        base.get("weights"),
    )
    faults = FaultModel.preset(step.cell.faults).describe()
    wanted = (step.cell.generator, step.cell.bit_error_rate, faults, subject.network["weights"])
    for what, ours, theirs in zip(
        ("architecture", "bit error rate", "fault model", "base model"), wanted, found, strict=True
    ):
        if ours != theirs:
            raise FaultsimError(f"{file} was trained with another {what}: move it away")
    return variant.transform, *_known(trained, ("training", "epochs", "dataset_fingerprint"), weights)


def _known(trained: dict, keys: tuple[str, ...], weights: str) -> tuple[dict, dict]:
    """(configuration, provenance) that the metadata of a weight file tells."""
    missing = [key for key in (*keys, "date", "device") if key not in trained]
    if missing:
        raise FaultsimError(f"a weight file doesn't say its {missing[0]}: was it trained with faultsim?")
    return {key: trained[key] for key in keys} | {"weights": weights}, _origin(trained)


def _origin(information: dict) -> dict:
    return {key: information.get(key) for key in ("commit", "device", "date", "versions")}


def _outcome(result: "Result") -> str:
    alone = f"C.A. {result.mean('clean'):.2f} %, P.A. {result.mean('perturbed'):.2f} %"
    if result.cell.generator is None:
        return alone
    return (
        f"{alone}, C.A.+N.F. {result.mean('clean_fused'):.2f} %, P.A.+N.F. {result.mean('perturbed_fused'):.2f} %, "
        f"IP {result.improvement:+.2f}"
    )
