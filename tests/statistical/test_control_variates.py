"""Do control variates sharpen a mean without moving it, and are the changes of the weights what they are called?

Seeds are fixed; ALARM is the false-alarm rate of each test.
"""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from faultsim import FaultModel, StoredWeights, evaluation_chips
from faultsim.errors import FaultsimError
from faultsim.perturbation import corrupt_stored
from faultsim.studies.control_variates import estimate_control_mean, measure_changes

ALARM = 1e-6


@pytest.fixture(scope="module")
def stored():
    torch.manual_seed(0)
    return StoredWeights.of(nn.Sequential(nn.Linear(40, 30), nn.Linear(30, 20), nn.Linear(20, 5)))


def test_changes_are_norms_of_what_each_chip_reads(stored):
    chips, faults = evaluation_chips(3, 4), FaultModel.preset("neuralfuse_2022")
    found = measure_changes(stored, chips, bit_error_rate=0.05, faults=faults)
    assert found.shape == (4, 3)
    for chip, row in zip(chips, found, strict=True):
        read = corrupt_stored(stored, chip, bit_error_rate=0.05, faults=faults)
        for old, new, norm in zip(stored.layers, read.layers, row, strict=True):
            assert norm == pytest.approx(np.linalg.norm(new.values.numpy() - old.values.double().numpy()))
    assert measure_changes(stored, [], bit_error_rate=0.05).shape == (0, 3)
    assert (measure_changes(stored, [chip.seed for chip in chips], bit_error_rate=0) == 0).all()


def test_expected_change_of_independent_flips(stored):
    """Of one weight: p sum of 4^k, and for each pair of bits 2 p^2 times the product of what their flips add."""
    rate, chips = 0.02, 400
    squares = measure_changes(stored, evaluation_chips(0, chips), bit_error_rate=rate) ** 2
    for layer, found in zip(stored.layers, squares.T, strict=True):
        bits = np.unpackbits(layer.values.numpy().astype(np.uint8).reshape(-1, 1), axis=1, bitorder="little")
        steps = (1 - 2.0 * bits) * 2.0 ** np.arange(8) * np.array([1] * 7 + [-1])
        pairs = steps.sum(axis=1) ** 2 - (steps**2).sum(axis=1)
        expected = (rate * (steps**2).sum(axis=1) + rate**2 * pairs).sum()
        score = (found.mean() - expected) / (found.std(ddof=1) / math.sqrt(chips))
        assert 2 * stats.norm.sf(abs(score)) > ALARM / 3


def test_values_that_follow_from_the_variates_have_no_error_but_that_of_the_others():
    rng = np.random.default_rng(0)
    variates, others = rng.normal(size=(20, 2)), rng.normal(size=(1000, 2))
    found = estimate_control_mean(0.5 + variates @ [0.1, -0.2], variates, others)
    assert found.mean == pytest.approx(0.5 + others.mean(axis=0) @ [0.1, -0.2])
    assert found.standard_error == pytest.approx((others @ [0.1, -0.2]).std(ddof=1) / math.sqrt(1000))


def test_variates_that_never_vary_change_nothing():
    values = np.random.default_rng(1).normal(size=12)
    found = estimate_control_mean(values, np.full((12, 2), 3.0), np.full((50, 2), 3.0))
    assert found.mean == pytest.approx(values.mean())
    assert found.interval == pytest.approx(stats.t.interval(0.95, 11, values.mean(), stats.sem(values)))
    assert found.factor == pytest.approx(1)


def test_interval_covers_and_is_narrower():
    """Correlation 0.8: 1 / (1 - 0.64) = 2.8 times fewer chips, less what the fit and the others take."""
    rng, times, covered, factors = np.random.default_rng(2), 600, 0, []
    for _ in range(times):
        variates, others = rng.normal(size=(40, 1)), rng.normal(size=(400, 1))
        found = estimate_control_mean(0.8 * variates[:, 0] + 0.6 * rng.normal(size=40), variates, others)
        covered += found.interval[0] <= 0 <= found.interval[1]
        factors.append(found.factor)
    assert stats.binom.cdf(covered, times, 0.95) > ALARM / 2
    assert stats.binom.sf(covered - 1, times, 0.95) > ALARM / 2
    assert 2.0 < np.median(factors) < 2.8


@pytest.mark.parametrize(
    ("values", "variates", "others"),
    [((10,), (10,), (20,)), ((10,), (9, 2), (20, 2)), ((10,), (10, 2), (20, 3)), ((4,), (4, 2), (20, 2))],
)
def test_what_does_not_fit_or_suffice_is_refused(values, variates, others):
    with pytest.raises(FaultsimError, match="control variates"):
        estimate_control_mean(np.zeros(values), np.zeros(variates), np.zeros(others))
