"""Is the number of faults that a campaign injects the published formula's, and does its interval cover?"""

import json
import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from faultsim.errors import FaultsimError
from faultsim.studies.campaign import compute_margin, sample_size


def confidence(t: float) -> float:
    """Of the rounded quantiles that papers use."""
    return 2 * stats.norm.cdf(t) - 1


@pytest.mark.parametrize(
    ("population", "margin", "t", "faults"),
    [
        (10**15, 0.05, 1.96, 385),  # 1.96^2 / 4 / 0.05^2 = 384.16
        (10**15, 0.01, 1.96, 9604),  # 9604 exactly
        (10**15, 0.01, 2.58, 16641),
        (1000, 0.05, 1.96, 278),  # 1000 / (1 + 0.0025 * 999 / 0.9604) = 277.7
        (268336 * 64, 0.01, 2.58, 16625),  # stuck-at faults of ResNet-20's 268,336 float32 weights: 16,624.9
        (1, 0.05, 1.96, 1),
        (5, 0.001, 2.58, 5),
    ],
)
def test_by_hand(population, margin, t, faults):
    assert sample_size(population, margin, confidence=confidence(t)) == faults


@given(st.integers(1, 10**12), st.integers(1, 999), st.sampled_from([1.96, 2.58]), st.integers(1, 99))
def test_formula_in_exact_fractions(population, margin, t, percent):
    spread = Fraction(t) ** 2 * Fraction(percent, 100) * Fraction(100 - percent, 100)
    exact = population / (1 + Fraction(margin, 1000) ** 2 * (population - 1) / spread)
    found = sample_size(population, margin / 1000, confidence=confidence(t), proportion=percent / 100)
    # confidence() and back may move the last digits of t
    assert math.ceil(exact * (1 - Fraction(1, 10**8))) <= found <= math.ceil(exact * (1 + Fraction(1, 10**8)))


@given(st.integers(2, 10**9), st.integers(1, 400))
def test_margin_is_the_inverse(population, margin):
    faults = sample_size(population, margin / 1000, confidence=0.99)
    assert compute_margin(population, faults, confidence=0.99) <= margin / 1000 * (1 + 1e-9)
    if faults > 1:
        assert compute_margin(population, faults - 1, confidence=0.99) > margin / 1000 * (1 - 1e-9)


def test_whole_population_has_no_error():
    assert compute_margin(1000, 1000) == 0


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_interval_covers(share):
    """Exactly, by the hypergeometric distribution of a sample without replacement: 95 % but for the steps of counts."""
    population, margin = 3000, 0.03
    faults = sample_size(population, margin)
    found = stats.hypergeom(population, round(share * population), faults)
    low, high = math.ceil((share - margin) * faults), math.floor((share + margin) * faults)
    assert found.cdf(high) - found.cdf(low - 1) > 0.945


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ((0, 0.05), "population"),
        ((1000.0, 0.05), "population"),
        ((1000, 0.0), "margin"),
        ((1000, 5), "margin"),
        ((1000, math.nan), "margin"),
        ((1000, 0.05, 95), "confidence"),
        ((1000, 0.05, 0.95, 0.0), "proportion"),
    ],
)
def test_numbers_out_of_range(arguments, what):
    named = dict(zip(("confidence", "proportion"), arguments[2:], strict=False))
    with pytest.raises(FaultsimError, match=what):
        sample_size(*arguments[:2], **named)


def test_command(capsys):
    from faultsim.cli import main

    with pytest.raises(SystemExit) as ended:
        main(["sample-size", "4316864", "--json"])
    assert not ended.value.code
    found = json.loads(capsys.readouterr().out)
    assert (found["margin"], found["confidence"], found["proportion"]) == (0.01, 0.95, 0.5)
    assert found["sample_size"] == sample_size(4316864, 0.01)
    with pytest.raises(SystemExit) as ended:
        main(["sample-size", "1000", "--margin", "5%"])
    assert not ended.value.code
    assert (
        capsys.readouterr().out
        == "278 of 1,000 faults (27.8 %): the share within 5 points, with 95 % confidence\n"
    )
    for arguments in (["1000", "--margin", "5"], ["0"], ["1000", "--confidence", "nan"], ["many"]):
        with pytest.raises(SystemExit, match="2"):
            main(["sample-size", *arguments])
        assert len(capsys.readouterr().err.splitlines()) == 1
