"""When a sweep is precise enough: a confidence sequence of fixed width over chips.

A study measures chip after chip, looks at the mean after each, and stops once it knows the mean to within a precision
d. A usual 95 % interval is valid for one look, after a number of chips chosen beforehand. The intervals here are
valid at all looks together: with a probability of 95 % all of them cover the expected value, for whatever reason a
study ends. Their half width after n chips is

    h = max(d, w^2 / d),  w = c sqrt((s^2 + r^2 / n) / n),

with the sample standard deviation s. So h = d, and the study may end, as soon as w <= d.

- The sum of n deviations from the expected value behaves as a Wiener process. Up to the chip at which w = d, its
  boundary is constant: the group-sequential design of O'Brien and Fleming (Biometrics 35, 1979) with as many looks as
  chips, whose end the data say (information-based monitoring). From there on the boundary is the line n d. The
  process crosses the two parts with equal probabilities (time inversion), and c makes the probability of crossing
  either of them 5 %.
- What holds for the Wiener process holds for all distributions of finite variance as d becomes small: an asymptotic
  confidence sequence (Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas, Annals of Statistics 52, 2024), with the stopping
  rule of fixed-width intervals (Chow, Robbins, Annals of Mathematical Statistics 36, 1965). For few chips, the
  quantile of Student's t distribution takes the place of c.
- Where most chips lose little and a few lose all, the first chips say nothing of the few. r guards against that: the
  variance counts one unseen chip that lies r from the mean. With r = 1, no sweep of accuracies ends before about 2.4
  / d chips, unless it is known that no chip can fail.

benchmarks/precision.py measures by simulation what chips this takes and what share of the intervals covers.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, stdtrit  # scipy.stats takes half a second to import

from ..errors import FaultsimError

LEAST_CHIPS = 10
"""Chips before the first decision."""

BOUNDARY = 2.344743196
"""c for 95 %: a Wiener process crosses max(c, c t) or its negative, t >= 0, with a probability of 5 %."""


def compute_half_widths(
    values: ArrayLike, precision: float, reach: float | None = 1.0
) -> NDArray[np.float64]:
    """Compute the half widths of the confidence sequence after 1, 2, ... chips.

    Parameters
    ----------
    values : array of shape [..., chips]
        A metric's value on each chip, in the order of the chips; or the difference of two variants on the same chips.
        The chips are independent draws, and the variance of their values exists.
    precision : float
        Half width that is precise enough, in the unit of the values, above 0: a fraction for an accuracy.
    reach : float or None
        How far from the mean an unseen chip may lie. The default is for metrics between 0 and 1, and their differences;
        0 where all chips are known to be equal. None, for metrics without bounds, assumes that an unseen chip lies no
        further from the mean than the chips seen so far lie from one another.

    Returns
    -------
    array of shape [..., chips], float64
        Never below `precision`; infinite for fewer than LEAST_CHIPS chips, and from a value on that is not finite.

    Raises
    ------
    FaultsimError
        For a precision that is not a positive number.
    """
    precision = check_precision(precision)
    values = np.asarray(values, dtype=np.float64)
    chips = np.arange(1, values.shape[-1] + 1)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        if reach is None:
            unseen: np.ndarray | np.float64 = np.maximum.accumulate(values, axis=-1) - np.minimum.accumulate(
                values, axis=-1
            )
        else:
            unseen = np.float64(reach)
        deviations = values - values[..., :1]  # sums of squares lose no digits to a common value
        sums, squares = deviations.cumsum(axis=-1), (deviations**2).cumsum(axis=-1)
        variances = np.maximum(squares - sums**2 / chips, 0) / (chips - 1) + unseen**2 / chips
        quantiles = stdtrit(np.maximum(chips - 1, 1), ndtr(BOUNDARY))
        widths: np.ndarray = np.maximum(precision, quantiles**2 * variances / (chips * precision))
    widths[np.isnan(widths)] = math.inf
    widths[..., : LEAST_CHIPS - 1] = math.inf
    return widths


def count_chips_needed(values: ArrayLike, precision: float, reach: float | None = 1.0) -> int | None:
    """Count the chips after which the mean is known to within `precision`.

    The answer depends on the values up to that chip only: not on how many more were computed, or in which order.

    Parameters
    ----------
    values : array of shape [chips] or [series, chips]
        As for compute_half_widths(). Several series, such as two variants and their difference, all have to be
        precise enough after the same number of chips.
    precision, reach
        As for compute_half_widths().

    Returns
    -------
    int or None
        The smallest number of chips that is enough; None where these are too few.

    Raises
    ------
    FaultsimError
        For a precision that is not a positive number.
    """
    widths = compute_half_widths(values, precision, reach)
    enough = (widths <= precision).reshape(-1, widths.shape[-1]).all(axis=0)
    return int(enough.argmax()) + 1 if enough.any() else None


def check_precision(precision: float) -> float:
    """Return the precision as a float; raise FaultsimError unless it is a positive number."""
    if not (math.isfinite(precision) and precision > 0):
        raise FaultsimError(
            f"precision {precision} cannot be reached: give a positive half width of the interval"
        )
    return float(precision)
