"""Training of a generator in stages, which learn one after the other what EOPM has to discover at once.

1. classifier  the generator's encoder with a linear head learns the classes by cross entropy, without the base model
2. patterns    a search by EOPM over images and chips finds class patterns (neuralfuse.patterns)
3. drawing     the generator learns to draw the pattern of the image's class, without the base model
4. eopm        EOPM, which starts from a generator that protects every image whose class it knows

A look-up (neuralfuse.lookup) needs the first two only. Each stage has a state of its own, so that the training
continues from any point to the same result.
"""

import copy
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from energy.saving import count_weight_accesses
from faultsim.data import Augmentation, Dataset, iterate_batches
from faultsim.errors import FaultsimError
from faultsim.faults import evaluation_chips
from faultsim.quantization import finish_qat, prepare_qat
from faultsim.training.loop import (
    Loop,
    Pace,
    choose_memory_format,
    choose_optimizer_arguments,
    create_schedule,
    move_module,
)

from . import generators
from .classifier import Classifier
from .cost import Cost
from .patterns import ClassPatterns, compute_pattern_fingerprint, measure_success
from .stages import PATTERN_CHIPS, Stage, Staged
from .training import Base, train_generator

V = TypeVar("V")


@dataclass(frozen=True)
class Known(Generic[V]):
    """Result of a stage in an earlier training."""

    value: V
    """Classifier of stage 1, or patterns float32 [classes, 3, H, W] of stage 2."""
    cost: Cost
    """What it cost there."""


class Outcome(NamedTuple):
    """What staged training returns besides the generator."""

    curves: dict[str, list[dict]]
    """One entry per epoch, for each stage."""
    patterns: Tensor
    """float32 [classes, 3, H, W], on the CPU."""
    costs: dict[str, Cost]
    """For each stage."""
    classifier: Classifier
    """A copy of the classifier after stage 1: the baseline of the generator's size."""


def train_staged(
    generator: nn.Module,
    bases: Sequence[Base],
    data: Dataset,
    staged: Staged,
    *,
    augment: Augmentation | None = None,
    state: Path | None = None,
    context: dict | None = None,
    report: Callable[[str, dict], None] = lambda stage, entry: None,
    pace: Pace | None = None,
    in_flight: int | None = None,
    classifier: Known[Classifier] | None = None,
    patterns: Known[Tensor] | None = None,
) -> Outcome:
    """Train a generator in place, in stages; for a look-up, only its classifier and the patterns.

    Parameters
    ----------
    generator, bases, data, augment, context, pace, in_flight
        As for `train_generator`.
    staged
        How to train.
    state
        State file of the whole training: each stage has its own file, STEM.STAGE.safetensors.
    report
        Called after every epoch with the stage's name and the new entry of its curve.
    classifier
        Classifier of a generator with the same encoder; replaces stage 1. Its cost is added.
    patterns
        Patterns for the same base models and bit errors; replace stage 2. Their cost is added.

    Returns
    -------
    Outcome

    Raises
    ------
    OutOfTime
        At the deadline of `pace`.
    FaultsimError
        For the state of another training, a generator whose encoder is not known, and if a loss is not finite.
    """
    run = _Run(
        generator, bases, data, staged, augment, state, context or {}, report, pace or Pace(), in_flight
    )
    if classifier is None:
        network = run.classify()
    else:
        network = copy.deepcopy(classifier.value).to(run.device)  # it was loaded to the CPU
        run.take_over("classifier", classifier, network.state_dict().values())
        run.begin_with(network)
    if patterns is None:
        drawn = run.find_patterns()
    else:
        drawn = patterns.value.to(run.device)
        run.take_over("patterns", patterns, [drawn])
    if not staged.looked_up:
        run.draw(drawn)
        run.finish()
    return Outcome(run.curves, drawn.cpu(), run.costs, network)


def train_classifier(
    generator: nn.Module,
    bases: Sequence[Base],
    data: Dataset,
    staged: Staged,
    *,
    augment: Augmentation | None = None,
    report: Callable[[str, dict], None] = lambda stage, entry: None,
) -> tuple[Classifier, Cost]:
    """Train only the classifier of a generator's size, as the first stage does.

    Parameters
    ----------
    generator, bases, data, staged, augment, report
        As for `train_staged`. The generator's encoder is trained in place.

    Returns
    -------
    Classifier
        In evaluation mode.
    Cost
        What it cost.
    """
    run = _Run(generator, bases, data, staged, augment, None, {}, report, Pace(), None)
    classifier = run.classify()
    return classifier, run.costs["classifier"]


