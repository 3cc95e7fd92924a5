"""How much codes cost: python benchmarks/codecs.py [--out FILE]

Reads of a memory with a mitigation, decoded to float32, against plain reads of the same weights in one run, on one
thread. The rivals run in turn: a time is the least processor time of their runs, a ratio the median of those of all
turns, for what else the memory does changes from turn to turn. 4 M weights, as in a layer of 2,048 x 2,048.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from operator import truediv
from pathlib import Path

import torch

from faultsim import Chip, FaultModel, StoredWeights
from faultsim.io.files import write_text
from faultsim.io.provenance import record_provenance
from faultsim.kernel import ops
from faultsim.mitigations import (
    SECDED,
    BitMasking,
    InPlaceCode,
    MemoryMitigation,
    Parity,
    ProtectedWeights,
    RobustBits,
    WordMasking,
)

SIDE = 2048
RATES = (1e-3, 1e-2)
KINDS = ("flip", "stuck_at_random")
MITIGATIONS: tuple[MemoryMitigation, ...] = (
    SECDED("keep"),
    SECDED("zero"),
    SECDED("reread"),
    InPlaceCode("keep"),
    Parity("weight"),
    Parity("word"),
    WordMasking("weight"),
    WordMasking("word"),
    BitMasking(),
    RobustBits(2),
)


def time_in_turn(calls: list[Callable[[], object]], rounds: int) -> list[list[float]]:
    """Return the processor times of each call, in seconds; the calls take turns."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for found, call in zip(times, calls, strict=True):
            before = time.process_time()
            call()
            found.append(time.process_time() - before)
    return times


def measure(path: str, kind: str, rate: float, stored: StoredWeights, rounds: int) -> list[dict[str, object]]:
    faults, chips = FaultModel(kind), [Chip(1)]
    protected = [ProtectedWeights(stored, one) for one in MITIGATIONS]
    with ops.use_cpu_path(path):
        plain, *others = time_in_turn(
            [lambda one=one: one.read_chips(chips, rate, None, faults) for one in (stored, *protected)],
            rounds,
        )
    return [
        {
            "mitigation": mitigation.label,
            "path": path,
            "kind": kind,
            "bit_error_rate": rate,
            "plain_milliseconds": round(1e3 * min(plain), 3),
            "milliseconds": round(1e3 * min(taken), 3),
            "ratio": round(statistics.median(map(truediv, taken, plain)), 2),
        }
        for mitigation, taken in zip(MITIGATIONS, others, strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    stored = StoredWeights.of(torch.nn.Linear(SIDE, SIDE, bias=False))
    rows = []
    for path in ops.list_cpu_paths():
        for kind in KINDS:
            for rate in RATES:
                found = measure(path, kind, rate, stored, options.rounds)
                rows += found
                ratios = "  ".join(f"{row['mitigation']} {row['ratio']}" for row in found)
                print(f"{path} {kind} {rate:g}: {ratios}", flush=True)
    command = f"python benchmarks/codecs.py --rounds {options.rounds}"
    note = "other work ran on the machine: only the ratios of one run say something"
    found = {"benchmark": "codecs", "command": command, "note": note, "weights": SIDE**2, "rows": rows}
    if options.out:
        write_text(options.out, json.dumps({**found, **record_provenance("cpu")}, indent=1) + "\n")


if __name__ == "__main__":
    main()
