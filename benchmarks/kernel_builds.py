"""Two builds of the kernel, called in turn: time of each beside a copy of the same bytes.

    python benchmarks/kernel_builds.py --before OLD/faultsim/_native.*.so --out RESULT.json

Build the earlier commit in a checkout of its own (`python setup.py build_ext --inplace`). Each build runs in a process
of its own with this checkout's Python, which has to fit both: in one process, pybind11 would give the second build the
functions of the first. Both must give the same bytes.
"""

import argparse
import hashlib
import importlib.util
import itertools
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

RATES = (1e-2, 1e-3, 1e-4)
WEIGHTS = 11_170_000
SEED = 1


def load_build(path: str) -> None:
    """Make a build the kernel of this process."""
    import faultsim

    spec = importlib.util.spec_from_file_location("faultsim._native", path)
    assert spec is not None
    assert spec.loader is not None
    kernel = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(kernel)
    sys.modules["faultsim._native"] = faultsim._native = kernel


def serve(path: str, weights: int, threads: int) -> None:
    """Answer each line of a kind, a rate and a number of calls: the digest of the output, and least times in ms."""
    load_build(path)
    import numpy as np
    import torch

    from faultsim.faults import FaultModel
    from faultsim.kernel import ops

    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)
    source = torch.randint(-127, 128, [weights], dtype=torch.int8, generator=generator)
    out = torch.empty_like(source)
    for line in sys.stdin:
        vector_path, kind, rate, calls = line.split()
        faults = FaultModel.preset(kind) if kind == "neuralfuse_2022" else FaultModel(kind=kind)
        draw = ops.Draw(
            ops.encode_chips([SEED]),
            ops.encode_rate(float(rate)),
            ops.encode_kind(faults),
            ops.encode_addresses(faults),
        )
        copies, times = [], []
        for _ in range(int(calls)):
            start = time.perf_counter()
            np.copyto(out.numpy(), source.numpy()) if threads == 1 else out.copy_(source)
            copied = time.perf_counter()
            with ops.use_cpu_path(vector_path):
                ops.launch(source, out, draw)
            copies.append(copied - start)
            times.append(time.perf_counter() - copied)
        digest = hashlib.sha256(out.numpy()).hexdigest()
        print(json.dumps([digest, 1e3 * min(copies), 1e3 * min(times)]), flush=True)


class Build:
    """A process with one build."""

    def __init__(self, path: Path, weights: int, threads: int) -> None:
        words = [sys.executable, __file__, "--serve", str(path), "--weights", str(weights)]
        words += ["--threads", str(threads)]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, *words: object) -> list:
        """Time calls."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(*words, file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def compare(builds: list[Build], words: tuple[str, str, float], rounds: int) -> dict:
    """Time one kind at one rate in both builds."""
    found = [[build.ask(*words, 4) for build in builds] for _ in range(rounds)]
    if len({answer[0] for answers in found for answer in answers}) != 1:
        raise SystemExit(f"the builds give other bytes for {words}")
    copy = min(answer[1] for answers in found for answer in answers)
    before, after = (min(answers[i][2] for answers in found) for i in range(2))
    row = {"path": words[0], "operation": f"corrupt, {words[1]}", "bit_error_rate": words[2]}
    row |= {"copy_ms": round(copy, 3), "before_ms": round(before, 3), "after_ms": round(after, 3)}
    row |= {"before_ratio": round(copy / before, 2), "after_ratio": round(copy / after, 2)}
    medians = [statistics.median(answers[i][1] / answers[i][2] for answers in found) for i in range(2)]
    return row | {"before_median": round(medians[0], 2), "after_median": round(medians[1], 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, help="compiled kernel of the earlier commit")
    parser.add_argument("--after", type=Path, help="that of the later one (default: this checkout's)")
    parser.add_argument("--paths", default="avx512,avx2")
    parser.add_argument("--kinds", default="flip,stuck_at_random,transient,neuralfuse_2022")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--weights", type=int, default=WEIGHTS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve:
        return serve(chosen.serve, chosen.weights, chosen.threads)
    if chosen.before is None:
        parser.error("--before is missing")
    from faultsim.io.provenance import record_provenance
    from faultsim.kernel.native import native

    after = chosen.after or Path(str(native().__file__))
    builds = [Build(path, chosen.weights, chosen.threads) for path in (chosen.before, after)]
    rows = []
    for words in itertools.product(chosen.paths.split(","), chosen.kinds.split(","), RATES):
        rows.append(compare(builds, words, chosen.rounds))
        print(*rows[-1].values(), sep="  ")
    for build in builds:
        build.close()
    result = {
        "benchmark": "two builds of the CPU kernel",
        "command": " ".join(["python", *sys.argv]),
        **record_provenance(),
        "threads": chosen.threads,
        "weights": chosen.weights,
        "seed": SEED,
        "how": "each build in a process of its own, in turn, a copy before each call; "
        f"{chosen.rounds} rounds of 4 calls; ms: least of all; ratio: least copy / least call; "
        "median: of the rounds' least copy / least call; "
        "the outputs are the same bytes",
        "rows": rows,
    }
    if chosen.out:
        chosen.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
