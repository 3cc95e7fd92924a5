"""The bit error rate as the kernel's integers.

An array's number of hits K is Poisson distributed with mean 32,768 * -ln(1 - p); the kernel reads K off one 64-bit
uniform through a table of thresholds (csrc/fault.h). The table is made here with 60 decimal digits, so that it is
exact to the last of its 64 bits and the same everywhere.
"""

from decimal import Decimal, localcontext
from functools import lru_cache
from itertools import accumulate
from typing import Any

import numpy as np

from .errors import FaultsimError

CELLS = 32768  # of one draw: a 512x64 array
ONE = 1 << 64
# For p = 1 no finite number of hits reaches every cell. All cells fail by decree, and this many hits decide their
# states: more than any p < 1 draws (1.2 million at the largest float below 1), so that states agree across p.
HITS_AT_ONE = 1 << 21
_TAIL = Decimal("1e-70")  # relative to the mode; far below what moves a 64-bit threshold


def checked_rate(bit_error_rate: Any) -> float:
    """`bit_error_rate` as a float; FaultsimError unless it is a number in [0, 1]."""
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


def draw_table(bit_error_rate: float) -> np.ndarray:
    """Table of K for one bit error rate: uint64 [2 + thresholds] = smallest K, 1 if every cell fails, thresholds
    ascending. K = smallest K + number of thresholds <= uniform.

    Raises FaultsimError for a rate that is no number in [0, 1].
    """
    return _table(checked_rate(bit_error_rate))
