"""Mitigations compared: the same chips, energies by hand, pairs, the front, and a comparison that goes on."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

import faultsim
from faultsim import Evaluation, FaultModel, FaultsimError, StoredWeights, Subject, VoltageCurve
from faultsim.cli import main
from faultsim.data import OwnBatches
from faultsim.mitigations import (
    SECDED,
    BitMasking,
    BoostedLayers,
    InPlaceCode,
    MemoryMitigation,
    Overhead,
    Parity,
    ProtectedWeights,
    RobustBits,
)
from faultsim.show.report.sweeps import make_section
from faultsim.studies.chip_statistics import compute_improvement
from faultsim.studies.comparison import MITIGATIONS, compare
from faultsim.studies.entries import Setting, protect_memory
from faultsim.studies.entry_labels import as_entry, parse_entry
from faultsim.studies.sweep_result import OperatingPoint, SweepRow, Variant

CURVE = VoltageCurve.default()


@pytest.fixture(scope="module")
def subject() -> Subject:
    """A classifier of points by their quadrant, and data that it gets right."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4)).eval()
    inputs = torch.randn(128, 16)
    targets = net(inputs).argmax(1)
    return Subject("quadrants", net, StoredWeights.of(net), OwnBatches([(inputs, targets)], "points"))


@pytest.fixture(scope="module")
def setting(subject) -> Setting:
    return Setting(subject, tuple(faultsim.evaluation_chips(0, 4)), CURVE, FaultModel())


def point(voltage: float) -> OperatingPoint:
    return OperatingPoint(voltage, CURVE.bit_error_rate(voltage), CURVE.energy_per_access(voltage))


def test_energies_by_hand(subject, setting):
    """Of each mitigation, from the accesses of the layers and the energies of accesses alone."""
    at = point(0.83)
    plain = subject.accesses * at.energy_per_access
    assert at.energy_per_access == pytest.approx(0.694)
    layers = [layer.values.numel() for layer in subject.stored.layers]
    first = subject.accesses * layers[0] / sum(layers)  # each weight is read once for an input
    energies = {
        SECDED("keep"): 1.125 * plain,
        Parity("word"): (1 + 1 / 64) * plain,
        InPlaceCode(): plain,
        BitMasking(Overhead(access=0.2)): 1.2 * plain,
        RobustBits(2, cell_energy=1.5): (6 / 8 + 2 / 8 * 1.5) * plain,
        BoostedLayers(("0.*",), 1.0, boost_energy=0.1): plain + first * (1.1 - at.energy_per_access),
    }
    for mitigation, expected in energies.items():
        variant = protect_memory(mitigation)(setting)
        assert variant.energy(at) == pytest.approx(expected, rel=1e-9), mitigation
    # words that are read again: those that the reference of the code flags, at Vmin, with their check bits
    reread = protect_memory(SECDED("reread"))(setting)
    shares = ProtectedWeights(subject.stored, SECDED("reread")).measure_flagged(
        setting.chips, at.bit_error_rate, None, FaultModel()
    )
    assert 0.05 < shares[0] < 0.3
    again = shares[0] * first + shares[1] * (subject.accesses - first)
    assert reread.energy(at) == pytest.approx(1.125 * (plain + again), rel=1e-9)


def test_all_variants_run_on_the_same_chips(subject):
    class Nothing(MemoryMitigation):
        name = "nothing"

    result = compare(subject, [Nothing(), "robust-bits:8"], 5, voltages=[0.8])
    plain, nothing, robust = result
    assert nothing.evaluation == plain.evaluation
    assert plain.evaluation.mean < 1
    assert robust.evaluation.correct == (128,) * 5
    assert nothing.energy_per_inference == plain.energy_per_inference


