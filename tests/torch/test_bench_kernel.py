"""Does the benchmark of the kernel measure what was promised for a GPU?"""

import pytest
import torch

from faultsim.bench.kernel import RATES, time_kernel
from faultsim.bench.timing import time_rivals


@pytest.mark.cuda
def test_every_target_has_its_row():
    rows = list(time_kernel(torch.device("cuda"), seconds=0))
    found = {(r.operation, r.weights, r.bit_error_rate): r.target for r in rows if r.target is not None}
    names = [
        ("corrupt, flip", 10**9),
        ("corrupt, flip", 11_170_000),
        ("10 chips to bfloat16, flip", 11_170_000),
    ]
    targets = [(0.80, 0.90, 0.93), (0.5, 0.5, 0.5), (0.75, 0.75, 0.75)]
    assert found == {
        (*name, rate): target
        for name, three in zip(names, targets, strict=True)
        for rate, target in zip(RATES, three, strict=True)
    }
    assert all(row.ratio > 0 and row.path == "cuda" for row in rows)


@pytest.mark.cuda
def test_graphs_time_the_gpu_and_not_python():
    """A kernel of a few hundred nanoseconds: launched one by one it takes Python's microseconds."""
    x = torch.zeros(16, device="cuda")
    device = torch.device("cuda")
    (single,) = time_rivals([lambda: x.add_(1)], device=device, seconds=0.2)
    (many,) = time_rivals([lambda: x.add_(1)], device=device, seconds=0.2, graphs=True)
    assert many.median < single.median


def test_no_target_on_a_cpu():
    """Nor is a GPU's buffer of 1 GB there."""
    rows = list(time_kernel(torch.device("cpu"), weights=14_000, seconds=0))
    assert {row.weights for row in rows} == {14_000}
    assert {row.target for row in rows} == {None}
