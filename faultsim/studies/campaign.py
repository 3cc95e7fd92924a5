"""How many single faults a campaign has to inject: the sample size for a finite population of faults.

Leveugle, Calvez, Maistri, Vanhauwaert: "Statistical fault injection: quantified error and confidence", DATE 2009. The
population is all faults that could be injected, such as each bit of each weight (at each point in time); a campaign
injects a random sample of them, without replacement, and estimates the share that has some effect.
"""

import math

from scipy.special import ndtri

from ..errors import FaultsimError
from ..support.integers import checked_integer


def sample_size(population: int, margin: float, *, confidence: float = 0.95, proportion: float = 0.5) -> int:
    """Count the faults to inject, so that the estimated share is within `margin` of the true one.

    n = N / (1 + e^2 (N - 1) / (t^2 p (1 - p))), rounded up.

    Parameters
    ----------
    population : int
        N, all faults that could be injected, at least 1.
    margin : float
        e, half width of the confidence interval of the share, a fraction above 0 and below 1.
    confidence : float
        Probability with which the interval covers, above 0 and below 1; t is its two-sided normal quantile (the paper
        rounds it to 1.96 for 0.95 and 2.58 for 0.99).
    proportion : float
        p, what the share is expected to be, above 0 and below 1. The default needs the most faults.

    Returns
    -------
    int
        n, at most `population`.

    Raises
    ------
    FaultsimError
        For numbers out of range.
    """
    population = checked_integer(population, "population", 1)
    _check_fraction(margin, "margin")
    spread = _quantile(confidence) ** 2 * _variance(proportion)
    # whole faults; not one more for the last digit of a float
    wanted = population / (1 + margin**2 * (population - 1) / spread)
    return min(population, math.ceil(wanted * (1 - 1e-12)))


def compute_margin(
    population: int, sample: int, *, confidence: float = 0.95, proportion: float = 0.5
) -> float:
    """Compute the half width of the confidence interval of a share that a campaign estimated.

    Parameters
    ----------
    population : int
        N, all faults that could have been injected, at least 1.
    sample : int
        n, the faults that were injected, 1 to `population`, drawn without replacement.
    confidence, proportion
        As for sample_size().

    Returns
    -------
    float
        e, a fraction; 0 where all faults were injected.

    Raises
    ------
    FaultsimError
        For numbers out of range.
    """
    population = checked_integer(population, "population", 1)
    sample = checked_integer(sample, "sample", 1, population)
    if sample == population:
        return 0.0
    spread = _quantile(confidence) ** 2 * _variance(proportion)
    return math.sqrt(spread * (population - sample) / (sample * (population - 1)))


def _quantile(confidence: float) -> float:
    """Return the two-sided quantile of the normal distribution."""
    _check_fraction(confidence, "confidence")
    return float(ndtri((1 + confidence) / 2))


def _variance(proportion: float) -> float:
    """Return the variance of one fault that has the effect with this probability."""
    _check_fraction(proportion, "proportion")
    return proportion * (1 - proportion)


def _check_fraction(value: float, name: str) -> None:
    """FaultsimError unless it is above 0 and below 1."""
    if not 0 < value < 1:
        raise FaultsimError(f"{name} {value} is out of range: it must be a fraction above 0 and below 1")