def test_pairs_narrow_the_interval_of_a_difference(subject):
    """What all chips share cancels out: the interval on the same chips is far below that on other chips."""
    result = compare(subject, ["boosted:0.*"], 40, voltages=[0.78])
    plain, boosted = (row.evaluation for row in result)
    elsewhere = compare(subject, ["boosted:0.*"], 40, voltages=[0.78], seed=1)[1].evaluation

    def half(other: Evaluation) -> float:
        low, high = compute_improvement(plain, other).interval
        return (high - low) / 2

    # of 40 chips each; what both share is most of the variance, for a second layer without faults changes little
    assert half(boosted) < 0.5 * half(elsewhere)


def row(variant: str, energy: float | None, correct: int, uncounted: str = "") -> SweepRow:
    return SweepRow(variant, point(0.9), Evaluation((correct,), 10), energy, None, uncounted=uncounted)


def test_pareto_front(subject):
    records = (
        row("a", 3.0, 9),
        row("b", 1.0, 5),
        row("c", 2.0, 4),  # b is better for less
        row("d", 1.0, 6, "cells"),  # better than b for as much, or more
        row("e", 4.0, 9),  # a is as good for less
        row("f", None, 10),
    )
    result = replace(compare(subject, [], 1, voltages=[1.0]), records=records)
    assert [row.variant for row in result.pareto()] == ["d", "a"]
    assert [row.variant for row in result.pareto(lower_bounds=False)] == ["b", "a"]


def test_what_is_not_counted_can_be_given(subject):
    at = point(0.83)
    names = ["secded:zero", "secded:keep", "mine=bit-masking", "robust-bits:2", "boosted:0.*@1"]
    given = {"secded": 0.1, "secded:keep": 0.3, "bit-masking": 0.2, "robust-bits": 0.5, "boosted": 0.4}
    rows = {one.variant: one for one in compare(subject, names, 1, voltages=[0.83], overheads=given)}
    before = {one.variant: one for one in compare(subject, names, 1, voltages=[0.83])}
    assert all(before[name].uncounted for name in before if name != "unprotected")
    assert not any(one.uncounted for one in rows.values())
    plain = rows["unprotected"].energy_per_inference
    first = subject.accesses * 0.8  # 16 x 64 of 16 x 64 + 64 x 4 weights
    energies = {
        "secded:zero": (1 + 1 / 8 + 0.1) * plain,
        "secded:keep": (1 + 1 / 8 + 0.3) * plain,
        "mine": 1.2 * plain,
        "robust-bits:2": (6 / 8 + 2 / 8 * 1.5) * plain,
        "boosted:0.*@1": plain + first * (1.4 - at.energy_per_access),
    }
    for name, energy in energies.items():
        assert rows[name].energy_per_inference == pytest.approx(energy, rel=1e-9), name
    for overheads, message in (
        (
            {"parity": 0.1},
            "overhead of 'parity': no such mitigation is compared, it can be secded, secded:zero",
        ),
        ({"secded": -1.0}, "overhead of secded -1.0: it must be a fraction of at least 0"),
    ):
        with pytest.raises(FaultsimError, match=message):
            compare(subject, names, 1, voltages=[0.83], overheads=overheads)


