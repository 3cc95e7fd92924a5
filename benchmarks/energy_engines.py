"""Time of the energy engines on the paper's 11 networks: python benchmarks/energy_engines.py

Both engines' counts are compared before anything is timed. Tracing and the closed form are medians of 20 runs
after one that warms up; SCALE-Sim runs once per network. The peak memory is that of this process, PyTorch
included.
"""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable

from energy import POLICIES, Layer, closed_form, find_differences, scalesim, trace_layers
from faultsim import models
from faultsim.io.provenance import record_provenance
from neuralfuse import generators
from neuralfuse.network_energy import create_shapes

RUNS = 20
SHAPE = (3, 32, 32)


def milliseconds(function: Callable[[], object], runs: int = RUNS) -> float:
    """Median time of one call."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        function()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def main() -> None:
    print(record_provenance("cpu"))
    print(
        f"{'network':<9}{'layers':>7}{'trace ms':>10}{'closed form ms':>16}{'SCALE-Sim ms':>14}{'ratio':>9}"
    )
    scalesim.count([Layer("warm up", 1, 1, 1, 1, 1, 1)])
    for name in (*models.BASE_MODELS, *generators.NAMES):
        network = create_shapes(name)
        policy = POLICIES["paper-generator" if name in generators.NAMES else "paper"]
        layers = trace_layers(network, SHAPE, policy)
        counts = []
        simulated = milliseconds(lambda layers=layers, to=counts: to.append(scalesim.count(layers)), runs=1)
        if found := find_differences(closed_form.count(layers), counts[0]):
            raise SystemExit(f"{name}: the engines differ: {found}")
        traced = milliseconds(lambda net=network, policy=policy: trace_layers(net, SHAPE, policy))
        formula = milliseconds(lambda layers=layers: closed_form.count(layers))
        print(
            f"{name:<9}{len(layers):>7}{traced:>10.1f}{formula:>16.3f}{simulated:>14.0f}"
            f"{simulated / formula:>8,.0f}x"
        )
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
