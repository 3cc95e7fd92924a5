"""Sharper mean accuracies from what each chip's faults say without inference.

A chip whose faults change the weights more than those of most chips loses more accuracy than most. How much a chip
changes the weights is known without a forward pass, and so is its expected value, from as many further chips as one
likes. A regression on it takes the part of the variance that it explains out of the mean over the chips that were
evaluated: control variates (Lavenberg, Welch: "A perspective on the use of control variables to increase the efficiency
of Monte Carlo simulations", Management Science 27, 1981).

What that gains depends on the fault model, as docs/log.md shows. Where each weight has cells of its own, next to
nothing; where few cells stand for many weights, as under neuralfuse_2022, about a third of the chips.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from ..chips.measured_chip import as_chip
from ..errors import FaultsimError
from ..faults import Chip, FaultModel
from ..perturbation import corrupt_stored
from ..stored import StoredWeights


@dataclass(frozen=True)
class ControlledMean:
    """A mean that control variates sharpened."""

    mean: float
    """Of the metric; unlike a mean of accuracies, it may lie slightly outside [0, 1]."""
    standard_error: float
    """Of the mean."""
    interval: tuple[float, float]
    """95 % (Student's t)."""
    factor: float
    """So many times as many chips would be needed for the same standard error without control variates."""


def measure_changes(
    stored: StoredWeights,
    chips: Sequence[Chip | int],
    *,
    bit_error_rate: float,
    faults: FaultModel | None = None,
) -> NDArray[np.float64]:
    """Measure by how much each chip changes the weights of each layer.

    Parameters
    ----------
    stored : StoredWeights
        The model's weights in the memory.
    chips : sequence of Chip or int
        Chips, or their seeds.
    bit_error_rate : float
        Share of failing cells, 0 to 1.
    faults : FaultModel or None
        As for evaluate(). Transient faults are those of the first read.

    Returns
    -------
    array of shape [chips, layers], float64
        Euclidean norms of the changes of the int8 values.

    Raises
    ------
    FaultsimError
        For a bit error rate that is out of range.
    """
    found = []
    for chip in chips:
        read = corrupt_stored(stored, as_chip(chip), bit_error_rate=bit_error_rate, faults=faults)
        pairs = zip(stored.layers, read.layers, strict=True)
        squares = [(new.values.int() - old.values.int()).square().sum() for old, new in pairs]
        found.append(torch.stack(squares).double().sqrt().cpu())
    return torch.stack(found).numpy() if found else np.zeros((0, len(stored.layers)))


def estimate_control_mean(values: ArrayLike, variates: ArrayLike, others: ArrayLike) -> ControlledMean:
    """Estimate the mean of a metric over all chips from those that were evaluated and the control variates of others.

    Parameters
    ----------
    values : array of shape [chips]
        The metric of each evaluated chip.
    variates : array of shape [chips, k]
        Control variates of the same chips, such as measure_changes() gives.
    others : array of shape [m, k]
        Control variates of other chips, drawn in the same way, whose mean stands for the expected value. Ten times as
        many as there are evaluated chips make its error small; the standard error counts it.

    Returns
    -------
    ControlledMean
        Estimate, standard error, interval and gain.

    Raises
    ------
    FaultsimError
        For fewer than k + 3 evaluated chips or 2 others, and shapes that don't fit.
    """
    values, variates, others = (np.asarray(given, dtype=np.float64) for given in (values, variates, others))
    if variates.ndim != 2 or values.shape != variates.shape[:1] or others.shape[1:] != variates.shape[1:]:
        raise FaultsimError(
            f"control variates must be [chips, k] for values [chips]: not {variates.shape} and {others.shape} "
            f"for {values.shape}"
        )
    chips, count = variates.shape
    if chips < count + 3 or len(others) < 2:
        raise FaultsimError(
            f"{chips} chips and {len(others)} others are too few for {count} control variates: "
            f"evaluate at least {count + 3}, and give 2 others"
        )
    expected = others.mean(axis=0)
    scale = np.concatenate([variates, others]).std(axis=0)
    usable = scale > 0
    design = np.column_stack([np.ones(chips), (variates - expected)[:, usable] / scale[usable]])
    inverse = np.linalg.pinv(design)
    coefficients = inverse @ values
    free = chips - np.linalg.matrix_rank(design)
    residual = float(((values - design @ coefficients) ** 2).sum() / free)
    spread = others[:, usable] / scale[usable] @ coefficients[1:]
    variance = residual * float(inverse[0] @ inverse[0]) + float(spread.var(ddof=1)) / len(others)
    mean, error = float(coefficients[0]), float(np.sqrt(variance))
    half = float(stdtrit(free, 0.975)) * error
    plain = float(values.var(ddof=1)) / chips
    return ControlledMean(mean, error, (mean - half, mean + half), plain / variance if variance else 1.0)
