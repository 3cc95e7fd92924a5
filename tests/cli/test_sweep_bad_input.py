"""`faultsim sweep-voltage`: what it says to bad input, in one line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from faultsim import bundled


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("Fails", "fails on images [2, 3, 32, 32]: "),
        ("Wide", "returns [2, 10, 32, 32] for 2 images; digits needs logits [2, 10]"),
        ("few", "returns [2, 4] for 2 images; digits needs logits [2, 10]"),
        ("no_weights", "no parameter of two or more dimensions"),
        ("raises", "calling raises() failed (RuntimeError: first line second line)"),
        ("text", "returned a str, not a torch.nn.Module"),
        ("number", "is of type int; give a function"),
        ("absent", "has no 'absent'"),
        ("", "write package.module:function"),
    ],
)
def test_models_that_cannot_be_used(own, refused, name, complaint):
    line = refused("--model", f"sweep_own_model:{name}", "--dataset", "digits", "--out", "out")
    assert complaint in line
    assert not (own / "out").exists()


# -- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ("--model Foo", "unknown model 'Foo': it can be ResNet18"),
        ("--model no_such_module:f --dataset digits", "importing 'no_such_module' failed"),
        ("--model VGG11 --dataset digits", "VGG11 would be untrained: add --weights"),
        ("--model VGG11 --weights WEIGHTS", "doesn't fit the model"),
        ("--weights nothing.safetensors", "weight file nothing.safetensors does not exist"),
        ("--weights model.pt", "model.pt is a pickled file"),
        ("--dataset foo", "unknown dataset 'foo'; known: digits, cifar10"),
        ("--dataset cifar10 --data-dir nowhere", "no such folder: nowhere"),
        ("--data-dir .", "take no data folder"),
        ("--images 0", "--images 0: digits has 359 test images, choose 1 to 359"),
        ("--images 360", "choose 1 to 359"),
        ("--images ten", "Invalid value for '--images'"),
        ("--chips 0", "0 chips: at least 1 is needed"),
        ("--batch-size 0", "the batch size must be at least 1, got 0"),
        ("--seed -1", "seed -1 must be from 0"),
        ("--seed 2147483648", "seed 2147483648 must be from 0"),
        ("--voltages nan", "'nan' is not a finite number"),
        ("--voltages 0.4", "voltage 0.4 is outside the curve '14nm', which covers 0.5 to 1.5"),
        ("--voltages 0.8:1.6:0.1", "voltage 1.6 is outside"),
        ("--voltages 0.9:0.8:0.1", "must not be above the last"),
        ("--voltages 0.8,0.8", "occurs more than once"),
        ("--bit-error-rates 1.01", "outside [0, 1] (it is a fraction: 1 % is 0.01)"),
        ("--bit-error-rates -0.1", "outside [0, 1]"),
        ("--bit-error-rates nan", "'nan' is not a finite number"),
        ("--bit-error-rates 0.1 --voltages 0.9", "either --voltages or --bit-error-rates"),
        ("--fault-kind odd", "unknown fault kind 'odd': it can be flip, "),
        ("--placement odd", "unknown placement 'odd': it can be unlimited, "),
        ("--preset odd", "unknown fault preset 'odd': it can be iid_flips, neuralfuse_2022"),
        ("--curve nothing.csv", "voltage curve nothing.csv: cannot be read: No such file"),
        ("--curve rising.csv", "rising.csv"),
        ("--fault-map nothing.npz", "nothing.npz"),
        ("--device tpu", "device 'tpu': it can be auto, cpu, cuda or cuda:N"),
        ("--bogus", "No such option: --bogus"),
        ("stray", "stray"),
    ],
)
def test_bad_input_is_one_clear_line(tmp_path, monkeypatch, refused, options, complaint):
    monkeypatch.chdir(tmp_path)
    Path("rising.csv").write_text("voltage,bit_error_rate,energy_per_access\n0.5,0,1\n1.0,0.1,2\n")
    Path("model.pt").write_bytes(b"\x80\x02.")
    words = [str(bundled.WEIGHTS) if word == "WEIGHTS" else word for word in options.split()]
    assert complaint in refused(*words, "--out", "out")
    assert not Path("out").exists()


def test_no_gpu(refused):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert "finds no GPU here; use the device cpu" in refused("--device", "cuda")


def test_weight_files_do_not_choose_which_code_runs(tmp_path, refused):
    from safetensors.torch import save_file

    from faultsim.checkpoint import read_file

    tensors, metadata = read_file(bundled.WEIGHTS)
    path = tmp_path / "foreign.safetensors"
    for change, complaint in (
        ({"model": "os:getcwd"}, "does not name its model"),
        ({"model": 7}, "does not name its model"),
        ({"dataset": 7}, "which images?"),
        ({"num_classes": "ten"}, "'ten' classes"),
    ):
        save_file(tensors, path, {"faultsim": json.dumps({**metadata, **change})})
        assert complaint in refused("--weights", path)


def test_errors_of_the_real_program(tmp_path):
    words = ["sweep-voltage", "--voltages", "0.3", "--out", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-m", "faultsim", *words], capture_output=True, text=True)
    line = "faultsim: error: voltage 0.3 is outside the curve '14nm', which covers 0.5 to 1.5\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)
    assert not (tmp_path / "out").exists()
