"""`faultsim train-base` with bounds, bit errors or a chip: are they passed on, written down, and the rest refused?"""

from pathlib import Path

import pytest

from faultsim import Chip, MeasuredChip, evaluate, load_subject, map_chip
from faultsim.bundled import WEIGHTS
from faultsim.checkpoint import read_file

TRAIN = (
    "train-base", "--model", "DigitsNet", "--dataset", "digits", "--recipe", "fine_tune", "--epochs", 1,
    "--device", "cpu", "--start", WEIGHTS,
)  # fmt: skip


def test_a_robust_model_is_an_ordinary_weight_file_that_says_how_it_was_trained(run, tmp_path: Path):
    file = tmp_path / "robust.safetensors"
    options = (
        "--clip-deviations", 2, "--bit-error-rate", "2%", "--divided", "--format", "uint8-asymmetric", "--cutout", 6,
    )  # fmt: skip
    status, out, err = run(*TRAIN, *options, "--out", file)
    assert status == 0, err
    assert "test accuracy 99" in out
    assert "perturbed loss" in err
    about = read_file(file)[1]
    assert about["clipping"] == {"deviations": 2}
    assert about["errors"]["bit_error_rate"] == 0.02
    assert about["errors"]["faults"]["kind"] == "flip"
    assert about["errors"]["divided"] is True
    assert about["start"]["weights"]
    assert about["cutout"] == 6
    assert about["weight_format"] == "uint8-asymmetric"
    for layer in load_subject(weights=file, images=4).stored.layers:
        weights = layer.decode()
        assert weights.abs().max() < 2.5 * weights.std()
    status, _, err = run(*TRAIN, *options[:-1], 4, "--out", file)
    assert (status, err.count("\n")) == (2, 1)
    assert "a run with other options" in err


def test_a_model_for_one_chip_says_its_accuracy_there(run, tmp_path: Path):
    chip, file = tmp_path / "chip.npz", tmp_path / "mine.safetensors"
    map_chip(Chip(1), [0.8], arrays=16).save(chip)
    status, out, err = run(*TRAIN, "--chip", chip, "--voltage", 0.8, "--out", file)
    assert status == 0, err
    about = read_file(file)[1]
    assert about["errors"]["chip"]["label"] == "chip"
    assert f"on the chip {100 * about['chip_accuracy']:.2f} %" in out
    subject = load_subject()
    before = evaluate(
        subject.model, subject.data, [MeasuredChip.load(chip)], voltage=0.8, stored=subject.stored
    )
    assert about["chip_accuracy"] > before.mean + 0.1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--clip", 0.1, "--clip-deviations", 2), "give either --clip or --clip-deviations"),
        (("--clip", 0), "the bound must be above 0"),
        (("--divided",), "--divided needs --bit-error-rate"),
        (("--running-statistics",), "--running-statistics needs --bit-error-rate"),
        (("--voltage", 0.8), "--voltage needs --chip"),
        (("--preset", "neuralfuse_2022"), "faults in training need --bit-error-rate or --chip"),
        (("--bit-error-rate", "1%", "--chip", "chip.csv"), "give either --bit-error-rate or --chip"),
        (("--chip", "nowhere.csv", "--voltage", 0.8), "nowhere.csv"),
        (("--precision", "float8"), "it can be float32 or bfloat16"),
        (("--bit-error-rate", "1%", "--seed", 2**31), "from 0 to 2**31 - 1"),
    ],
)
def test_one_line(run, tmp_path: Path, words, message: str):
    status, out, err = run(*TRAIN, *words, "--out", tmp_path / "out.safetensors")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_a_start_of_another_model_is_refused(run, tmp_path: Path):
    status, _, err = run(*TRAIN, "--model", "DigitsVGG", "--out", tmp_path / "out.safetensors")
    assert (status, err.count("\n")) == (2, 1)
    assert "holds DigitsNet: start from weights of DigitsVGG" in err
