"""Are fractions and percent never mixed up, and are empty words and odd values refused in one line?"""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faultsim.cli.numerals import accuracy, fraction, parse_numbers
from faultsim.errors import FaultsimError
from faultsim.show.units import format_percent
from tests.cli.small_files import SMALL


@given(st.decimals(0, 1, places=6))
def test_percent_with_its_sign_is_the_same_fraction(value):
    assert (
        fraction(f"{value}") == fraction(f"{100 * value}%") == fraction(f" {100 * value} % ") == float(value)
    )


@given(st.integers(1, 10_000))
def test_what_is_printed_can_be_typed(number):
    rate = number / 10_000
    assert fraction(format_percent(rate)) == pytest.approx(rate, rel=5e-3)


def test_an_accuracy_is_a_fraction_percent_with_its_sign_or_above_one():
    assert accuracy("0.97") == accuracy("97%") == accuracy("97") == 0.97
    assert accuracy("1") == accuracy("100%") == accuracy("100") == 1
    assert accuracy("0.5%") == 0.005


@pytest.mark.parametrize("word", ["0", "-1", "101", "100.5%", "nan", "inf", "97 percent"])
def test_accuracies_that_cannot_be_meant(rejected, word):
    assert "write a fraction like" in rejected("sweep-voltage", *SMALL, f"--accuracy-floor={word}")


def test_a_floor_of_a_fraction_recommends_a_voltage_that_keeps_it(call):
    """0.97 was once read as 0.97 %, and met by any voltage."""
    options = ("sweep-voltage", *SMALL, "--voltages", "0.8,0.9,1")
    found = {words: call(*options, "--accuracy-floor", words)[1] for words in ("0.97", "97%", "97")}
    assert len(set(found.values())) == 1
    kept = re.findall(r"at 97 % accuracy at voltage \S+ \(([\d.]+) %", found["0.97"])
    assert kept
    assert all(float(accuracy) >= 97 for accuracy in kept)


def test_rates_are_the_same_in_every_command(call):
    for one, other in (("0.02", "2%"), ("0.005", "0.5 %")):
        answers = []
        for words in (one, other):
            status, out, err = call(
                "inject", "w.npy", "o.npy", "--chip", 1, "--bit-error-rate", words, "--json"
            )
            assert status == 0, err
            answers.append((json.loads(out)["bit_error_rate"], Path("o.npy").read_bytes()))
        assert answers[0] == answers[1]
    assert parse_numbers("0.1%,1 %,0.05", "--x", rates=True) == [0.001, 0.01, 0.05]
    assert parse_numbers("0%:2%:0.5%", "--x", rates=True) == [0, 0.005, 0.01, 0.015, 0.02]
    with pytest.raises(FaultsimError, match="not a finite number"):
        parse_numbers("80%", "--voltages")


@pytest.mark.parametrize(
    "command",
    [
        "inject w.npy o.npy --chip 1 --bit-error-rate",
        "chip 7 --bit-error-rate",
        "evaluate --bit-error-rate",
        "serve-model --bit-error-rate",
        "export --onnx m.onnx --chip 1 --bit-error-rate",
        "train-generator --generator ConvXS --out g.safetensors --bit-error-rate",
        "sweep-voltage --bit-error-rates",
        "transfer --source VGG11 --target VGG16 --show --train-bit-error-rate",
    ],
)
def test_rates_above_one_are_refused(rejected, command):
    for word in ("1.5", "150%"):
        line = rejected(*command.split(), word)
        assert "1.5" in line
        assert "[0, 1]" in line or "0 to 1" in line or "bit error rate" in line


@pytest.mark.parametrize(
    "words",
    [
        ["sweep-voltage", "--voltages", ""],
        ["sweep-voltage", "--voltages="],
        ["sweep-voltage", "--bit-error-rates", " "],
        ["sweep-voltage", "--dataset", "", *SMALL],
        ["sweep-voltage", "--out", ""],
        ["curve", "--voltages", ""],
        ["chip", "7", "--voltage", ""],
        ["evaluate", "--voltage", "0.83", "--dataset", ""],
        ["energy", "--model", "VGG11", "--generator", ""],
        ["reproduce", "table1", "--show", "--device", ""],
        ["transfer", "--source", "VGG11", "--target", "VGG16", "--generator", "", "--show"],
        ["report", ""],
    ],
)
def test_an_empty_word_is_no_default(rejected, words):
    assert "empty: give it a value, or leave it out" in rejected(*words)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("energy --model VGG11 --input-shape ²x32x32", "'²x32x32' is not an input shape"),
        ("energy --model VGG11 --input-shape 3x32x" + 5000 * "9", "is not an input shape"),
        (
            "train-base --model DigitsNet --dataset digits --out m.safetensors --seed " + 30 * "9",
            "it must be from 0 to 2**63 - 1",
        ),
        (
            "sweep-voltage --chips 99999999999",
            "99999999999 chips: at least 1 is needed, and 2**32 are the most",
        ),
        ("chip 7 --voltage 0.83 --array -1", "--array: give at most 16 numbers from 0 to 63"),
        ("inject w.npy o.npy --chip 1 --bit-error-rate 5%x", "'5%x' is not a number"),
        ("bench kernel --weights 99999999999999999 --device cpu", "not enough memory"),
        ("bench kernel --seconds -1", "--seconds"),
    ],
)
def test_odd_values_get_one_line(rejected, command, words):
    assert words in rejected(*command.split())
