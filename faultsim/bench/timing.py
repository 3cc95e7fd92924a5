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
        return statistics.median(self.samples)

    @property
    def spread(self) -> float:
        """Half the distance of the quartiles, relative to the median."""
        low, _, high = statistics.quantiles(self.samples, n=4)
        return (high - low) / 2 / self.median


def rivals(
    calls: Sequence[Callable[[], object]],
    *,
    device: torch.device,
    seconds: float,
    warm_up: int = 3,
    least: int = 7,
) -> list[Times]:
    """Times of each call: after a warm-up, rounds in which every call is timed once, until `seconds` are over (at
    least `least` rounds). On a GPU by its own events."""
    cuda = device.type == "cuda"
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
                before = time.perf_counter()
                call()
                taken.append(time.perf_counter() - before)
    return [Times(tuple(taken)) for taken in samples]
