"""`faultsim reproduce`: the missing steps of a plan, one after the other, in a run directory."""

import contextlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import FaultsimError

if TYPE_CHECKING:
    import torch

    from neuralfuse.reproduce.plan import Step
    from neuralfuse.results import Cell, Result

    from .subject import Subject

BATCH_SIZE = 256  # of evaluation


@dataclass(frozen=True)
class Settings:
    """How everything in a run directory is trained; a directory is refused when they are other than its own."""

    base_epochs: int | None  #: of base models; None: the recipe's
    epochs: int  #: of generators, at most
    n_models: int
    batch_size: int  #: of generators
    precision: str
    seed: int

    def check(self, recipe: str) -> None:
        """Raises FaultsimError now for what training would refuse hours later."""
        from neuralfuse.objective import PRECISIONS

        from ..train import recipe as recipe_named

        recipe_named(recipe, "cifar10", self.base_epochs)
        for option in ("epochs", "n_models", "batch_size"):
            value = getattr(self, option)
            if value < 1:
                raise FaultsimError(f"--{option.replace('_', '-')} {value}: at least 1 is needed")
        if self.precision not in PRECISIONS:
            raise FaultsimError(f"unknown precision {self.precision!r}: it can be {' or '.join(PRECISIONS)}")
        if not 0 <= self.seed < 2**31:
            raise FaultsimError(f"--seed {self.seed} must be from 0 to 2**31 - 1")


@dataclass
class Clock:
    """How long steps take: their operations over the device's speed, which every finished step corrects."""

    settings: Settings
    speed: float  #: multiply-accumulate operations a second
    expected: float = 0.0
    taken: float = 0.0

    @classmethod
    def of(cls, settings: Settings, where: "torch.device") -> "Clock":
        from neuralfuse.reproduce.cost import operations_per_second

        return cls(settings, operations_per_second(where, settings.precision))

    def seconds(self, step: "Step") -> float:
        """Of what is left of a step; of training, at most."""
        from neuralfuse.reproduce.cost import operations
        from neuralfuse.reproduce.plan import Kind

        from ..train import recipe

        base_epochs = recipe(step.recipe, step.cell.dataset, self.settings.base_epochs).epochs
        work = operations(
            step, base_epochs=base_epochs, epochs=self.settings.epochs, n_models=self.settings.n_models
        )
        if step.kind in (Kind.BASE, Kind.GENERATOR):
            log = step.file.with_suffix(".log.jsonl")
            done = len(log.read_text(encoding="utf-8").splitlines()) if log.exists() else 0
            work *= max(0.0, 1 - done / (base_epochs if step.kind is Kind.BASE else self.settings.epochs))
        # estimates of less than a minute say nothing about how fast this machine is
        correction = self.taken / self.expected if self.expected > 60 else 1.0
        return work / self.speed * correction

    def learn(self, expected: float, taken: float) -> None:
        """From a step that was done; `expected` as seconds() had it."""
        correction = self.taken / self.expected if self.expected > 60 else 1.0
        self.expected += expected / correction
        self.taken += taken


def say(planned: "Sequence[Step]", todo: "Sequence[Step]", clock: Clock | None = None) -> None:
    """What is there and what is missing, on stderr; with a clock, how long it will take."""
    from neuralfuse.reproduce.cost import duration

    done = sum(step.file.exists() for step in planned)
    seconds = [clock.seconds(step) for step in todo] if clock else []
    cost = f", at most {duration(sum(seconds))} on this device" if seconds else ""
    print(f"{done} of {len(planned)} steps are done, {len(todo)} are missing{cost}", file=sys.stderr)
    for number, step in enumerate(todo):
        cost = f" ({duration(seconds[number])})" if seconds else ""
        print(f"  {number + 1}. {step.description}{cost} -> {step.file.name}", file=sys.stderr)


def carry_out(
    planned: "Sequence[Step]",
    directory: Path,
    settings: Settings,
    data_dir: Path | None,
    device: str,
    *,
    wanted: "Mapping[Cell, int] | None" = None,
    budget: float | None = None,
) -> None:
    """Does the steps of a plan that are missing, each of which can be killed and goes on when it is asked for again.

    With a budget, in seconds, those to the results that are wanted most for their time (`wanted` says how often), as
    long as they fit. One run at a time owns the directory. Progress goes to stderr. Raises FaultsimError when the
    directory is in use, or holds a run with other settings or files that don't belong together.
    """
    from neuralfuse.reproduce.plan import Kind, missing

    from ..provenance import provenance
    from ..results import RunDirectory
    from .options import device as device_named

    where = device_named(device)
    began = time.monotonic()
    actions: dict[Kind, Callable[[Step], None]] = {
        Kind.BASE: lambda step: _train_base(step, settings, data_dir, device),
        Kind.UNPROTECTED: lambda step: _evaluate(step, data_dir, where),
        Kind.GENERATOR: lambda step: _train_generator(step, settings, data_dir, device, where),
        Kind.RESULT: lambda step: _evaluate(step, data_dir, where),
        Kind.OUTPUTS: lambda step: _keep_outputs(step, data_dir, where),
    }
    with RunDirectory(directory, "reproduce", asdict(settings), ()) as run:
        _clear(directory, [kind.value for kind in Kind])
        run.begin(provenance(str(where)))
        todo = missing(planned)
        clock = Clock.of(settings, where) if todo else None
        say(planned, todo, clock)
        total, number = len(todo), 0
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for the table
            while todo:
                if budget is not None:
                    todo = _affordable(planned, wanted or {}, clock, budget - (time.monotonic() - began))
                for step in todo:
                    number += 1
                    print(f"[{number}/{total}] {step.description}", flush=True)
                    expected, started = clock.seconds(step), time.monotonic()
                    actions[step.kind](step)
                    clock.learn(expected, time.monotonic() - started)
                if budget is None:
                    break


