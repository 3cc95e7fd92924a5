"""Training of a generator, by EOPM (the paper, section 2.2, Algorithm 1) or against worst-case flips (Appendix L)."""

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from faultsim.data import Augmentation, Dataset
from faultsim.errors import FaultsimError
from faultsim.faults import FaultModel
from faultsim.quantization import prepare_qat
from faultsim.stored import StoredWeights
from faultsim.training.loop import Loop, Pace, layout, on_device, schedule

from .adversarial import Adversarial
from .cost import Cost
from .distributed import ALONE, Ranks
from .ensemble import Ensemble
from .eopm import EOPM
from .generators import NeuralFuse
from .objective import Objective

TRAINERS = ("eopm", "adversarial", "staged")
"""The last one is neuralfuse.staged."""
SCHEDULES = ("constant", "linear")
_ONLY = {"eopm": ("bit_error_rate", "voltage", "faults", "n_models", "divided"), "adversarial": ("flips",)}


class Base(NamedTuple):
    """A frozen base model, and its weights in memory."""

    model: nn.Module
    stored: StoredWeights


@dataclass(frozen=True)
class Training:
    """How a generator is trained: at a bit error rate by EOPM, or against a number of bit flips (adversarial). The
    defaults are the paper's (Appendix D), the betas those of its released code."""

    bit_error_rate: float | None = None  #: EOPM: fraction of failing cells of the perturbed models
    flips: int | None = None  #: adversarial: K, the bits that are inverted, the worst ones of each step
    voltage: float | None = None  #: that the rate belongs to, where one was chosen; for the record
    faults: FaultModel = field(default_factory=FaultModel)  #: EOPM: what a failing cell does
    n_models: int = 10  #: EOPM: N, perturbed models a step
    weight: float = 5.0  #: lambda, of the perturbed loss
    loss: str = "cross_entropy"  #: of one answer, see neuralfuse.objective.LOSSES
    divided: bool = False  #: EOPM: whether each image of a step passes through one model only, see EOPM
    learning_rate: float = 1e-3  #: of Adam
    betas: tuple[float, float] = (0.5, 0.999)
    batch_size: int = 256
    precision: str = (
        "float32"  #: or "bfloat16": of the matrix products (autocast); which is faster: benchmarks/README.md
    )
    seed: int = 0  #: of order, augmentation and chips
    schedule: str = (
        "constant"  #: of the learning rate; "linear": to 0 at the end of max_epochs, when training ends
    )
    average: float = (
        0.0  #: decay a step of an average of the generator's weights, which is the result; 0: none
    )
    max_epochs: int = 100
    window: int = (
        1000  #: steps whose losses are averaged to see whether there is still progress, see converged()
    )
    tolerance: float = 0.005  #: see converged()

    def __post_init__(self) -> None:
        if (self.bit_error_rate is None) == (self.flips is None):
            raise FaultsimError("give either a bit error rate (EOPM) or a number of bit flips (adversarial)")
        for name in ("max_epochs", "window", "batch_size"):
            if getattr(self, name) < 1:
                raise FaultsimError(f"{name} {getattr(self, name)}: at least 1 is needed")
        if not self.learning_rate > 0:
            raise FaultsimError(f"learning rate {self.learning_rate}: it must be above 0")
        if self.schedule not in SCHEDULES:
            raise FaultsimError(f"unknown schedule {self.schedule!r}: it can be {' or '.join(SCHEDULES)}")
        if not 0 <= self.average < 1:
            raise FaultsimError(f"average {self.average}: the decay a step must be at least 0 and below 1")

    @property
    def trainer(self) -> str:
        """One of TRAINERS, but for "staged", of which this is the last stage."""
        return "eopm" if self.flips is None else "adversarial"

    def describe(self) -> dict:
        """Everything about it, for results; nothing that only the other trainer would use."""
        described = {"trainer": self.trainer, **asdict(self), "faults": self.faults.describe()}
        unused = [name for trainer in _ONLY if trainer != self.trainer for name in _ONLY[trainer]]
        return {name: value for name, value in described.items() if name not in unused}

    def objective(
        self, bases: Sequence[Base], ranks: Ranks = ALONE, in_flight: int | None = None
    ) -> Objective:
        """The loss that the generator is trained with: the mean over the base models, on one device; `in_flight` as for
        EOPM."""
        if len(bases) > 1:
            return Ensemble([self.objective([base], ranks, in_flight) for base in bases], ranks)
        common = {"weight": self.weight, "loss": self.loss, "precision": self.precision, "ranks": ranks}
        if self.flips is not None:
            return Adversarial(*bases[0], flips=self.flips, **common)
        return EOPM(
            *bases[0],
            bit_error_rate=self.bit_error_rate,
            faults=self.faults,
            n_models=self.n_models,
            divided=self.divided,
            seed=self.seed,
            in_flight=in_flight,
            **common,
        )


@dataclass(frozen=True)
class Epoch:
    """What one epoch of training came to: means over its images, as they were augmented, and over its chips."""

    epoch: int
    loss: float  #: clean + lambda * perturbed
    clean: float  #: mean loss of the base model without bit errors
    perturbed: float  #: mean loss of the perturbed models


class Trained(NamedTuple):
    """What a training came to, besides the generator."""

    curve: list[Epoch]
    cost: Cost


