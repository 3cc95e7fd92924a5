"""Do curves with picojoules give the joules of an inference by hand, in every command?"""

import csv
import json
from pathlib import Path

import pytest

from faultsim import VoltageCurve
from faultsim.show.units import format_joules
from tests.cli.small_files import PICOJOULES, SMALL


def test_a_curve_may_have_picojoules(call):
    curve = VoltageCurve.from_csv("pj.csv")
    assert curve.picojoules
    assert (curve.v_min, curve.access_pj) == (1.0, 2.5)
    assert curve.energy_per_access(0.9) == 0.8
    assert VoltageCurve.default().access_pj is None
    assert VoltageCurve(**curve.describe()) == curve
    curve.to_csv("again.csv")
    assert VoltageCurve.from_csv("again.csv") == VoltageCurve("again.csv", *list(vars(curve).values())[1:])
    assert "picojoules" not in VoltageCurve.default().describe()


def test_curve_shows_and_writes_picojoules(call):
    status, out, _ = call("curve", "--curve", "pj.csv", "--voltages", "0.9,1", "--out", "o.csv")
    assert status == 0
    rows = [
        [cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│")
    ]
    assert [row[-1] for row in rows] == ["2", "2.5"]
    assert Path("o.csv").read_text().splitlines()[0] == PICOJOULES.splitlines()[0]
    assert VoltageCurve.from_csv("o.csv").access_pj == 2.5
    points = json.loads(call("curve", "--curve", "pj.csv", "--json")[1])["points"]
    assert [point["energy_per_access_pj"] for point in points] == [1.5, 2, 2.5, 3]


def test_a_sweep_counts_picojoules_by_hand(call):
    options = ("sweep-voltage", *SMALL, "--curve", "pj.csv", "--voltages", "0.9,1")
    status, out, _ = call(*options, "--out", "run")
    assert status == 0
    accesses, generator = 15_872, 216  # by hand in test_sweep_energy.py and test_shipped_generator.py
    with Path("run/summary.csv").open(newline="") as file:
        found = [(row["variant"], float(row["energy_per_inference_pj"])) for row in csv.DictReader(file)]
    alone, fused = "unprotected", "with ConvXS"
    expected = {1.0: accesses * 2.5, 0.9: accesses * 2.0}
    assert found == [
        (alone, expected[1.0]),
        (fused, pytest.approx(expected[1.0] + generator * 2.5)),
        (alone, pytest.approx(expected[0.9])),
        (fused, pytest.approx(expected[0.9] + generator * 2.5)),
    ]
    assert "39.68 nJ" in out
    assert "31.74 nJ" in out
    summary = json.loads(call(*options, "--json")[1])["summary"]
    assert [row["energy_per_inference_pj"] for row in summary] == [value for _, value in found]
    relative = json.loads(call("sweep-voltage", *SMALL, "--voltages", "1", "--json")[1])["summary"]
    assert not any("energy_per_inference_pj" in row for row in relative)


def test_energy_says_picojoules(call):
    options = (
        "energy",
        "--model",
        "DigitsNet",
        "--generator",
        "ConvXS",
        "--curve",
        "pj.csv",
        "--voltage",
        0.9,
    )
    report = json.loads(call(*options, "--json")[1])
    assert report["energy_per_access_pj"] == 2.0
    assert report["energy_per_inference_pj"] == 15_872 * 2.0
    assert report["energy_per_inference_at_vmin_pj"] == 15_872 * 2.5
    assert (
        report["generator_energy_per_inference_pj"]
        == report["generator_counts"]["weight_memory_accesses"] * 2.5
    )
    out = " ".join(call(*options)[1].split())
    assert "39.68 nJ at Vmin, 31.74 nJ at voltage 0.9" in out
    relative = json.loads(call("energy", "--model", "DigitsNet", "--voltage", 0.9, "--json")[1])
    assert not [name for name in relative if name.endswith("_pj")]


def test_joules_take_the_unit_that_suits():
    assert [format_joules(x) for x in (0.5, 999.4, 1e3, 39_680, 4.2e7, 1e10)] == [
        "0.5 pJ", "999.4 pJ", "1 nJ", "39.68 nJ", "42 µJ", "10 mJ",
    ]  # fmt: skip
