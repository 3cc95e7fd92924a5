"""The bit error rate as the kernel's integers.

A block's number of hits K is Poisson distributed with mean 32,768 * -ln(1 - p). The kernel finds K from one 64-bit
uniform number by a table of thresholds (csrc/fault.h). This module computes the table with 60 decimal digits, so that
it is exact to the last of its 64 bits and the same everywhere.
"""

from decimal import Decimal, localcontext
from functools import lru_cache
from itertools import accumulate
from typing import Any

import numpy as np

from .errors import FaultsimError
from .sram import BLOCK_BYTES

CELLS = 8 * BLOCK_BYTES
"""Cells of one block."""
ONE = 1 << 64
HITS_AT_ONE = 1 << 21
"""Hits at p = 1. No finite number of hits reaches every cell, so the table's second entry marks all cells as failing;
these hits decide their values. They are more than any p < 1 draws (1.2 million at the largest float below 1), so that
values agree across p."""
_TAIL = Decimal("1e-70")  # relative to the mode; far below what moves a 64-bit threshold


def checked_rate(bit_error_rate: Any) -> float:
    """Return `bit_error_rate` as a float; FaultsimError unless it is a number in [0, 1]."""
    try:
        rate = float(bit_error_rate)
    except (TypeError, ValueError):
        raise FaultsimError(f"bit error rate {bit_error_rate!r} is not a number in [0, 1]") from None
    if not 0.0 <= rate <= 1.0:  # NaN included
        raise FaultsimError(f"bit error rate {rate!r} is outside [0, 1] (it is a fraction: 1 % is 0.01)")
    return rate


@lru_cache(maxsize=256)
def _table(rate: float) -> np.ndarray:
    if rate == 0.0 or rate == 1.0:
        table = np.array([HITS_AT_ONE, 1] if rate else [0, 0], np.uint64)
    else:
        with localcontext() as context:
            context.prec = 60
            mean = CELLS * -(1 - Decimal(rate)).ln()
            mode = int(mean)
            below, weight, k = [], Decimal(1), mode
            while k > 0 and weight > _TAIL:
                weight = weight * k / mean
                k -= 1
                below.append(weight)
            start = k
            above, weight, k = [], Decimal(1), mode
            while weight > _TAIL:
                k += 1
                weight = weight * mean / k
                above.append(weight)
            sums = list(accumulate([*reversed(below), Decimal(1), *above]))
            thresholds = [int(ONE * s / sums[-1]) for s in sums]
        # K = number of all thresholds <= uniform: those that are 0 count always, those at the very top never.
        first = start + sum(t == 0 for t in thresholds)
        table = np.array([first, 0, *(t for t in thresholds if 0 < t < ONE - 1)], np.uint64)
    table.setflags(write=False)
    return table


def build_hit_table(bit_error_rate: float) -> np.ndarray:
    """Build the table of the number of hits K at one bit error rate.

    Parameters
    ----------
    bit_error_rate
        A fraction from 0 to 1.

    Returns
    -------
    numpy.ndarray
        uint64 [2 + thresholds], read-only: smallest K, 1 if every cell fails, thresholds in ascending order.
        K = smallest K + number of thresholds <= uniform.

    Raises
    ------
    FaultsimError
        For a rate outside [0, 1].
    """
    return _table(checked_rate(bit_error_rate))