def test_a_comparison_goes_on_where_it_was_stopped(subject, tmp_path):
    class Stop(Exception):
        pass

    def stop(found: SweepRow) -> None:
        if found.variant == "parity:weight":
            raise Stop

    arguments = dict(voltages=[0.9, 0.8], seed=3)
    names = ["secded:reread", "parity:weight", "boosted"]
    compare(subject, names, 3, out=tmp_path / "whole", **arguments)
    with pytest.raises(Stop):
        compare(subject, names, 3, out=tmp_path / "stopped", report=stop, **arguments)
    compare(subject, names, 3, out=tmp_path / "stopped", **arguments)
    for name in ("results.csv", "summary.csv", "sweep.png"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    with pytest.raises(FaultsimError, match="a run of another configuration"):
        compare(subject, [*names[:2], BoostedLayers(("0.*",), 0.95)], 3, out=tmp_path / "whole", **arguments)
    page = make_section(tmp_path / "whole", "whole")
    assert {series.name for chart in page.charts for series in chart.series} >= {"unprotected", *names[:2]}


def test_labels_make_the_mitigations_that_they_name(setting):
    for label in MITIGATIONS:
        assert as_entry(parse_entry(label))(setting).name.startswith(label)
    boosted = as_entry(parse_entry("boosted:0.*+2.*@0.9"))(setting).stored.mitigation
    assert (boosted.layers, boosted.voltage) == (("0.*", "2.*"), 0.9)
    ends = as_entry(parse_entry("boosted"))(setting).stored.mitigation
    assert (ends.layers, ends.voltage) == (("0.weight", "2.weight"), 1.0)
    assert as_entry(parse_entry("first=robust-bits:1"))(setting).name == "first"


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("ecc", "unknown mitigation 'ecc': it can be secded:X"),
        ("base", "base needs the weight file of another base model: base:FILE"),
        ("cascade:0.7", "cascade needs the weight file of a little network: cascade:FILE@0.7"),
        ("robust-bits:two", "robust-bits:two: it can be robust-bits:1 to 8"),
        ("bit-masking:word", "unknown mitigation 'bit-masking:word'"),
        ("no_such_module:entry", "mitigation 'no_such_module:entry': importing 'no_such_module' failed"),
        ("base:nothing.safetensors", "nothing.safetensors"),
        ("robust-bits:33", "number of robust bits 33 must be from 1 to 32"),
        ("secded:retry", "unknown policy 'retry'"),
        ("boosted:0.*@high", "'high' is no voltage"),
        ("boosted:0.*@9", "voltage 9.0 is outside the curve"),
        ("boosted:nothing.*", "no tensor in the faulty memory matches 'nothing"),
    ],
)
def test_bad_labels(subject, label, message):
    with pytest.raises(FaultsimError, match=message.replace("*", r"\*")):
        compare(subject, [label], 1, voltages=[0.9])


def test_names_are_not_used_twice(subject):
    with pytest.raises(FaultsimError, match="two of what is compared have the same name"):
        compare(subject, ["bit-masking", BitMasking(Overhead(access=0.1))], 1, voltages=[0.9])


@pytest.mark.filterwarnings("ignore:without bit errors")  # it is not trained
def test_another_model_runs_at_vmin(subject):
    """It is evaluated once, for no chip and no point changes what it reads."""
    small = nn.Linear(16, 4).eval()
    calls = []
    small.register_forward_hook(lambda *_: calls.append(1))

    def classifier(setting: Setting) -> Variant:
        stored = StoredWeights.of(small)
        energy = setting.count_energy(small, stored, at_vmin=True)
        return Variant("small", model=small, stored=stored, at_vmin=True, energy=energy)

    result = compare(subject, [classifier], 3, voltages=[0.9, 0.78])
    inputs, targets = subject.dataset.batches[0]
    right = int((small(inputs).argmax(1) == targets).sum())
    rows = result.variants["small"]
    assert [found.evaluation.correct for found in rows] == [(right,) * 3] * 2
    assert [found.energy_per_inference for found in rows] == [8.0, 8.0]  # 64 weights, 8 in a word
    assert len(calls) == 3  # layers are counted on one sample, data are evaluated once, and the line above


def test_command(tmp_path, capsys):
    common = ["compare", "--voltages", "0.83", "--chips", "2", "--images", "40"]
    with pytest.raises(SystemExit) as end:
        main([*common, "--mitigations", "secded:zero,neuralfuse", "--accuracy-floor", "50%"])
    assert end.value.code in (0, None)
    printed = capsys.readouterr().out
    assert "secded:zero" in printed
    assert "with ConvXS" in printed
    assert "not counted (>=): encoder and decoder" in printed
    assert "least energy of all" in printed
    with pytest.raises(SystemExit):
        main([*common, "--mitigations", "bit-masking", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert [one["variant"] for one in found["summary"]] == ["unprotected", "bit-masking"]
    assert found["pareto"]
    with pytest.raises(SystemExit) as end:
        main([*common, "--mitigations", "secded:zero,,"])
    assert end.value.code == 2
    assert "unknown mitigation ''" in capsys.readouterr().err
