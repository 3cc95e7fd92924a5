"""How much faults in activations cost: python benchmarks/activations.py [--out FILE]

An inference with the inputs of all layers quantized to 8 bits and read through faulty cells, against the same inference
with the same quantization and no faults, and against the float model. The rivals run in turn, in one process, on one
thread; a time is the median of their runs. "fake" is torch's own fused fake quantization, the fastest way to quantize
activations in torch without storing them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from faultsim import ActivationMemory, Chip, FaultModel, calibrate, models, perturbed_activations
from faultsim.activations.memory import INPUT_SRAM, Sites
from faultsim.activations.ranges import hook_layer
from faultsim.bench.timing import time_rivals
from faultsim.io.files import write_text
from faultsim.io.provenance import record_provenance

RATE = 0.01
CASES = {
    "DigitsNet": (3, 32, 32, 64),
    "VGG11": (3, 32, 32, 8),
    "ResNet18": (3, 32, 32, 4),
    "MLP": (784, 256),
}


def create(name: str) -> nn.Module:
    if name == "MLP":
        layers = [nn.Linear(784, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10)]
        return nn.Sequential(*layers).eval()
    return models.create(name).eval()


@contextmanager
def fake(model: nn.Module, memory: ActivationMemory):
    """Quantize the inputs with torch's fused operator."""

    def quantizer(scale: float) -> Callable[[str, Tensor], Tensor]:
        return lambda place, x: torch.fake_quantize_per_tensor_affine(x, scale, 0, -127, 127)

    with ExitStack() as undo:
        for name, seen in memory.ranges.sites.items():
            scale = max(abs(seen.low), abs(seen.high)) / 127
            hook_layer(model.get_submodule(name), "input", quantizer(scale), undo)
        yield


def measure(name: str, kind: str, seconds: float) -> dict[str, object]:
    *shape, batch = CASES[name]
    torch.manual_seed(0)
    model = create(name)
    x = torch.randn(batch, *shape)
    memory = ActivationMemory(calibrate(model, [x]), "int8", FaultModel(kind, INPUT_SRAM))

    def call(context: Callable[[], object] | None = None) -> Callable[[], object]:
        def run() -> Tensor:
            return model(x)

        if context is None:
            return run

        def within() -> Tensor:
            with context():
                return model(x)

        return within

    # What a `with` block does once is not part of an inference: entered anew in each run, but prepared before.
    plain = Sites(model, memory, x.device)
    faulty = Sites(model, memory, x.device, [Chip(7)], bit_error_rate=RATE)
    faulty.take(0, 1)
    faulty.read()
    faulty.use(0)
    with torch.inference_mode():
        with perturbed_activations(model, Chip(7), memory, bit_error_rate=RATE):
            expected = model(x)
        with faulty:
            assert torch.equal(model(x), expected)
        times = time_rivals(
            [call(), call(lambda: plain), call(lambda: fake(model, memory)), call(lambda: faulty)],
            device=x.device,
            seconds=seconds,
        )
    floats, quantized, fused, read = (one.median for one in times)
    return {
        "model": name,
        "kind": kind,
        "batch": batch,
        "milliseconds": {
            "float": 1e3 * floats,
            "quantized": 1e3 * quantized,
            "fake": 1e3 * fused,
            "faulty": 1e3 * read,
        },
        "faulty_over_quantized": read / quantized,
        "faulty_over_fake": read / fused,
        "faulty_over_float": read / floats,
        "spread": max(one.spread for one in times),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="also write the results into this JSON file")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each case")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = []
    for name in CASES:
        for kind in ("flip", "stuck_at_random"):
            found.append(measure(name, kind, options.seconds))
            print(json.dumps(found[-1]), flush=True)
    if options.out:
        report = {"bit_error_rate": RATE, "threads": 1, "results": found, **record_provenance("cpu")}
        write_text(options.out, json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
