"""Student's t interval of a mean over chips."""

import math


def half_width(deviation: float, count: int) -> float:
    """Return half the width of the 95 % confidence interval of a mean (Student's t).

    Parameters
    ----------
    deviation
        Sample standard deviation (n - 1).
    count
        Number of chips.

    Returns
    -------
    float
        NaN for fewer than two chips.
    """
    if count < 2:
        return math.nan
    from scipy.special import stdtrit

    return float(stdtrit(count - 1, 0.975)) * deviation / math.sqrt(count)
