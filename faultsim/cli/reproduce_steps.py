"""`faultsim reproduce`: the missing steps of a plan, one after the other, in a run directory."""

import contextlib
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import FaultsimError

if TYPE_CHECKING:
    import torch

    from neuralfuse.paper.plan import Step
    from neuralfuse.paper.result import Cell


@dataclass(frozen=True)
class Settings:
    """How everything in a run directory is trained; a directory is refused when they are other than its own."""

    trainer: str  #: of generators: "eopm" or "staged"
    base_epochs: int | None  #: of base models; None: the recipe's
    epochs: int  #: of generators, at most
    n_models: int
    batch_size: int  #: of generators
    precision: str
    learning_rate: float  #: of generators
    schedule: str
    average: float
    seed: int

    def check(self, recipe: str) -> None:
        """Raises FaultsimError now for what training would refuse hours later."""
        from neuralfuse.objective import PRECISIONS
        from neuralfuse.training import Training

        from ..training.classifier import recipe as recipe_named

        recipe_named(recipe, "cifar10", self.base_epochs)
        if self.trainer not in ("eopm", "staged"):
            raise FaultsimError(f"unknown trainer {self.trainer!r}: it can be eopm or staged")
        for option in ("epochs", "n_models", "batch_size"):
            value = getattr(self, option)
            if value < 1:
                raise FaultsimError(f"--{option.replace('_', '-')} {value}: at least 1 is needed")
        if self.precision not in PRECISIONS:
            raise FaultsimError(f"unknown precision {self.precision!r}: it can be {' or '.join(PRECISIONS)}")
        if not 0 <= self.seed < 2**31:
            raise FaultsimError(f"--seed {self.seed} must be from 0 to 2**31 - 1")
        Training(bit_error_rate=0.0, **self.optimization)

    def describe(self) -> dict[str, object]:
        """For the run directory; those of older versions don't name the trainer."""
        described = asdict(self)
        if self.trainer == "eopm":
            del described["trainer"]
        return described

    @property
    def optimization(self) -> dict[str, float | str]:
        """Of generators."""
        return {name: getattr(self, name) for name in ("learning_rate", "schedule", "average")}


@dataclass
class Clock:
    """How long steps take: their operations over the device's speed, which every finished step corrects."""

    settings: Settings
    speed: float  #: multiply-accumulate operations a second
    expected: float = 0.0
    taken: float = 0.0

    @classmethod
    def of(cls, settings: Settings, where: "torch.device") -> "Clock":
        from neuralfuse.paper.budget import operations_per_second

        return cls(settings, operations_per_second(where, settings.precision))

    def seconds(self, step: "Step") -> float:
        """Of what is left of a step; of training, at most."""
        from neuralfuse.paper.budget import operations
        from neuralfuse.paper.plan import Kind

        from ..training.classifier import recipe

        base_epochs = recipe(step.recipe, step.cell.dataset, self.settings.base_epochs).epochs
        work = operations(
            step, base_epochs=base_epochs, epochs=self.settings.epochs, n_models=self.settings.n_models
        )
        if step.kind in (Kind.BASE, Kind.GENERATOR):
            log = step.file.with_suffix(".log.jsonl")
            done = len(log.read_text(encoding="utf-8", errors="replace").splitlines()) if log.exists() else 0
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
    from neuralfuse.paper.budget import duration

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

    With a budget, in seconds, first those to the results that are wanted most for their time (`wanted` says how often)
    and fit; what is left goes to a training that doesn't, whose state is kept. One run at a time owns the directory.
    Progress goes to stderr. Raises FaultsimError when the directory is in use, or holds a run with other settings or
    files that don't belong together.
    """
    from neuralfuse.paper.plan import Kind, missing

    from ..io.provenance import provenance
    from ..io.run_directory import RunDirectory
    from ..training.loop import OutOfTime
    from . import reproduce_actions
    from .options import device as device_named

    where = device_named(device)
    began = time.monotonic()

    def left() -> float | None:
        return None if budget is None else budget - (time.monotonic() - began)

    actions: dict[Kind, Callable[[Step], None]] = {
        Kind.BASE: lambda step: reproduce_actions.train_base(step, settings, data_dir, device, left()),
        Kind.UNPROTECTED: lambda step: reproduce_actions.evaluate(step, data_dir, where),
        Kind.GENERATOR: lambda step: reproduce_actions.train_generator(
            step, settings, data_dir, device, where, left()
        ),
        Kind.RESULT: lambda step: reproduce_actions.evaluate(step, data_dir, where),
        Kind.OUTPUTS: lambda step: reproduce_actions.keep_outputs(step, data_dir, where),
    }
    with RunDirectory(directory, "reproduce", settings.describe(), ()) as run:
        _clear(directory, [kind.value for kind in Kind])
        run.begin(provenance(str(where)))
        todo = missing(planned)
        clock = Clock.of(settings, where) if todo else None
        say(planned, todo, clock)
        total, number = len(todo), 0
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for the table
            while todo:
                if budget is not None:
                    todo = _affordable(planned, wanted or {}, clock, left())
                for step in todo:
                    number += 1
                    print(f"[{number}/{total}] {step.description}", flush=True)
                    expected, started = clock.seconds(step), time.monotonic()
                    try:
                        actions[step.kind](step)
                    except OutOfTime as stop:
                        print(stop, flush=True)
                        return
                    clock.learn(expected, time.monotonic() - started)
                    run.check()
                if budget is None:
                    break


def _affordable(
    planned: "Sequence[Step]", wanted: "Mapping[Cell, int]", clock: Clock, left: float
) -> "list[Step]":
    """The steps that the rest of a budget goes to next: to the most valuable result that fits; where none does, the
    next training on the way to the most valuable one, which goes on another time. Says why when there are none."""
    from neuralfuse.paper.budget import duration, most_valuable
    from neuralfuse.paper.plan import Kind, missing

    found = most_valuable(planned, wanted, clock.seconds, left)
    if found or not missing(planned):
        return found
    best = most_valuable(planned, wanted, clock.seconds, math.inf)
    trainings = [step for step in best if step.kind in (Kind.BASE, Kind.GENERATOR)]
    if trainings and left > 0:
        return trainings[:1]
    needed = sum(clock.seconds(step) for step in best)
    print(
        f"{duration(max(left, 0))} of the budget are left: the next result, {best[-1].description}, takes up to "
        f"{duration(needed)}"
    )
    return []


def _clear(directory: Path, kinds: list[str]) -> None:
    """Removes what a run that was killed in the middle of writing left behind."""
    for kind in kinds:
        for left in directory.glob(f".{kind}-*"):
            with contextlib.suppress(OSError):
                left.unlink()