def measure_baselines(
    outcome: Outcome, base: Base, test: Dataset, staged: Staged, *, chips: int = 50, images: int = 10
) -> dict:
    """Measure the baselines of a generator's accuracy, for metadata and results.

    Parameters
    ----------
    outcome
        What train_staged returned.
    base
        The base model.
    test
        Test images.
    staged
        How the generator was trained.
    chips, images
        How many chips and images the patterns are measured with.

    Returns
    -------
    dict
        "patterns": how often the perturbed base model predicts a pattern's class (see measure_success); "classifier":
        accuracy on `test` and weight memory accesses of the classifier alone; "cost": of all stages.
    """
    # seed 1, because results use the chips of seed 0
    success = measure_success(
        outcome.patterns,
        *base,
        test,
        evaluation_chips(1, chips),
        bit_error_rate=cast(float, staged.eopm.bit_error_rate),  # EOPM has one,
        faults=staged.eopm.faults,
        images=images,
    )
    device = base.stored.layers[0].values.device
    right = 0
    with torch.inference_mode():
        for inputs, labels in iterate_batches(test, 256, device=device):
            right += int((outcome.classifier(inputs).argmax(1) == labels).sum())
    total = sum(outcome.costs.values(), start=Cost())
    return {
        "patterns": success.describe() | {"fingerprint": compute_pattern_fingerprint(outcome.patterns)},
        "classifier": {
            "accuracy": right / len(test),
            "accesses": count_weight_accesses(outcome.classifier, tuple(test.images.shape[1:])),
        },
        "cost": total.describe()
        | {"stages": {stage: cost.describe() for stage, cost in outcome.costs.items()}},
    }