def converged(losses: Sequence[float], window: int, tolerance: float) -> bool:
    """The rule of early stopping: the mean loss of the last `window` epochs is less than `tolerance` (a fraction) below
    that of the `window` epochs before them. Training.window, in steps, is rounded up to whole epochs.

    Every step has new chips, and the loss of single chips differs by half its mean: a mean over 1,000 steps with 10
    chips each is good to about the 0.5 % that the default asks for.
    """
    if len(losses) < 2 * window:
        return False
    last, before = sum(losses[-window:]), sum(losses[-2 * window : -window])
    return last > (1 - tolerance) * before


def train_generator(
    generator: nn.Module,
    bases: Sequence[Base],
    data: Dataset,
    training: Training,
    *,
    augment: Augmentation | None = None,
    state: Path | None = None,
    context: dict | None = None,
    report: Callable[[Epoch], None] = lambda epoch: None,
    ranks: Ranks = ALONE,
    pace: Pace | None = None,
    in_flight: int | None = None,
) -> Trained:
    """Trains `generator` in place on the device of its base models, which stay as they are: one, or several as
    surrogates of another one, whose losses are averaged. The generator's weights are quantization-aware afterwards (see
    faultsim.prepare_qat).

    Order, augmentation and chips are functions of (seed, epoch, step). Stops when converged() (with a constant learning
    rate), at the latest after `max_epochs`. With `state`, a file, the run is kept (see `pace`) and goes on from there
    when it is started again, to the same result; `context` (JSON values) says what else the run depends on, such as the
    base model, and must be the same then. More epochs may be asked for, unless the learning rate follows from their
    number. `report` is called with each new epoch.

    With several `ranks` each of these processes calls this with the same arguments and ends with the same generator;
    the first one alone writes the state, which all read, and reports. A run may go on with another number of processes:
    sums are then rounded in another order, and nothing else differs. The same goes for `in_flight`, the models that a
    GPU computes at once (see EOPM).

    Raises OutOfTime at the deadline of `pace`, FaultsimError for a state of another run, when the processes differ, and
    when the loss is no longer a number.
    """
    device = bases[0].stored.layers[0].values.device
    data = data.to(device)
    fuse = (
        NeuralFuse(prepare_qat(generator))
        .to(device, memory_format=layout(device, training.precision))
        .train()
    )
    modules: dict[str, nn.Module] = {"module": fuse}
    if training.average:
        modules["average"] = copy.deepcopy(fuse)
        average, now = (_numbers(module) for module in (modules["average"], fuse))
    optimizer = torch.optim.Adam(
        fuse.parameters(),
        **on_device(training.learning_rate, device),
        betas=training.betas,
        capturable=device.type == "cuda",
    )
    steps = -(-len(data) // training.batch_size)
    window = -(-training.window // steps)
    constant = training.schedule == "constant"
    with training.objective(bases, ranks, in_flight) as objective:

        def step(images: Tensor, labels: Tensor, number: Tensor) -> Tensor:
            optimizer.zero_grad(set_to_none=True)
            losses = objective.backward(fuse, images, labels, number)
            optimizer.step()
            if training.average:
                # torch's AveragedModel would wait for the device at every step
                torch._foreach_lerp_(average, now, 1 - training.average)
            return torch.stack(losses)

        loop = Loop(
            modules,
            optimizer,
            step,
            2,
            data,
            training.batch_size,
            training.seed,
            augment,
            _identity(training, data, context or {}),
            state,
            schedule(training.schedule, optimizer, training.learning_rate, steps * training.max_epochs),
            layout(device, training.precision),
            captured=ranks.count == 1,
            writes=ranks.first,
            pace=pace or Pace(),
        )
        loop.resume()
        start = json.dumps(loop.facts(), sort_keys=True).encode() + _bytes(fuse)
        ranks.agree(start, device, "options, files or initial weights")
        loop.run(
            training.max_epochs,
            lambda epoch, means: asdict(_entry(epoch, means, training.weight)),
            lambda entry: report(Epoch(**entry)),
            lambda curve: (
                constant and converged([entry["loss"] for entry in curve], window, training.tolerance)
            ),
        )
    if training.average:
        fuse.load_state_dict(modules["average"].state_dict())
    generator.eval()
    cost = Cost.of(len(data) * len(loop.curve), objective.passes, 1, loop.seconds)
    return Trained([Epoch(**entry) for entry in loop.curve], cost)


def _numbers(module: nn.Module) -> list[Tensor]:
    """Parameters, and statistics of batch normalization, which belong to them."""
    return [value for value in module.state_dict().values() if value.is_floating_point()]


def _entry(epoch: int, means: Sequence[float], weight: float) -> Epoch:
    clean, perturbed = means
    loss = clean + weight * perturbed
    if loss != loss:
        raise FaultsimError(f"the loss of epoch {epoch} is no number: a lower learning rate may help")
    return Epoch(epoch, loss, clean, perturbed)


def _identity(training: Training, data: Dataset, context: dict) -> dict:
    """What must be equal for a run to go on, as JSON would say it: everything but when it ends, unless the learning
    rate follows from that."""
    described = training.describe()
    ends = (
        ("window", "tolerance") if training.schedule != "constant" else ("max_epochs", "window", "tolerance")
    )
    for name in ("trainer", *ends):  # the trainer follows from what it needs
        del described[name]
    if training.loss == "cross_entropy":  # states of older versions don't name it
        del described["loss"]
    if not training.divided:
        described.pop("divided", None)
    return json.loads(json.dumps({"training": described, "data": data.fingerprint, "context": context}))


def _bytes(module: nn.Module) -> bytes:
    return b"".join(value.cpu().numpy().tobytes() for value in module.state_dict().values())
