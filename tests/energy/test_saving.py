"""Energy saving: equation 2 by hand, where it is zero, and the best voltage of a sweep."""

import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from energy import (
    Accelerator,
    EnergyError,
    compute_relative_energy,
    compute_saving,
    count_input_accesses,
    count_weight_accesses,
    find_break_even_voltage,
    find_optimal_voltage,
)

voltages = st.floats(0.5, 1.0)
accesses = st.integers(1, 10**9)


@dataclass
class InVolts:
    """A characterized SRAM: Vmin is 0.8 V, energies in picojoules."""

    v_min: float = 0.8
    v_low: float = 0.6

    def energy_per_access(self, voltage: float) -> float:
        return 5.0 * voltage**2


def square(voltage: float) -> float:
    return voltage**2


def test_equation_2_by_hand() -> None:
    # base 1,000 accesses, generator 100, energy at 0.5 Vmin a quarter: 1,000 -> 250 + 100
    assert compute_saving(1000, square, 0.5, 100) == pytest.approx(0.65)
    assert compute_saving(1000, square, 0.5) == pytest.approx(0.75)
    # the generator at the low voltage too: 250 + 25
    assert compute_saving(1000, square, 0.5, 100, generator_voltage=0.5) == pytest.approx(0.725)
    assert compute_saving(1000, square, 1.0, 100) == pytest.approx(-0.1)


def test_the_input_memory_adds_its_own_energy_by_hand() -> None:
    # 1,000 weight and 500 input accesses: at half the voltage a quarter of both; inputs at Vmin: 250 + 500 of 1,500
    assert compute_saving(1000, square, 0.5, input_accesses=500) == pytest.approx(0.75)
    assert compute_saving(1000, square, 0.5, input_accesses=500, input_voltage=1.0) == pytest.approx(0.5)
    assert compute_saving(1000, square, 0.5, 150, input_accesses=500) == pytest.approx(0.65)
    with pytest.raises(EnergyError, match="-1 of the inputs"):
        compute_saving(1000, square, 0.5, input_accesses=-1)


def test_inputs_of_a_linear_layer_are_read_once_for_all_columns() -> None:
    # 64 inputs, 33 outputs on 32 columns: two passes, 8 inputs an access, or 16 of 4 bits
    model = nn.Linear(64, 33)
    assert count_input_accesses(model, (64,)) == 2 * 64 // 8
    assert count_input_accesses(model, (64,), bits=4) == 2 * 64 // 16


def test_a_curve_in_volts_is_relative_to_its_own_vmin() -> None:
    assert compute_relative_energy(InVolts(), 0.8) == 1.0
    assert compute_saving(1000, InVolts(), 0.6, 100) == pytest.approx(1 - 0.5625 - 0.1)


@given(accesses, voltages, st.floats(1e-6, 1e6))
def test_the_unit_of_the_energy_does_not_matter(base: int, voltage: float, unit: float) -> None:
    scaled = compute_saving(base, lambda v: unit * square(v), voltage, 7)
    assert scaled == pytest.approx(compute_saving(base, square, voltage, 7))


@given(accesses, st.floats(0.001, 0.7), st.sampled_from([square, InVolts()]))
def test_nothing_is_saved_at_the_break_even_voltage(base: int, share: float, curve) -> None:
    generator = math.ceil(share * base)
    at = find_break_even_voltage(base, generator, curve)
    if at is None:
        lowest = 0.6 if isinstance(curve, InVolts) else 0.5
        assert compute_saving(base, curve, lowest, generator) < 0
    else:
        assert compute_saving(base, curve, at, generator) == pytest.approx(0, abs=1e-9)
        assert compute_saving(base, curve, 0.99 * at, generator) > 0


def test_break_even_ends() -> None:
    assert find_break_even_voltage(1000, 0, square) == 1.0
    assert find_break_even_voltage(1000, 900, square) is None
    assert find_break_even_voltage(1000, 900, square, lowest=0.1) == pytest.approx(math.sqrt(0.1))
    for lowest in (0.0, 1.0, -1.0):
        with pytest.raises(EnergyError, match="lowest voltage has to lie between 0 and Vmin"):
            find_break_even_voltage(1000, 100, square, lowest)


SWEEP = [
    {"voltage": "0.80", "mean": "40.0"},
    {"voltage": "0.85", "mean": "87.9"},
    {"voltage": "0.90", "mean": "90.1"},
    {"voltage": "1.00", "mean": "91.0"},
]


def test_energy_optimal_voltage() -> None:
    assert find_optimal_voltage(SWEEP, 90, 1000, square) == 0.90
    assert find_optimal_voltage(SWEEP, 87.9, 1000, square) == 0.85
    assert find_optimal_voltage(SWEEP, 0, 1000, square, generator_accesses=500) == 0.80
    assert find_optimal_voltage(SWEEP, 99, 1000, square) is None
    flat = find_optimal_voltage(SWEEP, 0, 1000, lambda _: 2.0)
    assert flat == 1.00  # at equal energy the better accuracy


def test_bad_input_is_refused() -> None:
    for voltage in (0.0, -0.5, math.nan, math.inf):
        with pytest.raises(EnergyError, match="voltage has to be a positive number"):
            compute_saving(1000, square, voltage)
    with pytest.raises(
        EnergyError, match=r"energy per access at voltage 0\.5 has to be a positive number, not -1.0"
    ):
        compute_saving(1000, lambda v: v - 1.5, 0.5)
    with pytest.raises(EnergyError, match="accesses have to be positive"):
        compute_saving(0, square, 0.5)
    with pytest.raises(EnergyError, match="summary row needs numbers in 'accuracy' and 'voltage'"):
        find_optimal_voltage(SWEEP, 90, 1000, square, accuracy="accuracy")


def test_weight_memory_of_a_model() -> None:
    # 1x1 convolution, 4 -> 16 channels on an 8x8 map: 64 weights, read for 2 folds of 32 pixels
    model = nn.Conv2d(4, 16, 1)
    assert count_weight_accesses(model, (4, 8, 8)) == 2 * 64 // 8
    assert count_weight_accesses(model, (4, 8, 8), Accelerator(64, 64)) == 64 // 8
    assert count_weight_accesses(model, (4, 8, 8), Accelerator(word_bits=128)) == 2 * 64 // 16


def test_a_floor_of_another_unit_is_refused() -> None:
    fractions = [{"voltage": row["voltage"], "mean": float(row["mean"]) / 100} for row in SWEEP]
    assert find_optimal_voltage(fractions, 0.9, 1000, square) == 0.90
    for rows, floor in ((SWEEP, 0.9), (fractions, 90)):
        with pytest.raises(EnergyError, match="both have to be fractions, or both percent"):
            find_optimal_voltage(rows, floor, 1000, square)
