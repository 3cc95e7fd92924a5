"""The same job by other means: 11.17 million int8 weights with 1 % of their bits flipped, in time and memory.

    python benchmarks/peers.py --out benchmarks/results/peers-cpu.json

NumPy and torch draw a mask of bits, or places of bits. MRFI (`pip install --no-deps mrfi scipy pyyaml`) draws weights
and flips one bit of each. PyTorchFI (`pip install --no-deps pytorchfi`) injects values that NumPy drew, one after the
other. Peers that are not installed are left out. Each runs in a process of its own on one thread, in turn, within
LIMIT seconds. Memory is how far its peak during the first call lies above what was used before.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch

import faultsim
from faultsim.io.files import write_text
from faultsim.io.provenance import record_provenance

WEIGHTS = 11_170_000
RATE = 0.01
LIMIT = 400
"""Seconds that a peer's process may take."""
ENOUGH = 10
"""Seconds of calls after which a peer that was called three times has ended; a slower one is called once."""


def make_faultsim(weights: torch.Tensor):
    """This package: a chip's faults."""
    from faultsim.faults import FaultModel
    from faultsim.kernel import ops

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


def make_mrfi(weights: torch.Tensor):
    """MRFI: weights of a layer, drawn with replacement, and a bit of each; without a batch, its pass costs nothing."""
    from mrfi import MRFI, EasyConfig

    layer = torch.nn.Linear(1000, weights.numel() // 1000, bias=False)
    layer.weight.data = weights.float().view(layer.weight.shape)
    rate = -math.log(1 - 8 * RATE)  # of draws, so that 8 * RATE of the weights are drawn
    injection = {
        "type": "weight",
        "name": ["weight"],
        "enabled": True,
        "selector": {"method": "RandomPositionByRate", "poisson": True, "rate": rate},
        "error_mode": {"method": "IntRandomBitFlip", "bit_width": 8},
        "module_type": ["Linear"],
    }
    model = MRFI(torch.nn.Sequential(layer), EasyConfig({"faultinject": [injection]}))
    nothing = torch.empty(0, 1000)

    def run():
        with torch.no_grad():
            model(nothing)
        return layer.weight.detach().view(-1).to(torch.int8)

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
    "MRFI, a bit of each weight that is drawn": (make_mrfi, "mrfi"),
    "PyTorchFI, at NumPy's places": (make_pytorchfi, "pytorchfi"),
}


def read_memory(name: str) -> int:
    """Return a size of this process, in KiB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def measure(name: str) -> dict:
    """Time one peer in this process, and check the rate of its flips."""
    torch.set_num_threads(1)
    weights = torch.randint(
        -127, 128, [WEIGHTS], dtype=torch.int8, generator=torch.Generator().manual_seed(0)
    )
    make, _ = PEERS[name]
    make(weights[:9000])()  # libraries are loaded
    run = make(weights)
    times = []

    def call():
        start = time.process_time()
        read = run()
        times.append(time.process_time() - start)
        return read

    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak so far is forgotten
    before = read_memory("VmRSS")
    read = call()
    peak = read_memory("VmHWM")
    while len(times) < 100 and (sum(times) < ENOUGH or (len(times) < 3 and times[0] < ENOUGH)):
        call()
    wrong = np.bitwise_xor(np.asarray(read).view(np.uint8), weights.numpy().view(np.uint8))
    rate = float(np.unpackbits(wrong).mean())
    if abs(rate - RATE) > 1e-4:  # ten standard deviations
        raise SystemExit(f"{name} flips {rate:.5f} of the bits, not {RATE}")
    return {
        "milliseconds": 1e3 * min(times),
        "calls": len(times),
        "extra_mebibytes": round((peak - before) / 1024, 1),
        "flipped": rate,
    }


def run_peer(name: str, limit: float) -> dict:
    """Measure a peer in a process of its own; one that does not end has no time."""
    package = PEERS[name][1]
    row = {"peer": name, "version": faultsim.__version__ if package == "faultsim" else version(package)}
    command = [sys.executable, __file__, "--only", name]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return {**row, "over_seconds": limit}
    return {**row, **json.loads(done.stdout.splitlines()[-1])}


def main() -> None:
    """Measure each peer that is installed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="also write the results into this JSON file")
    parser.add_argument("--only", choices=PEERS, help="this peer, in this process")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds that a peer may take")
    args = parser.parse_args()
    if args.only:
        print(json.dumps(measure(args.only)))
        return
    torch.set_num_threads(1)
    rows = []
    for name, (_, package) in PEERS.items():
        try:
            version(package)
        except PackageNotFoundError:
            print(f"{name}: not installed")
            continue
        rows.append(run_peer(name, args.limit))
        print(json.dumps(rows[-1]), flush=True)
    report = {
        "benchmark": "peers",
        "weights": WEIGHTS,
        "bit_error_rate": RATE,
        "seed": 0,
        "load": os.getloadavg()[0],
        "processors": os.cpu_count(),
        "rows": rows,
        **record_provenance("cpu"),
    }
    if args.out:
        write_text(args.out, json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
