"""Weight-memory energy of an inference, and what a lower voltage saves (the paper's equation 2).

Energy is accesses times energy per access. A curve is anything that tells the energy per access at a voltage:
an object with `energy_per_access(voltage)`, or a function of the voltage. Only ratios enter, so the unit of
the energy doesn't matter. Vmin, the lowest voltage without bit errors, is the curve's `v_min`; a curve
without one is taken to be normalized, so that Vmin is 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from .accelerator import PAPER, Accelerator
from .closed_form import count
from .counts import NetworkCounts
from .errors import EnergyError

if TYPE_CHECKING:
    from torch import nn

    from .dry_run import Example
    from .trace import CountingPolicy


class Curve(Protocol):
    """What `faultsim.voltage.VoltageCurve` offers and this module needs."""

    def energy_per_access(self, voltage: float) -> float:
        """Return the energy of one access at `voltage`, in any unit."""


AnyCurve = Curve | Callable[[float], float]


def find_nominal_voltage(curve: AnyCurve) -> float:
    """Return Vmin in the unit of the curve."""
    return float(getattr(curve, "v_min", 1.0))


def count_weight_accesses(
    model: nn.Module,
    input_shape: Sequence[int] | Example,
    accelerator: Accelerator = PAPER,
    policy: CountingPolicy | None = None,
) -> int:
    """Count the weight memory accesses of one inference (the paper's T.W.M.A.), by the closed form.

    Layers that cannot be counted are left out: `energy.trace_model` says which weights the counted ones read.

    Parameters
    ----------
    model
        Any module. It is unchanged afterwards.
    input_shape
        Shape of one input without the batch, such as (3, 32, 32), or an example of the inputs.
    accelerator
        Default: the paper's.
    policy
        How layers become rows. Default: the paper's for base models; `energy.POLICIES["paper-generator"]` is its policy
        for generators.

    Raises
    ------
    EnergyError
        For a model of which no layer can be counted.
    """
    return _count(model, input_shape, accelerator, policy).weight_memory_accesses


def count_input_accesses(
    model: nn.Module,
    input_shape: Sequence[int] | Example,
    accelerator: Accelerator = PAPER,
    policy: CountingPolicy | None = None,
    bits: int = 8,
) -> int:
    """Count the input memory accesses of one inference, by the closed form.

    Parameters
    ----------
    model, input_shape, accelerator, policy
        As for `count_weight_accesses`.
    bits
        Width of an activation. An access reads as many as fit into a word.

    Raises
    ------
    EnergyError
        For a model of which no layer can be counted.
    """
    return _count(model, input_shape, accelerator, policy).count_input_accesses(bits)


def _count(
    model: nn.Module,
    input_shape: Sequence[int] | Example,
    accelerator: Accelerator,
    policy: CountingPolicy | None,
) -> NetworkCounts:
    from .trace import POLICIES, trace_model

    layers = trace_model(model, input_shape, policy or POLICIES["paper"]).layers
    if not layers:
        raise EnergyError(f"no layer of this {type(model).__name__} can be counted")
    return count(layers, accelerator)


def compute_relative_energy(curve: AnyCurve, voltage: float) -> float:
    """Return the energy per access at `voltage` over that at Vmin.

    Raises
    ------
    EnergyError
        For a voltage that is not positive, and for a curve whose energy is not.
    """
    if not (math.isfinite(voltage) and voltage > 0):
        raise EnergyError(f"a voltage has to be a positive number, not {voltage}")
    vmin = find_nominal_voltage(curve)
    energy = curve.energy_per_access if hasattr(curve, "energy_per_access") else curve
    low, nominal = float(energy(voltage)), float(energy(vmin))
    for at, value in ((voltage, low), (vmin, nominal)):
        if not (math.isfinite(value) and value > 0):
            raise EnergyError(
                f"the energy per access at voltage {at} has to be a positive number, not {value}"
            )
    return low / nominal


def compute_saving(
    base_accesses: int,
    curve: AnyCurve,
    voltage: float,
    generator_accesses: int = 0,
    generator_voltage: float | None = None,
    input_accesses: int = 0,
    input_voltage: float | None = None,
) -> float:
    """Return the share of the base model's energy at Vmin that is saved (the paper's equation 2).

    The energy is that of the weight memory; with `input_accesses` that of weight and input memory together.

    Parameters
    ----------
    base_accesses
        Weight memory accesses of one inference of the base model.
    curve
        Energy per access against voltage.
    voltage
        Supply voltage of the base model, in the unit of the curve.
    generator_accesses
        Weight memory accesses of one inference of the generator.
    generator_voltage
        Its supply voltage. Default: Vmin.
    input_accesses
        Input memory accesses of one inference of the base model, from `count_input_accesses`.
    input_voltage
        Supply voltage of the input memory. Default: that of the base model.

    Returns
    -------
    float
        From 1 downwards; negative is a loss.
    """
    if base_accesses < 1 or generator_accesses < 0 or input_accesses < 0:
        raise EnergyError(
            f"accesses have to be positive, not {base_accesses} of the base model and "
            f"{generator_accesses} of the generator"
            + f", {input_accesses} of the inputs"
            * (input_accesses < 0)
        )
    spent = base_accesses * compute_relative_energy(curve, voltage)
    if generator_voltage is None:
        spent += generator_accesses
    else:
        spent += generator_accesses * compute_relative_energy(curve, generator_voltage)
    if input_accesses:
        spent += input_accesses * compute_relative_energy(
            curve, voltage if input_voltage is None else input_voltage
        )
    return 1 - spent / (base_accesses + input_accesses)


def find_break_even_voltage(
    base_accesses: int, generator_accesses: int, curve: AnyCurve, lowest: float | None = None
) -> float | None:
    """Find the highest voltage at which a generator at Vmin costs no more than the low voltage saves.

    Below it, base model and generator together take less energy than the base model at Vmin. The energy per access has
    to fall with the voltage.

    Parameters
    ----------
    base_accesses, generator_accesses
        Weight memory accesses of one inference of each.
    curve
        Energy per access against voltage.
    lowest
        Lowest voltage to look at. Default: the curve's own `v_low`, or half of Vmin.

    Returns
    -------
    float or None
        None where the generator does not pay anywhere down to `lowest`.
    """
    from scipy.optimize import brentq

    vmin = find_nominal_voltage(curve)
    if lowest is None:
        lowest = float(getattr(curve, "v_low", vmin / 2))
    if not 0 < lowest < vmin:
        raise EnergyError(f"the lowest voltage has to lie between 0 and Vmin, {vmin:g}, not at {lowest}")

    def saving(voltage: float) -> float:
        return compute_saving(base_accesses, curve, voltage, generator_accesses)

    if saving(vmin) >= 0:  # no generator, so nothing to win back
        return vmin
    if saving(lowest) < 0:
        return None
    return float(brentq(saving, lowest, vmin))


def find_optimal_voltage(
    rows: Iterable[Mapping[str, Any]],
    accuracy_floor: float,
    base_accesses: int,
    curve: AnyCurve,
    generator_accesses: int = 0,
    accuracy: str = "mean",
    voltage: str = "voltage",
) -> float | None:
    """Find the voltage of a sweep that takes the least energy while its accuracy is at least a floor.

    Parameters
    ----------
    rows
        Summary rows of a sweep.
    accuracy_floor
        In the unit of the accuracies: fractions as in faultsim's results, or percent.
    base_accesses, generator_accesses
        Weight memory accesses of one inference of each.
    curve
        Energy per access against voltage.
    accuracy, voltage
        Names of the columns.

    Returns
    -------
    float or None
        None where no voltage reaches the floor. Equal energies go to the higher accuracy.

    Raises
    ------
    EnergyError
        For a row without these columns, and for a floor of the other unit.
    """
    best: tuple[float, float, float] | None = None
    highest = 0.0
    for row in rows:
        try:
            reached, at = float(row[accuracy]), float(row[voltage])
        except (KeyError, TypeError, ValueError):
            raise EnergyError(
                f"a summary row needs numbers in {accuracy!r} and {voltage!r}; it has {dict(row)}"
            ) from None
        highest = max(highest, reached)
        if reached < accuracy_floor:
            continue
        saved = compute_saving(base_accesses, curve, at, generator_accesses)
        if best is None or (saved, reached) > best[:2]:
            best = (saved, reached, at)
    if 0 < accuracy_floor <= 1 < highest or 0 < highest <= 1 < accuracy_floor:
        raise EnergyError(
            f"an accuracy floor of {accuracy_floor:g} for accuracies up to {highest:g}: both have to be "
            "fractions, or both percent"
        )
    return None if best is None else best[2]
