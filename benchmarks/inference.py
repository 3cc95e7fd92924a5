"""Speed of a perturbed model's passes and training steps on a CPU: python benchmarks/inference.py [--out FILE]

Forward passes as faultsim.evaluate makes them, and gradients of a generator's training step (EOPM, and the stages of
staged training that pass through the base model), in float32 and in bfloat16. They run against torch with the model as
it is written and the weights that a chip read, and steps against the naive formulation too, which draws faults with
NumPy and computes gradients of all weights. The rivals run in turn, in one process, on one thread; a time is the median
processor time of their runs. Weights are random: speed does not depend on them.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from faultsim import Chip, FaultModel, StoredWeights, models, prepare_qat
from faultsim.bundled import LANGUAGE_MODELS
from faultsim.inference.fold import folded
from faultsim.inference.in_place import overwriting
from faultsim.inference.passes import COMPUTE, Passes
from faultsim.io.files import write_text
from faultsim.io.provenance import record_provenance
from faultsim.models.language import PREFIX, load_language_model
from faultsim.network.batch import find_answer
from faultsim.training.loop import choose_memory_format, move_module
from neuralfuse import generators
from neuralfuse.bench import flip_naively
from neuralfuse.eopm import EOPM
from neuralfuse.patterns import ClassPatterns
from neuralfuse.stages import EOPM_STAGE, Staged

RATE = 0.01
CPU = torch.device("cpu")
IMAGES = 256
PASSES = ("DigitsNet", "DigitsVGG", "CharGPT", "MobileNetV2", "VGG11", "ResNet18")
STEPPED, GENERATOR, WEIGHT = "VGG11", "ConvS", 5.0
_DIVIDED = {"divided": True, "loss": "error_probability"}
STEPS: dict[str, dict[str, Any]] = {
    "EOPM": {"batch": 64, "n_models": 2, "divided": False, "loss": "cross_entropy"},
    "patterns": {"batch": Staged.patterns.batch_size, "n_models": Staged.pattern_models, **_DIVIDED},
    "EOPM of the last stage": {
        "batch": EOPM_STAGE["batch_size"],
        **{name: EOPM_STAGE[name] for name in ("n_models", "divided", "loss")},
    },
}
"""Steps of training, with ConvS as the generator; "patterns" has none."""


class Inverted(nn.Module):
    """An inverted residual block of MobileNetV2."""

    def __init__(self, inputs: int, outputs: int, stride: int, factor: int) -> None:
        super().__init__()
        wide = inputs * factor
        layers: list[nn.Module] = []
        if factor != 1:
            layers += [nn.Conv2d(inputs, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6()]
        depthwise = nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False)
        layers += [depthwise, nn.BatchNorm2d(wide), nn.ReLU6()]
        layers += [nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
        self.body, self.adds = nn.Sequential(*layers), stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.adds else self.body(x)


class MobileNetV2(nn.Module):
    """MobileNetV2 (Sandler et al., 2018) with the strides that images of 32x32 pixels need."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU6()]
        channels = 32
        for factor, outputs, count, stride in (
            (1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
        ):  # fmt: skip
            for place in range(count):
                layers.append(Inverted(channels, outputs, stride if place == 0 else 1, factor))
                channels = outputs
        layers += [nn.Conv2d(channels, 1280, 1, bias=False), nn.BatchNorm2d(1280), nn.ReLU6()]
        self.features, self.classifier = nn.Sequential(*layers), nn.Linear(1280, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean([2, 3]))


def create(name: str) -> tuple[nn.Module, Tensor]:
    """Return a model with statistics of its own, and a batch."""
    torch.manual_seed(0)
    if name in LANGUAGE_MODELS:
        return load_language_model(PREFIX + name).eval(), torch.randint(0, 50, (32, 64))
    model, images = (
        MobileNetV2() if name == "MobileNetV2" else models.create(name),
        torch.randn(IMAGES, 3, 32, 32),
    )
    with torch.no_grad():
        model.train()(images[:64])
    return model.eval(), images


def race(rivals: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median processor time of each, in seconds."""
    taken: dict[str, list[float]] = {name: [] for name in rivals}
    for counted in range(rounds + 1):  # the first round warms up
        for name, call in rivals.items():
            began = time.process_time()
            call()
            if counted:
                taken[name].append(time.process_time() - began)
    return {name: statistics.median(times) for name, times in taken.items()}


def measure_passes(name: str, rounds: int) -> dict[str, object]:
    """Time one batch through a model that a chip perturbed."""
    model, batch = create(name)
    folding = copy.deepcopy(model)
    stored = StoredWeights.of(model)
    plain = [w[0] for w in stored.read_chips([Chip(7)], RATE, None, FaultModel())]

    def as_written() -> object:
        with stored.replaced(plain):
            return find_answer(model(batch))

    with torch.inference_mode(), folded(folding, StoredWeights.of(folding)) as memory, overwriting(folding):

        def prepare(compute: str) -> Callable[[], object]:
            passes = Passes(folding, CPU, compute)
            read = memory.read_chips([Chip(7)], RATE, None, FaultModel())
            weights = [passes.place(layer, w[0]) for layer, w in zip(memory.layers, read, strict=True)]

            def call() -> object:
                with memory.replaced(weights):
                    return passes(batch)

            return call

        times = race({"as written": as_written} | {name: prepare(name) for name in COMPUTE}, rounds)
    ratios = {name: times["as written"] / times[name] for name in COMPUTE}
    return {"passes": name, "batch": list(batch.shape), "seconds": times, "times as fast": ratios}


def create_drawer(step: str, precision: str, labels: Tensor) -> nn.Module:
    """Return what draws on images [B, 3, 32, 32]: patterns, or a generator."""
    torch.manual_seed(0)
    if step == "patterns":
        return Patterned(labels)
    fuse = generators.NeuralFuse(prepare_qat(generators.create(GENERATOR)))
    return move_module(fuse, CPU, precision).train()


class Patterned(nn.Module):
    """Class patterns as a module of images only."""

    def __init__(self, labels: Tensor) -> None:
        super().__init__()
        coarseness = generators.measure_coarseness(generators.create(GENERATOR))
        self.patterns, self.labels = ClassPatterns(10, (3, 32, 32), coarseness), labels

    def forward(self, x: Tensor) -> Tensor:
        return self.patterns(x, self.labels)


class AsWritten:
    """The gradient of a step in the plain formulation: a pass through everything for each model."""

    def __init__(self, name: str, model: nn.Module, images: Tensor, labels: Tensor, naive: bool) -> None:
        self.settings, self.naive = STEPS[name], naive
        self.model = copy.deepcopy(model).requires_grad_(naive)
        self.stored, self.random = StoredWeights.of(self.model), np.random.default_rng(0)
        models = 1 + self.settings["n_models"]
        parts = models if self.settings["divided"] else 1
        batches = list(zip(images.tensor_split(parts), labels.tensor_split(parts), strict=True))
        self.batches = batches if self.settings["divided"] else batches * models
        self.drawers = [create_drawer(name, "float32", labels) for _, labels in self.batches]

    def read(self, index: int) -> list[Tensor]:
        """Return the weights of a model: 0 is the one without errors."""
        rate = RATE if index else 0.0
        if self.naive:
            weights = [flip_naively(layer, rate, self.random) for layer in self.stored.layers]
            return [weight.requires_grad_() for weight in weights]
        return [w[0] for w in self.stored.read_chips([Chip(index)], rate, None, FaultModel())]

    def __call__(self) -> None:
        for index, ((images, labels), drawer) in enumerate(zip(self.batches, self.drawers, strict=True)):
            with self.stored.replaced(self.read(index)):
                losses = cross_entropy(self.model(drawer(images)), labels, reduction="none")
            if self.settings["loss"] == "error_probability":
                losses = -torch.expm1(-losses)
            (losses.mean() * (WEIGHT / self.settings["n_models"] if index else 1)).backward()


def measure_steps(model_name: str, name: str, rounds: int) -> dict[str, object]:
    """Time the gradient of a training step, with the generator's own forward and backward pass."""
    model, images = create(model_name)
    settings = STEPS[name]
    batch = settings["batch"]
    images, labels = images[:batch].clamp(-1, 1), torch.arange(batch) % 10
    with ExitStack() as opened:

        def prepare(precision: str) -> Callable[[], object]:
            own = copy.deepcopy(model)
            drawer = create_drawer(name, precision, labels)
            objective = EOPM(
                own,
                StoredWeights.of(own),
                bit_error_rate=RATE,
                weight=WEIGHT,
                precision=precision,
                **{key: settings[key] for key in ("n_models", "divided", "loss")},
            )
            opened.enter_context(objective)
            given = images.contiguous(memory_format=choose_memory_format(CPU, precision))
            return lambda: objective.backward(drawer, given, labels, 0)

        plain: dict[str, Callable[[], object]] = {
            "naive": AsWritten(name, model, images, labels, naive=True),
            "as written": AsWritten(name, model, images, labels, naive=False),
        }
        times = race(plain | {precision: prepare(precision) for precision in COMPUTE}, rounds)
    return {
        "step": name,
        "model": model_name,
        **settings,
        "generator": None if name == "patterns" else GENERATOR,
        "seconds": times,
        "times as fast": {precision: times["as written"] / times[precision] for precision in COMPUTE},
        "times the naive one": {precision: times["naive"] / times[precision] for precision in COMPUTE},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="also write the results into this JSON file")
    parser.add_argument("--rounds", type=int, default=5, help="of all rivals, after one that is not counted")
    parser.add_argument("--only", nargs="+", choices=PASSES, help="these models")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: list[dict[str, object]] = []
    wanted = options.only or PASSES
    steps = [partial(measure_steps, STEPPED, name) for name in STEPS if STEPPED in wanted]
    for measure in [*steps, *(partial(measure_passes, name) for name in PASSES if name in wanted)]:
        found.append(measure(options.rounds))
        print(json.dumps(found[-1]), flush=True)
        if options.out:  # after each case: a loaded machine takes long
            report = {"threads": 1, "rounds": options.rounds, "results": found, **record_provenance("cpu")}
            write_text(options.out, json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