@dataclass
class _Run:
    generator: nn.Module
    bases: Sequence[Base]
    data: Dataset
    staged: Staged
    augment: Augmentation | None
    state: Path | None
    context: dict
    report: Callable[[str, dict], None]
    pace: Pace
    in_flight: int | None
    curves: dict[str, list[dict]] = field(default_factory=dict)
    costs: dict[str, Cost] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.device = self.bases[0].stored.layers[0].values.device
        self.precision = self.staged.eopm.precision
        self.data = self.data.to(self.device)
        self.memory_format = choose_memory_format(self.device, self.precision)
        # all random initialization happens before the first stage, so that a continued training draws the same
        classes = self.data.num_classes
        classifier = prepare_qat(Classifier(self.generator, classes))
        self.classifier = move_module(classifier, self.device, self.precision)
        move_module(prepare_qat(self.generator), self.device, self.precision)
        self.before = hashlib.sha256()  # results of the stages so far

    def classify(self) -> Classifier:
        """Stage 1. Returns a copy of the classifier."""
        options, network = self.staged.classifier, self.classifier.train()
        optimizer = self._adam(network, options, self.staged.weight_decay)

        def step(images: Tensor, labels: Tensor, number: Tensor) -> Tensor:
            optimizer.zero_grad(set_to_none=True)
            with self._autocast():
                logits = network(images)
            loss = functional.cross_entropy(logits.float(), labels, label_smoothing=self.staged.smoothing)
            loss.backward()
            optimizer.step()
            return torch.stack([loss.detach(), (logits.argmax(1) == labels).float().mean()])

        self._loop("classifier", network, optimizer, options, step, ("loss", "accuracy"), "one_cycle")
        self._count("classifier", generator=1)
        return finish_qat(copy.deepcopy(network)).eval()

    def begin_with(self, classifier: Classifier) -> None:
        """Copy the encoder of a classifier from an earlier training."""
        ours, theirs = (_plain_names(network.encoder) for network in (self.classifier, classifier))
        if {name: value.shape for name, value in ours.items()} != {
            name: value.shape for name, value in theirs.items()
        }:
            raise FaultsimError(
                "the classifier and the generator have different encoders: train the classifier anew"
            )
        with torch.no_grad():
            for name, value in ours.items():
                value.copy_(theirs[name])

    def take_over(self, stage: str, known: Known, values: Iterable[Tensor]) -> None:
        """Take over a stage of an earlier training, whose result is `values`."""
        self.curves[stage], self.costs[stage] = [], known.cost
        self._mark(values)

    def find_patterns(self) -> Tensor:
        """Stage 2."""
        options, (_, *shape) = self.staged.patterns, self.data.images.shape
        classes = self.data.num_classes
        coarseness = 1 if self.staged.looked_up else generators.measure_coarseness(self.generator)
        patterns = ClassPatterns(classes, shape, coarseness).to(self.device)
        optimizer = torch.optim.Adam(
            patterns.parameters(),
            **choose_optimizer_arguments(options.learning_rate, self.device),
            capturable=self.device.type == "cuda",
        )
        # bounded, or a few chips on which no pattern works would outweigh all others
        training = replace(
            self.staged.eopm,
            n_models=self.staged.pattern_models,
            seed=self.staged.eopm.seed + PATTERN_CHIPS,
            loss="error_probability",
            divided=True,
        )
        with training.create_objective(self.bases, in_flight=self.in_flight) as objective:

            def step(images: Tensor, labels: Tensor, number: Tensor) -> Tensor:
                places = torch.arange(len(images), device=self.device)
                wanted = (number * options.batch_size + places) % classes  # regardless of the images' classes
                optimizer.zero_grad(set_to_none=True)
                under = patterns(images, wanted)
                losses, gradient = objective.input_gradient(under, wanted, number)
                under.backward(gradient)
                optimizer.step()
                patterns.clamp()
                return torch.stack(losses)

            self._loop("patterns", patterns, optimizer, options, step, ("clean", "perturbed"), "linear")
            self._count("patterns", base=objective.passes)
        return patterns.drawn().detach()

    def draw(self, patterns: Tensor) -> None:
        """Stage 3."""
        options, staged = self.staged.drawing, self.staged
        network = self.generator.train()
        optimizer = self._adam(network, options, staged.weight_decay)
        flat = patterns.flatten(1)
        lengths = flat.square().sum(1)

        def step(images: Tensor, labels: Tensor, number: Tensor) -> Tensor:
            optimizer.zero_grad(set_to_none=True)
            with self._autocast():
                drawn = network(images)
            drawn = drawn.float()
            under = torch.clamp(images + patterns[labels], -1.0, 1.0)
            error = functional.mse_loss(torch.clamp(images + drawn, -1.0, 1.0), under)
            # |drawn - pattern|^2 without |drawn|^2, which is equal for all patterns
            distances = (lengths - 2 * drawn.flatten(1) @ flat.T) / flat.shape[1]
            choice = functional.cross_entropy(-distances / staged.temperature, labels)
            (error + staged.choice * choice).backward()
            optimizer.step()
            right = (distances.argmin(1) == labels).float().mean()
            return torch.stack([error.detach(), choice.detach(), right])

        names = ("error", "choice", "accuracy")
        self._loop("drawing", network, optimizer, options, step, names, "one_cycle")
        self._count("drawing", generator=1)

    def finish(self) -> None:
        """Stage 4."""
        trained = train_generator(
            self.generator,
            self.bases,
            self.data,
            self.staged.eopm,
            augment=self.augment,
            state=self._file("eopm"),
            context={**self.context, "before": self.before.hexdigest()},
            report=lambda epoch: self.report("eopm", vars(epoch)),
            pace=self.pace,
            in_flight=self.in_flight,
        )
        self.curves["eopm"] = [vars(epoch) for epoch in trained.curve]
        self.costs["eopm"] = trained.cost

    def _adam(self, network: nn.Module, options: Stage, decay: float) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            network.parameters(),
            **choose_optimizer_arguments(options.learning_rate, self.device),
            weight_decay=decay,
            capturable=self.device.type == "cuda",
        )

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def _file(self, stage: str) -> Path | None:
        return self.state and self.state.with_suffix(f".{stage}{self.state.suffix}")

    def _loop(
        self,
        stage: str,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        options: Stage,
        step: Callable[[Tensor, Tensor, Tensor], Tensor],
        names: Sequence[str],
        falling: str,
    ) -> None:
        about = {
            "stage": stage,
            "training": self.staged.of(stage),
            "data": self.data.fingerprint,
            "context": self.context,
            "before": self.before.hexdigest(),
        }
        epochs = options.epochs_of(len(self.data))
        steps = -(-len(self.data) // options.batch_size) * epochs
        loop = Loop(
            modules={"module": module},
            optimizer=optimizer,
            step=step,
            values=len(names),
            data=self.data,
            batch_size=options.batch_size,
            seed=self.staged.eopm.seed,
            augment=self.augment,
            identity=json.loads(json.dumps(about)),
            state=self._file(stage),
            schedule=create_schedule(falling, optimizer, options.learning_rate, steps),
            memory_format=self.memory_format,
            pace=self.pace,
        )
        loop.resume()
        loop.run(
            epochs,
            lambda epoch, means: _entry(stage, epoch, dict(zip(names, means, strict=True))),
            lambda entry: self.report(stage, entry),
        )
        self.curves[stage], self.seconds = loop.curve, loop.seconds
        self._mark(module.state_dict().values())

    def _mark(self, values: Iterable[Tensor]) -> None:
        for value in values:
            self.before.update(value.detach().cpu().contiguous().numpy().tobytes())

    def _count(self, stage: str, base: int = 0, generator: int = 0) -> None:
        images = len(self.data) * len(self.curves[stage])
        self.costs[stage] = Cost.of(images, base, generator, self.seconds)


def _plain_names(module: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers under the same names, quantization-aware or not."""
    return {
        name.replace("parametrizations.weight.original", "weight"): value
        for name, value in module.state_dict().items()
    }


def _entry(stage: str, epoch: int, means: dict[str, float]) -> dict:
    if any(value != value for value in means.values()):
        raise FaultsimError(f"the loss of epoch {epoch} ({stage}) is not finite: try a lower learning rate")
    return {"epoch": epoch, **means}
