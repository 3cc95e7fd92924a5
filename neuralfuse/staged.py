"""Staged training of a generator: what EOPM has to discover at once is learnt one thing after the other.

1. classifier  the generator's encoder with a linear head learns the classes by cross entropy, without the base model
2. patterns    class patterns (neuralfuse.patterns), by EOPM over images and chips
3. drawing     the generator learns to draw the pattern of the image's class, without the base model
4. eopm        expectation over perturbed models, which are from here on right where the generator knows the class

Each stage is a Loop with a state of its own, so that the chain goes on where it was stopped, to the same result.
"""

import copy
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from energy.saving import count_weight_accesses
from faultsim.data import Augmentation, Dataset, batches
from faultsim.errors import FaultsimError
from faultsim.faults import evaluation_chips
from faultsim.quantization import finish_qat, prepare_qat
from faultsim.training.loop import Loop, Pace, layout, on_device, schedule

from . import generators
from .classifier import Classifier
from .cost import Cost
from .patterns import ClassPatterns, fingerprint, measure_success
from .training import Base, Training, train_generator

STAGES = ("classifier", "patterns", "drawing", "eopm")
_PATTERN_CHIPS = 1 << 30  # added to the seed: no chip of the patterns comes again in the last stage


@dataclass(frozen=True)
class Stage:
    """Length and steps of one stage."""

    epochs: int
    batch_size: int
    learning_rate: (
        float  #: the peak of one cycle (classifier, drawing), or where the linear fall begins (patterns)
    )
    steps: int = 0  #: at least so many: a small data set is shown more often

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1 or not self.learning_rate > 0:
            raise FaultsimError(
                f"a stage needs at least one epoch, one image and a learning rate above 0: {self}"
            )

    def epochs_of(self, images: int) -> int:
        """Of a data set with so many images."""
        return max(self.epochs, -(-self.steps // -(-images // self.batch_size)))


@dataclass(frozen=True)
class Staged:
    """How a generator is trained in stages. The defaults were chosen by experiment (docs of results)."""

    eopm: Training  #: the last stage; its bit errors, seed and precision are those of all stages
    classifier: Stage = Stage(20, 128, 0.01, 400)
    patterns: Stage = Stage(2, 48, 0.05, 1000)
    pattern_models: int = 3  #: perturbed models a step of the patterns
    drawing: Stage = Stage(6, 128, 0.02, 400)
    smoothing: float = 0.05  #: of the labels of the classifier
    weight_decay: float = 0.01  #: of AdamW (classifier and drawing)
    temperature: float = 0.03  #: of the choice among the patterns by their distance, in the loss of drawing
    choice: float = 0.02  #: weight of that choice beside the squared error

    def __post_init__(self) -> None:
        if self.eopm.bit_error_rate is None:
            raise FaultsimError("staged training needs a bit error rate, not a number of chosen flips")
        if self.eopm.seed >= _PATTERN_CHIPS:
            raise FaultsimError(f"seed {self.eopm.seed}: staged training takes seeds below {_PATTERN_CHIPS}")

    def describe(self) -> dict:
        """Everything about it, for results."""
        return {**self.eopm.describe(), "trainer": "staged", "stages": self.stages()}

    def of(self, stage: str) -> dict:
        """What a stage but the last depends on: those that are done stay when later ones are changed."""
        used = {
            "classifier": ("smoothing", "weight_decay"),
            "patterns": ("pattern_models",),
            "drawing": ("weight_decay", "temperature", "choice"),
        }[stage]
        eopm = ("seed", "precision", *(("bit_error_rate", "faults", "weight") if stage == "patterns" else ()))
        described, last = asdict(self), self.eopm.describe()
        return {name: described[name] for name in (stage, *used)} | {name: last[name] for name in eopm}

    def stages(self) -> dict:
        """What comes before EOPM, for results."""
        return {key: value for key, value in asdict(self).items() if key != "eopm"}


EOPM_STAGE = {
    "n_models": 5,
    "loss": "error_probability",
    "divided": True,
    "learning_rate": 1e-3,
    "schedule": "linear",
    "batch_size": 96,
    "max_epochs": 2,
}
"""Arguments of Training that suit the last stage."""


@dataclass(frozen=True)
class Known:
    """What a stage came to in an earlier training, and what it cost there."""

    value: Classifier | Tensor  #: of stage 1, or float32 [classes, 3, H, W] of stage 2
    cost: Cost


class Outcome(NamedTuple):
    """What staged training came to, besides the generator."""

    curves: dict[str, list[dict]]  #: of each of STAGES: one entry an epoch
    patterns: Tensor  #: float32 [classes, 3, H, W], on the CPU
    costs: dict[str, Cost]  #: of each of STAGES
    classifier: Classifier  #: as the first stage left it, a copy: the baseline of the generator's size


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
    classifier: Known | None = None,
    patterns: Known | None = None,
) -> Outcome:
    """Trains `generator` in place, as train_generator() does; arguments as there. `report` is called with the stage's
    name and each new entry of its curve. The states of the stages lie beside `state`, a name of each stage in theirs.
    With `classifier`, of a generator with the same encoder, or `patterns`, for the same base models and bit errors, a
    stage is not done again; its cost counts all the same (see neuralfuse.stages.reusable).

    Raises OutOfTime at the deadline of `pace`, FaultsimError for a state of another run, a generator whose encoder is
    not known, and when a loss is no longer a number.
    """
    run = _Run(
        generator, bases, data, staged, augment, state, context or {}, report, pace or Pace(), in_flight
    )
    if classifier is None:
        network = run.classify()
    else:
        network = copy.deepcopy(classifier.value).to(run.device)  # files are read to the CPU
        run.take_over("classifier", classifier, network.state_dict().values())
        run.begin_with(network)
    if patterns is None:
        drawn = run.find_patterns()
    else:
        drawn = patterns.value.to(run.device)
        run.take_over("patterns", patterns, [drawn])
    run.draw(drawn)
    run.finish()
    return Outcome(run.curves, drawn.cpu(), run.costs, network)


def judge(
    outcome: Outcome, base: Base, test: Dataset, staged: Staged, *, chips: int = 50, images: int = 10
) -> dict:
    """What the generator's accuracy is to be seen beside, for results: of the class patterns, how often a base model
    answers their class (see measure_success); of the classifier alone, its accuracy on `test` and its weight memory
    accesses; and the cost of all stages."""
    # seed 1: the chips of results have seed 0
    success = measure_success(
        outcome.patterns,
        *base,
        test,
        evaluation_chips(1, chips),
        bit_error_rate=staged.eopm.bit_error_rate,
        faults=staged.eopm.faults,
        images=images,
    )
    device = base.stored.layers[0].values.device
    right = 0
    with torch.inference_mode():
        for inputs, labels in batches(test, 256, device=device):
            right += int((outcome.classifier(inputs).argmax(1) == labels).sum())
    total = sum(outcome.costs.values(), start=Cost())
    return {
        "patterns": success.describe() | {"fingerprint": fingerprint(outcome.patterns)},
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
        self.layout = layout(self.device, self.precision)
        # everything that is drawn at random is drawn before the first stage: a run that goes on draws the same
        classes = self.data.num_classes
        self.classifier = prepare_qat(Classifier(self.generator, classes)).to(
            self.device, memory_format=self.layout
        )
        prepare_qat(self.generator).to(self.device, memory_format=self.layout)
        self.before = hashlib.sha256()  # what the stages so far came to

    def classify(self) -> Classifier:
        """Stage 1; returns a copy of the classifier."""
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
        """The encoder becomes that of a classifier which was trained before."""
        ours, theirs = (_plain_names(network.encoder) for network in (self.classifier, classifier))
        if {name: value.shape for name, value in ours.items()} != {
            name: value.shape for name, value in theirs.items()
        }:
            raise FaultsimError("the classifier has another encoder than the generator: train it anew")
        with torch.no_grad():
            for name, value in ours.items():
                value.copy_(theirs[name])

    def take_over(self, stage: str, known: Known, values: Iterable[Tensor]) -> None:
        """A stage was done before, and came to `values`."""
        self.curves[stage], self.costs[stage] = [], known.cost
        self._mark(values)

    def find_patterns(self) -> Tensor:
        """Stage 2."""
        options, (_, *shape) = self.staged.patterns, self.data.images.shape
        classes = self.data.num_classes
        coarseness = generators.coarseness(self.generator)
        patterns = ClassPatterns(classes, shape, coarseness).to(self.device)
        optimizer = torch.optim.Adam(
            patterns.parameters(),
            **on_device(options.learning_rate, self.device),
            capturable=self.device.type == "cuda",
        )
        # bounded: else a few chips on which nothing works outweigh all others
        training = replace(
            self.staged.eopm,
            n_models=self.staged.pattern_models,
            seed=self.staged.eopm.seed + _PATTERN_CHIPS,
            loss="error_probability",
            divided=True,
        )
        with training.objective(self.bases, in_flight=self.in_flight) as objective:

            def step(images: Tensor, labels: Tensor, number: Tensor) -> Tensor:
                places = torch.arange(len(images), device=self.device)
                wanted = (number * options.batch_size + places) % classes  # whatever the images show
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
            # |drawn - pattern|^2 but for |drawn|^2, which is the same for all patterns
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
            **on_device(options.learning_rate, self.device),
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
            {"module": module},
            optimizer,
            step,
            len(names),
            self.data,
            options.batch_size,
            self.staged.eopm.seed,
            self.augment,
            json.loads(json.dumps(about)),
            self._file(stage),
            schedule(falling, optimizer, options.learning_rate, steps),
            self.layout,
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
    """Parameters and buffers, quantization-aware or not."""
    return {
        name.replace("parametrizations.weight.original", "weight"): value
        for name, value in module.state_dict().items()
    }


def _entry(stage: str, epoch: int, means: dict[str, float]) -> dict:
    if any(value != value for value in means.values()):
        raise FaultsimError(
            f"the loss of epoch {epoch} ({stage}) is no number: a lower learning rate may help"
        )
    return {"epoch": epoch, **means}
