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
from .errors import EnergyError

if TYPE_CHECKING:
    from torch import nn

    from .trace import CountingPolicy


class Curve(Protocol):
    """What `faultsim.voltage.VoltageCurve` offers and this module needs."""

    def energy_per_access(self, voltage: float) -> float:
        """Energy of one access at `voltage`, in any unit."""


AnyCurve = Curve | Callable[[float], float]


def nominal_voltage(curve: AnyCurve) -> float:
    """Vmin in the unit of the curve."""
    return float(getattr(curve, "v_min", 1.0))


def weight_memory(
    model: nn.Module,
    input_shape: Sequence[int],
    accelerator: Accelerator = PAPER,
    policy: CountingPolicy | None = None,
) -> int:
    """Weight memory accesses of one inference (the paper's T.W.M.A.), by the closed form.

    `policy` is how layers become rows, the paper's for base models unless given; a NeuralFuse generator is
    counted with `energy.POLICIES["paper-generator"]`. Layers that can't be counted are left out:
    `energy.trace_model` says which weights the counted ones read.
    Raises EnergyError for a model of which no layer can be counted.
    """
    from .trace import POLICIES, trace_model

    layers = trace_model(model, input_shape, policy or POLICIES["paper"]).layers
    if not layers:
        raise EnergyError(f"no layer of this {type(model).__name__} can be counted")
    return count(layers, accelerator).weight_memory_accesses


def relative_energy(curve: AnyCurve, voltage: float) -> float:
    """Energy per access at `voltage` over that at Vmin.

    Raises EnergyError for a voltage that isn't positive, and for a curve whose energy isn't.
    """
    if not (math.isfinite(voltage) and voltage > 0):
        raise EnergyError(f"a voltage has to be a positive number, not {voltage}")
    vmin = nominal_voltage(curve)
    energy = curve.energy_per_access if hasattr(curve, "energy_per_access") else curve
    low, nominal = float(energy(voltage)), float(energy(vmin))
    for at, value in ((voltage, low), (vmin, nominal)):
        if not (math.isfinite(value) and value > 0):
            raise EnergyError(
                f"the energy per access at voltage {at} has to be a positive number, not {value}"
            )
    return low / nominal


def energy_saving(
    base_accesses: int,
    curve: AnyCurve,
    voltage: float,
    generator_accesses: int = 0,
    generator_voltage: float | None = None,
) -> float:
    """The share of the base model's energy at Vmin that is saved, from 1 downwards; negative is a loss.

    The base model runs at `voltage` and the generator, if there is one, at `generator_voltage`, Vmin unless
    given (the paper's equation 2).
    """
    if base_accesses < 1 or generator_accesses < 0:
        raise EnergyError(
            f"accesses have to be positive, not {base_accesses} of the base model and "
            f"{generator_accesses} of the generator"
        )
    spent = base_accesses * relative_energy(curve, voltage)
    if generator_voltage is None:
        spent += generator_accesses
    else:
        spent += generator_accesses * relative_energy(curve, generator_voltage)
    return 1 - spent / base_accesses


def break_even_voltage(
    base_accesses: int, generator_accesses: int, curve: AnyCurve, lowest: float | None = None
) -> float | None:
    """The highest voltage at which a generator at Vmin costs no more than the low voltage saves.

    Below it, base model and generator together take less energy than the base model at Vmin. The energy per
    access has to fall with the voltage. None when the generator doesn't pay anywhere down to `lowest`,
    which is the curve's own `v_low`, or half of Vmin, unless given.
    """
    from scipy.optimize import brentq

    vmin = nominal_voltage(curve)
    if lowest is None:
        lowest = float(getattr(curve, "v_low", vmin / 2))
    if not 0 < lowest < vmin:
        raise EnergyError(f"the lowest voltage has to lie between 0 and Vmin, {vmin:g}, not at {lowest}")

    def saving(voltage: float) -> float:
        return energy_saving(base_accesses, curve, voltage, generator_accesses)

    if saving(vmin) >= 0:  # no generator, so nothing to win back
        return vmin
    if saving(lowest) < 0:
        return None
    return float(brentq(saving, lowest, vmin))


def energy_optimal_voltage(
    rows: Iterable[Mapping[str, Any]],
    accuracy_floor: float,
    base_accesses: int,
    curve: AnyCurve,
    generator_accesses: int = 0,
    accuracy: str = "mean",
    voltage: str = "voltage",
) -> float | None:
    """The voltage of a sweep that takes the least energy while its accuracy is at least `accuracy_floor`.

    `rows` are the summary rows of a sweep, `accuracy` and `voltage` the names of their columns; accuracy and
    floor have one unit, fractions as in faultsim's results, or percent. Equal energies go to the higher
    accuracy. None when no voltage reaches the floor. Raises EnergyError for a row without these columns, and
    for a floor of the other unit.
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
        saved = energy_saving(base_accesses, curve, at, generator_accesses)
        if best is None or (saved, reached) > best[:2]:
            best = (saved, reached, at)
    if 0 < accuracy_floor <= 1 < highest or 0 < highest <= 1 < accuracy_floor:
        raise EnergyError(
            f"an accuracy floor of {accuracy_floor:g} for accuracies up to {highest:g}: both have to be "
            "fractions, or both percent"
        )
    return None if best is None else best[2]
