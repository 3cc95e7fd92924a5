"""What sweep-voltage says about energy, with and without a generator, and its fault options."""

import csv
import json

import pytest

from faultsim import VoltageCurve, save_weights
from faultsim.cli import main
from faultsim.cli.options import fault_model
from faultsim.errors import FaultsimError

SMALL = ["--images", "40", "--chips", "2", "--voltages", "0.8,0.9,1.0"]


@pytest.fixture(scope="module")
def generator(tmp_path_factory):
    import torch

    from neuralfuse import generators

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("generator") / "convs.safetensors"
    save_weights(path, generators.create("ConvS"), {"generator": "ConvS"})
    return path


def sweep(*options):
    with pytest.raises(SystemExit) as stop:
        main(["sweep-voltage", *SMALL, *map(str, options)])
    assert not stop.value.code


def test_energy_columns_by_hand(tmp_path, generator, capsys):
    sweep("--generator", generator, "--out", tmp_path / "run")
    with (tmp_path / "run/summary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["variant"] for row in rows] == ["unprotected", "with ConvS"] * 3
    # Output-stationary on 32x32: K F ceil(P / 32) filter reads a layer, 8 weights an access. DigitsNet's layers
    # (K, F, P): convolutions on 32x32, 16x16, 8x8 and 4x4 maps, and the classifier.
    layers = [(27, 16, 1024), (144, 32, 256), (288, 64, 64), (576, 64, 16), (256, 10, 1)]
    accesses = sum(k * f * -(-p // 32) for k, f, p in layers) / 8
    convs = 41508  # the paper's Table 6
    curve = VoltageCurve.default()
    for row in rows:
        energy = accesses * curve.energy_per_access(float(row["voltage"]))
        energy += convs if row["variant"] == "with ConvS" else 0
        assert float(row["energy_per_inference"]) == pytest.approx(energy, rel=1e-12)
        assert float(row["energy_saving"]) == pytest.approx(1 - energy / accesses, rel=1e-9, abs=1e-12)
    assert (tmp_path / "run/sweep.png").stat().st_size > 10_000
    assert "with ConvS" in capsys.readouterr().out


def test_json_has_the_energy(capsys):
    from faultsim import bundled

    sweep("--json", "--weights", bundled.WEIGHTS)  # so asked for, it comes without its generator
    summary = json.loads(capsys.readouterr().out)["summary"]
    assert {row["variant"] for row in summary} == {"unprotected"}
    assert [row["energy_saving"] for row in summary] == sorted(row["energy_saving"] for row in summary)


def test_cheapest_voltage(capsys):
    sweep("--accuracy-floor", "90")
    out = capsys.readouterr().out
    assert "unprotected: least energy at 90 % accuracy at voltage 0.9 " in out
    assert "with ConvXS: least energy at 90 % accuracy at voltage 0.9 " in out
    assert "least energy of all: unprotected at voltage 0.9\n" in out
    for words in ("0.9", "90%", " 90 % "):
        sweep("--accuracy-floor", words)
        assert capsys.readouterr().out == out, words
    sweep("--accuracy-floor", "1", "--voltages", "0.8")
    out = capsys.readouterr().out
    assert "no voltage of this sweep keeps 100 % accuracy" in out
    assert "of all" not in out


def test_a_shipped_model_comes_with_weights_and_generator(capsys):
    sweep("--json", "--model", "DigitsVGG")
    report = json.loads(capsys.readouterr().out)
    assert {row["variant"] for row in report["summary"]} == {"unprotected", "with ConvQS"}
    assert report["configuration"]["trained"]["recipe"]["name"] == "digits"
    sweep("--json", "--model", "DigitsNet")
    named = json.loads(capsys.readouterr().out)
    sweep("--json")
    assert named["summary"] == json.loads(capsys.readouterr().out)["summary"]


def test_weight_file_of_a_model_is_no_generator(capsys):
    from faultsim import bundled

    with pytest.raises(SystemExit) as stop:
        main(["sweep-voltage", *SMALL, "--generator", str(bundled.WEIGHTS)])
    assert stop.value.code == 2
    assert "holds no generator" in capsys.readouterr().err


def test_fault_options_reach_the_model():
    model = fault_model("stuck_at_random", "tiled", None, 0.2, None, 64)
    assert (model.polarity, model.memory.capacity_bytes, model.memory.placement) == (0.2, 65536, "tiled")
    assert fault_model("transient", None, None, None, 0.1).read_error == 0.1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("flip", None, None, 0.2, None, None), "--polarity cannot be combined with fault kind flip"),
        (("flip", None, None, None, 0.2, None), "--read-error cannot be combined with fault kind flip"),
        ((None, None, None, None, None, 64), "--capacity cannot be combined with placement unlimited"),
        ((None, "tiled", None, None, None, 3), "multiple of 4096"),
        (("stuck_at_random", None, None, 1.5, None, None), "no probability"),
        (("transient", None, None, None, float("nan"), None), "no probability"),
    ],
)
def test_fault_options_that_make_no_sense(arguments, complaint):
    with pytest.raises(FaultsimError, match=complaint):
        fault_model(*arguments)