def _affordable(
    planned: "Sequence[Step]", wanted: "Mapping[Cell, int]", clock: Clock, left: float
) -> "list[Step]":
    """The steps that the rest of a budget goes to next. Says why when there are none."""
    from neuralfuse.reproduce.cost import duration, most_valuable
    from neuralfuse.reproduce.plan import missing

    found = most_valuable(planned, wanted, clock.seconds, left)
    if not found and missing(planned):
        cheapest = most_valuable(planned, {}, clock.seconds, float("inf"))
        needed = sum(clock.seconds(step) for step in cheapest)
        print(
            f"{duration(max(left, 0))} of the budget are left: the cheapest missing result, "
            f"{cheapest[-1].description}, takes up to {duration(needed)}"
        )
    return found


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
    wanted = step.cell.generator
    if wanted.flips is None:
        how = {
            "bit_error_rate": wanted.bit_error_rate,
            "preset": step.cell.faults,
            "n_models": wanted.n_models or settings.n_models,
        }
    else:
        how = {"trainer": "adversarial", "flips": wanted.flips}
    train_generator(
        generator=wanted.name,
        out=step.file,
        base=_base_file(step),
        dataset=subject.dataset.name,
        data_dir=data_dir,
        **how,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        precision=settings.precision,
        seed=settings.seed,
        device=device,
    )


def _base_file(step: "Step") -> Path:
    from neuralfuse.reproduce.plan import Kind

    return step.sibling(Kind.BASE)


def _source(step: "Step", data_dir: Path | None, where: "torch.device") -> "Subject":
    """The base model that the generator of a step was trained for."""
    return _base(replace(step, cell=step.cell.trained()), data_dir, where)


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


def _keep_outputs(step: "Step", data_dir: Path | None, where: "torch.device") -> None:
    """Writes the last layer's outputs for the first test images, on the first chip; see
    neuralfuse.reproduce.figures."""
    import numpy as np
    import torch

    from neuralfuse.reproduce.figures import OUTPUT_IMAGES, OUTPUTS

    from ..faults import FaultModel, evaluation_chips
    from ..files import write_atomically
    from ..inject import perturbed

    subject = _base(step, data_dir, where)
    fuse = _generator(step, subject, data_dir, where)[0]
    images, labels = (torch.cat(parts)[:OUTPUT_IMAGES] for parts in zip(*subject.data, strict=True))
    rates = (0.0, step.cell.bit_error_rate)
    faults, (chip,) = FaultModel.preset(step.cell.faults), evaluation_chips(0, 1)
    logits = []
    with torch.inference_mode():
        for transform in (None, fuse):
            for rate in rates:
                inputs = (
                    images if transform is None else torch.cat([fuse(x) for x in images.split(BATCH_SIZE)])
                )
                with perturbed(
                    subject.model, chip, bit_error_rate=rate, faults=faults, stored=subject.stored
                ):
                    outputs = [subject.model(x) for x in inputs.split(BATCH_SIZE)]
                logits.append(torch.cat(outputs).float().cpu().numpy())
    arrays = dict(zip(OUTPUTS, logits, strict=True)) | {"labels": labels.cpu().numpy()}

    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.savez_compressed(file, **arrays)

    write_atomically(step.file, write)


def _evaluate(step: "Step", data_dir: Path | None, where: "torch.device") -> None:
    """Measures the base model, alone (an unprotected step) or behind its generator, and writes the step's file."""
    from neuralfuse.reproduce.cells import CHIPS
    from neuralfuse.reproduce.plan import Kind
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
        fuse, generator, origin = _generator(step, subject, data_dir, where)
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
    step: "Step", subject: "Subject", data_dir: Path | None, where: "torch.device"
) -> "tuple[torch.nn.Module, dict, dict]":
    """(F, configuration, provenance) of the generator of a step; FaultsimError for one that was trained for something
    else."""
    from neuralfuse.reproduce.plan import Kind

    from ..checkpoint import read_file
    from ..faults import FaultModel
    from .subject import load_generator

    file = step.sibling(Kind.GENERATOR)
    wanted = step.cell.generator
    trained = read_file(file)[1]
    variant, weights = load_generator(file, where, tuple(subject.dataset.images.shape[1:]))
    training, base = trained.get("training", {}), trained.get("base", {})
    source = subject if wanted.source == step.cell.base else _source(step, data_dir, where)
    checks = [
        ("architecture", wanted.name, trained["generator"]),
        ("base model", source.network["weights"], base.get("weights")),
    ]
    if wanted.flips is None:
        faults = FaultModel.preset(step.cell.faults).describe()
        checks += [
            ("bit error rate", wanted.bit_error_rate, training.get("bit_error_rate")),
            ("fault model", faults, training.get("faults")),
        ]
    else:
        checks += [("number of flips", wanted.flips, training.get("flips"))]
    if wanted.n_models is not None:
        checks += [("N", wanted.n_models, training.get("n_models"))]
    for what, ours, theirs in checks:
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
