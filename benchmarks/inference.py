"""Speed of a perturbed model's passes on a CPU: python benchmarks/inference.py [--out FILE]

Forward passes as faultsim.evaluate makes them (in float32 and in bfloat16), against torch with the model as it is
written; and training steps of a generator (EOPM) in bfloat16, against those in float32. The rivals run in turn, in one
process, on one thread; a time is the median processor time of their runs. Weights are random: speed does not depend on
them.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from faultsim import Chip, FaultModel, StoredWeights, models, prepare_qat
from faultsim.batch import find_answer
from faultsim.bundled import LANGUAGE_MODELS
from faultsim.fold import folded
from faultsim.inference import COMPUTE, Passes
from faultsim.io.files import write_text
from faultsim.io.provenance import record_provenance
from faultsim.models.language import PREFIX, load_language_model
from faultsim.training.loop import choose_memory_format, move_module
from neuralfuse import generators
from neuralfuse.eopm import EOPM

RATE = 0.01
CPU = torch.device("cpu")
IMAGES = 256
PASSES = ("DigitsNet", "DigitsVGG", "CharGPT", "MobileNetV2", "VGG11", "ResNet18")
STEPS = ("VGG11",)
STEP: dict[str, Any] = {"batch": 64, "n_models": 2, "generator": "ConvS"}


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

    with torch.inference_mode(), folded(folding, StoredWeights.of(folding)) as memory:

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


def measure_steps(name: str, rounds: int) -> dict[str, object]:
    """Time the gradient of a generator's training step, with the generator's own forward and backward pass."""
    model, images = create(name)
    images, labels = images[: STEP["batch"]].clamp(-1, 1), torch.arange(STEP["batch"]) % 10
    with ExitStack() as opened:

        def prepare(precision: str) -> Callable[[], object]:
            own = copy.deepcopy(model)
            fuse = generators.NeuralFuse(prepare_qat(generators.create(STEP["generator"])))
            move_module(fuse, CPU, precision).train()
            objective = EOPM(
                own,
                StoredWeights.of(own),
                bit_error_rate=RATE,
                n_models=STEP["n_models"],
                precision=precision,
            )
            opened.enter_context(objective)
            batch = images.contiguous(memory_format=choose_memory_format(CPU, precision))
            return lambda: objective.backward(fuse, batch, labels, 0)

        times = race({precision: prepare(precision) for precision in COMPUTE}, rounds)
    return {"step": name, **STEP, "seconds": times, "times as fast": times["float32"] / times["bfloat16"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="also write the results into this JSON file")
    parser.add_argument("--rounds", type=int, default=5, help="of all rivals, after one that is not counted")
    parser.add_argument("--only", nargs="+", choices=PASSES, help="these models")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: list[dict[str, object]] = []
    cases = [(measure_steps, name) for name in STEPS] + [(measure_passes, name) for name in PASSES]
    for measure, name in cases:
        if name not in (options.only or [name]):
            continue
        found.append(measure(name, options.rounds))
        print(json.dumps(found[-1]), flush=True)
        if options.out:  # after each case: a loaded machine takes long
            report = {"threads": 1, "rounds": options.rounds, "results": found, **record_provenance("cpu")}
            write_text(options.out, json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
