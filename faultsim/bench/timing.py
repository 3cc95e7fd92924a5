"""Times of several rivals, taken in turn so that a drifting machine slows them all alike."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Times:
    """Seconds of one call."""

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median of the samples, in seconds."""
        return statistics.median(self.samples)

    @property
    def spread(self) -> float:
        """Half the distance of the quartiles, relative to the median."""
        low, _, high = statistics.quantiles(self.samples, n=4)
        return (high - low) / 2 / self.median


def _as_graph(call: Callable[[], object], seconds: float = 5e-3) -> tuple[Callable[[], object], int]:
    """Capture a call many times over in one CUDA graph, at most `seconds` long; return its replay and the number.

    Python takes longer to launch a kernel than a small one runs: alone between two events, both rivals would take
    Python's time.
    """
    start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    for _ in range(3):  # modules are loaded and memory is there before the capture
        start.record()
        call()
        stop.record()
        stop.synchronize()
    count = max(1, min(1000, round(seconds / (start.elapsed_time(stop) / 1000))))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(count):
            call()
    return graph.replay, count


def time_rivals(
    calls: Sequence[Callable[[], object]],
    *,
    device: torch.device,
    seconds: float,
    warm_up: int = 3,
    least: int = 7,
    graphs: bool = False,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Times]:
    """Time several calls in turn, on a GPU by its own events.

    Parameters
    ----------
    calls : sequence of callables
        The rivals. Each round times every one of them once.
    device : torch.device
        Where they compute.
    seconds : float
        How long rounds are repeated.
    warm_up : int
        Rounds before the timed ones.
    least : int
        Least number of timed rounds.
    graphs : bool
        On a GPU: time the mean of many calls in one CUDA graph. Every rival then finds in the cache what its own last
        call left there.

    Returns
    -------
    list of Times
        One for each call.
    """
    cuda = device.type == "cuda"
    counts = [1] * len(calls)
    if cuda and graphs:
        graphed = [_as_graph(call) for call in calls]
        calls, counts = [replay for replay, _ in graphed], [count for _, count in graphed]
    for _ in range(warm_up):
        for call in calls:
            call()
    samples: list[list[float]] = [[] for _ in calls]
    end = time.perf_counter() + seconds
    rounds = 0
    while rounds < least or (time.perf_counter() < end and rounds < 1000):
        rounds += 1
        for taken, call in zip(samples, calls, strict=True):
            if cuda:
                start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
                start.record()
                call()
                stop.record()
                stop.synchronize()
                taken.append(start.elapsed_time(stop) / 1000)
            else:
                before = clock()
                call()
                taken.append(clock() - before)
    return [
        Times(tuple(sample / count for sample in taken)) for taken, count in zip(samples, counts, strict=True)
    ]
