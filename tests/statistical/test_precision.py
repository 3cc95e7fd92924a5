"""Does a sweep that stops when it is precise enough say what is true, and stop at the same chip every time?

The simulations are small ones of benchmarks/precision.py. Seeds are fixed; each test's false-alarm rate is ALARM: the
probability of rejecting, with a seed drawn anew, intervals that cover with the probability that the test asks for.
"""

import importlib.util
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import integrate, stats

from faultsim.errors import FaultsimError
from faultsim.studies.precision import BOUNDARY, LEAST_CHIPS, compute_half_widths, count_chips_needed

ALARM = 1e-6
BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "precision.py"

accuracies = arrays(np.float64, st.integers(1, 60), elements=st.integers(0, 50).map(lambda right: right / 50))


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("benchmark_of_precision", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_boundary_is_that_of_a_wiener_process():
    """By the reflection principle for a bridge from 0 to x at time 1, and by time inversion from there on."""

    def stays(x: float) -> float:
        images = np.arange(-6, 7)
        return float(((-1.0) ** images * np.exp(-((x - 2 * images * BOUNDARY) ** 2 - x**2) / 2)).sum())

    covered = integrate.quad(lambda x: stats.norm.pdf(x) * stays(x) ** 2, -BOUNDARY, BOUNDARY)[0]
    assert covered == pytest.approx(0.95, abs=1e-8)


def test_by_hand():
    values = [0.5, 0.7] * 6  # 12 chips: mean 0.6, squared deviations 12 * 0.01
    quantile = stats.t.ppf(stats.norm.cdf(BOUNDARY), 11)
    width = quantile * math.sqrt((12 * 0.01 / 11 + 1 / 12) / 12)
    assert compute_half_widths(values, 0.05)[-1] == pytest.approx(width**2 / 0.05)
    assert compute_half_widths(values, 0.05, reach=None)[-1] == pytest.approx(
        quantile**2 * (12 * 0.01 / 11 + 0.2**2 / 12) / 12 / 0.05
    )
    assert compute_half_widths(values, 0.9)[-1] == 0.9
    assert np.isinf(compute_half_widths(values, 0.9)[: LEAST_CHIPS - 1]).all()


@given(accuracies, st.sampled_from([0.3, 0.4, 0.6]))
def test_decision_depends_on_the_chips_before_it_only(values, precision):
    needed = count_chips_needed(values, precision)
    for chips in range(1, len(values) + 1):
        assert count_chips_needed(values[:chips], precision) == (
            needed if needed and chips >= needed else None
        )
    widths = compute_half_widths(values, precision)
    assert needed == (
        int(np.flatnonzero(widths == precision)[0]) + 1 if (widths == precision).any() else None
    )


@given(accuracies, accuracies)
def test_several_series_stop_when_the_last_one_does(first, second):
    chips = min(len(first), len(second))
    both = np.stack([first[:chips], second[:chips]])
    alone = [compute_half_widths(series, 0.4) <= 0.4 for series in both]
    together = np.flatnonzero(alone[0] & alone[1])
    assert count_chips_needed(both, 0.4) == (together[0] + 1 if together.size else None)


@given(accuracies, st.sampled_from([0.125, 2.0, 64.0]), st.sampled_from([-3.0, 0.0, 8.0]))
def test_units_and_zero_do_not_matter(values, unit, zero):
    """Powers of 2, so that nothing is rounded by them."""
    moved = compute_half_widths((values * 64).round() * unit + zero, 16 * unit, 64 * unit)
    np.testing.assert_allclose(moved, unit * compute_half_widths((values * 64).round(), 16, 64), rtol=1e-9)


def test_chips_that_agree_are_not_trusted_unless_nothing_can_fail():
    same = np.full(2000, 0.99)
    needed = count_chips_needed(same, 0.005)
    assert 2 / 0.005 < needed < 2.5 / 0.005
    assert count_chips_needed(same, 0.005, reach=0) == LEAST_CHIPS
    assert count_chips_needed(same, 0.005, reach=None) == LEAST_CHIPS
    assert count_chips_needed(same[: needed - 1], 0.005) is None


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_values_that_are_no_numbers_are_never_precise(bad):
    values = np.full(2000, 0.9)
    values[700] = bad
    assert count_chips_needed(values[:700], 0.005) is not None
    values[20] = bad
    assert count_chips_needed(values, 0.005) is None


@pytest.mark.parametrize("precision", [0.0, -0.01, math.nan, math.inf])
def test_precision_must_be_a_positive_number(precision):
    with pytest.raises(FaultsimError, match="positive half width"):
        count_chips_needed([0.5] * 20, precision)


@pytest.mark.parametrize(
    ("draw", "mean"),
    [
        (lambda rng, shape: rng.normal(0.6, 0.15, shape), 0.6),
        (lambda rng, shape: rng.beta(8, 2, shape), 0.8),
        (lambda rng, shape: np.where(rng.random(shape) < 0.05, 0.5, 0.99), 0.9655),  # a few lose half of all
    ],
    ids=["normal", "beta", "rare losses"],
)
def test_all_looks_together_cover(draw, mean):
    """The sequence, at all looks together, in 95 % of studies; the issue of a sweep is its last look."""
    sweeps, precision = 600, 0.03
    values = draw(np.random.default_rng(5), (sweeps, 500))
    widths = compute_half_widths(values, precision)
    assert (widths[:, -1] == precision).all()
    means = values.cumsum(axis=-1) / np.arange(1, 501)
    missed = int((np.abs(means - mean) > widths).any(axis=-1).sum())
    assert stats.binom.sf(missed - 1, sweeps, 0.05) > ALARM


def test_default_sweep_takes_few_chips_and_covers(benchmark):
    """A small part of benchmarks/results/precision-cpu.json, on what 200 chips of the default sweep measured."""
    sweeps = 100
    found = benchmark.study(benchmark.measured(), 0.01, sweeps, ["sequence"], seed=1)["rules"]["sequence"]
    assert found["share_of_fixed"] < 0.5
    covered = [share for point in found["points"] for share in point["covers"]]
    missed = round(sweeps * (1 - min(covered)))
    assert stats.binom.sf(missed - 1, sweeps, 0.06) > ALARM / len(covered)


def test_results_kept_are_those_promised():
    """2,000 sweeps: at most half the chips of a fixed number for half a point, and 94 % of all intervals cover."""
    report = json.loads((BENCHMARK.parent / "results" / "precision-cpu.json").read_text(encoding="utf-8"))
    studies = {study["precision"]: study for study in report["studies"]}
    assert studies[0.005]["sweeps"] == 2000
    assert studies[0.005]["rules"]["sequence"]["share_of_fixed"] < 0.5
    for study in studies.values():
        assert study["rules"]["sequence"]["covers_least"] > 0.94
