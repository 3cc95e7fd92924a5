"""The same job by other means: 11.17 million int8 weights with 1 % of their bits flipped, in time and memory.

    python benchmarks/peers.py --out benchmarks/results/peers-cpu.json

NumPy and torch draw a mask of bits, or places of bits. PyTorchFI (`pip install pytorchfi`, in its own environment)
injects values that NumPy drew. Each runs in a process of its own on one thread; memory is how far its peak lies above
what was used before.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch

import faultsim

WEIGHTS = 11_170_000
RATE = 0.01


def make_faultsim(weights: torch.Tensor):
    """This package: a chip's faults."""
    from faultsim import ops
    from faultsim.faults import FaultModel

    model = FaultModel()
    common = (
        ops.encode_chips([1]),
        ops.encode_rate(RATE),
        ops.encode_kind(model),
        ops.encode_addresses(model),
    )
    return lambda: torch.ops.faultsim.corrupt(weights, *common)[0]


def make_numpy_mask(weights: torch.Tensor):
    """NumPy, a uniform number for each bit."""
    stored, generator = weights.numpy().view(np.uint8), np.random.default_rng(0)

    def run():
        fails = generator.random((stored.size, 8), np.float32) < RATE
        return stored ^ np.packbits(fails, axis=1, bitorder="little")[:, 0]

    return run


def make_numpy_places(weights: torch.Tensor):
    """NumPy, a binomial number of places; a place that is drawn twice flips once."""
    stored, generator = weights.numpy().view(np.uint8), np.random.default_rng(0)

    def run():
        bits = 8 * stored.size
        places = np.unique(generator.integers(0, bits, generator.binomial(bits, RATE)))
        read = stored.copy()
        np.bitwise_xor.at(read, places >> 3, (1 << (places & 7)).astype(np.uint8))
        return read

    return run


def make_torch_mask(weights: torch.Tensor):
    """Torch, a uniform number for each bit, bit by bit."""
    stored = weights.view(torch.uint8)

    def run():
        read = stored.clone()
        for bit in range(8):
            read ^= (torch.rand(stored.shape) < RATE).to(torch.uint8) << bit
        return read

    return run


def make_pytorchfi(weights: torch.Tensor):
    """PyTorchFI: NumPy's places, injected as values of a layer's weights in one declaration."""
    from pytorchfi.core import fault_injection

    rows = weights.numel() // 9
    layer = torch.nn.Conv2d(1, rows, 3, bias=False)
    layer.weight.data = weights[: 9 * rows].float().view(-1, 1, 3, 3)
    injector = fault_injection(
        torch.nn.Sequential(layer), 1, input_shape=[1, 3, 3], layer_types=[torch.nn.Conv2d], use_cuda=False
    )
    read_places = make_numpy_places(weights[: 9 * rows])

    def run():
        read = read_places().view(np.int8)
        wrong = np.flatnonzero(read != weights[: 9 * rows].numpy())
        row, column = wrong % 9 // 3, wrong % 3
        model = injector.declare_weight_fi(
            layer_num=[0] * wrong.size,
            k=(wrong // 9).tolist(),
            dim1=[0] * wrong.size,
            dim2=row.tolist(),
            dim3=column.tolist(),
            value=read[wrong].astype(float).tolist(),
        )
        found = weights.clone()
        found[: 9 * rows] = model[0].weight.detach().view(-1).to(torch.int8)
        return found

    return run


PEERS = {
    "faultsim": (make_faultsim, "faultsim"),
    "NumPy, a number for each bit": (make_numpy_mask, "numpy"),
    "NumPy, places of bits": (make_numpy_places, "numpy"),
    "torch, a number for each bit": (make_torch_mask, "torch"),
    "PyTorchFI, at NumPy's places": (make_pytorchfi, "pytorchfi"),
}


def measure(name: str) -> dict:
    """Time one peer in this process, and check the rate of its flips."""
    torch.set_num_threads(1)
    weights = torch.randint(
        -127, 128, [WEIGHTS], dtype=torch.int8, generator=torch.Generator().manual_seed(0)
    )
    make, package = PEERS[name]
    make(weights[:9000])()  # libraries are loaded
    run = make(weights)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read = run()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    row = {
        "peer": name,
        "version": faultsim.__version__ if package == "faultsim" else version(package),
        "extra_mebibytes": round((peak - before) / 1024, 1),
    }
    times = []
    end = time.perf_counter() + 10
    while len(times) < 3 or (time.perf_counter() < end and len(times) < 100):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    wrong = np.bitwise_xor(np.asarray(read).view(np.uint8), weights.numpy().view(np.uint8))
    rate = float(np.unpackbits(wrong).mean())
    if abs(rate - RATE) > 1e-4:  # ten standard deviations
        raise SystemExit(f"{name} flips {rate:.5f} of the bits, not {RATE}")
    return {**row, "milliseconds": 1e3 * min(times), "flipped": rate}


def main() -> None:
    """Measure each peer that is installed, in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/peers-cpu.json"))
    parser.add_argument("--only", choices=PEERS)
    parser.add_argument("--commit", default="", help="commit of faultsim, for the record")
    args = parser.parse_args()
    if args.only:
        print(json.dumps(measure(args.only)))
        return
    rows = []
    for name, (_, package) in PEERS.items():
        try:
            version(package)
        except PackageNotFoundError:
            print(f"{name}: not installed")
            continue
        command = [sys.executable, __file__, "--only", name]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(rows[-1], flush=True)
    report = {
        "benchmark": "peers: 1 % of the bits of int8 weights flipped",
        "weights": WEIGHTS,
        "bit_error_rate": RATE,
        "seed": 0,
        "commit": args.commit,
        "date": time.strftime("%Y-%m-%d"),
        "processor": next(
            (
                line.split(":")[1].strip()
                for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")
            ),
            platform.processor(),
        ),
        "load": os.getloadavg()[0],
        "how": "one thread; milliseconds: least processor time of a call; extra_mebibytes: of the first call",
        "python": platform.python_version(),
        "rows": rows,
    }
    args.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
