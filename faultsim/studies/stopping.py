"""When a sweep that stops at a precision stops: it looks after fixed numbers of chips, at each operating point.

The looks lie close together, so that few chips are evaluated in vain, and far enough apart that looking costs nothing.
All variants see the same chips, so that their differences are paired. What is decided depends on the values of the
chips before a look only.
"""

from collections.abc import Sequence

import numpy as np

from ..chips.measured_chip import AnyChip, MeasuredChip
from ..errors import FaultsimError
from ..evaluation import Evaluation
from ..metrics.metric import Metric
from .precision import LEAST_CHIPS, check_precision, compute_half_widths


def plan_looks(chips: int, precision: float | None) -> tuple[int, ...]:
    """Plan after how many chips a sweep looks.

    Without a precision once, after all chips; else after each 10 chips, and from 100 chips on after another tenth.
    """
    if precision is None:
        return (chips,)
    looks = [min(LEAST_CHIPS, chips)]
    while looks[-1] < chips:
        looks.append(min(chips, looks[-1] + max(LEAST_CHIPS, looks[-1] // 10)))
    return tuple(looks)


def check_stopping(precision: float | None, chips: Sequence[AnyChip]) -> float | None:
    """Return the precision as a float; raise FaultsimError for one that is not positive, or needs other chips."""
    if precision is None:
        return None
    if any(isinstance(chip, MeasuredChip) for chip in chips):
        raise FaultsimError(
            "a precision cannot be combined with measured chips: they are not drawn at random"
        )
    if len(chips) < LEAST_CHIPS:
        raise FaultsimError(f"a precision needs at least {LEAST_CHIPS} chips: {len(chips)} were given")
    return check_precision(precision)


def measure_widths(
    evaluations: Sequence[Evaluation], precision: float, bit_error_rate: float
) -> tuple[list[float], list[float | None]]:
    """Measure how well an operating point is known.

    Parameters
    ----------
    evaluations : sequence of Evaluation
        Of the variants, on the same chips.
    precision : float
        Half width that is precise enough, in the unit of the metric.
    bit_error_rate : float
        Of the operating point: at 0 all chips are equal.

    Returns
    -------
    tuple of two lists
        Half widths of the 95 % confidence sequence of each variant; and of the difference of each to the first, None
        for the first itself.
    """
    values = np.array([evaluation.values for evaluation in evaluations])
    with np.errstate(invalid="ignore"):  # infinite values have no difference
        series = np.concatenate([values, values[1:] - values[0]])
    widths = compute_half_widths(series, precision, _reach(evaluations[0].metric, bit_error_rate))[
        :, -1
    ].tolist()
    return widths[: len(values)], [None, *widths[len(values) :]]


def is_precise(evaluations: Sequence[Evaluation], precision: float, bit_error_rate: float) -> bool:
    """Return whether all variants and differences are known to a precision; arguments as for measure_widths."""
    alone, differences = measure_widths(evaluations, precision, bit_error_rate)
    return all(width <= precision for width in (*alone, *differences) if width is not None)


def _reach(metric: Metric, bit_error_rate: float) -> float | None:
    """How far from the mean an unseen chip may lie: see compute_half_widths."""
    if bit_error_rate == 0:
        return 0.0
    return 1.0 if metric.fraction else None
