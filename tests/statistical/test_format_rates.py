"""Does each bit of each format read wrong with probability p, and each weight with 1 - (1 - p)**bits?

One seed, fixed. ALARM is the probability with which each test would reject a correct memory if its seed were drawn
anew, all of its comparisons together.
"""

import numpy as np
import pytest
import torch
from scipy import stats

from faultsim import Chip, corrupt
from faultsim.formats import Format, reference

ALARM = 1e-6
NAMES = [*(f"int{b}" for b in range(2, 9)), "uint4", "int3-unpacked", *reference.FLOATS]


def likely(count: int, n: int, p: float, tests: int) -> bool:
    """Whether a Binomial(n, p) count is within its two-sided (1 - ALARM / tests) interval."""
    tail = min(stats.binom.cdf(count, n, p), stats.binom.sf(count - 1, n, p))
    return 2 * tail > ALARM / tests


@pytest.mark.parametrize("rate", [1e-3, 0.03])
@pytest.mark.parametrize("name", NAMES)
def test_rates(name, rate):
    stored, weights = Format.parse(name), 200_000
    torch.manual_seed(0)
    codes, _ = stored.encode(torch.randn(weights))
    image = stored.pack(codes)
    read = corrupt(image.view(torch.int8), Chip(20_26), bit_error_rate=rate)
    wrong = stored.pack(stored.unpack(read, [weights])) ^ image  # unused cells are gone
    bits = reference.weight_bits(wrong.numpy(), weights, stored.width, stored.cells)
    tests = stored.width + 1
    for k in range(stored.width):
        assert likely(int(bits[:, k].sum()), weights, rate, tests), k
    assert likely(int(bits.any(1).sum()), weights, 1 - (1 - rate) ** stored.width, tests)
    assert np.count_nonzero(bits) > 0
