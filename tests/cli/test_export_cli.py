"""`faultsim export`: from words to an ONNX file that says what it is."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import neuralfuse.bundled
from faultsim import Chip, FaultModel, bundled, load_weights, models, perturbed
from faultsim.cli import main
from faultsim.data import load
from faultsim.data.dataset import normalize
from neuralfuse import generators

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
GENERATOR = neuralfuse.bundled.WEIGHTS


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as status:
        main(["export", *map(str, arguments)])
    out, err = capsys.readouterr()
    return status.value.code or 0, out, err


def answer(path: Path, images: np.ndarray) -> torch.Tensor:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"images": images})[0])


def facts(path: Path) -> dict:
    (entry,) = onnx.load(path).metadata_props
    assert entry.key == "faultsim"
    return json.loads(entry.value)


def test_a_generator(tmp_path, capsys):
    path = tmp_path / "g.onnx"
    options = ("--input", "uint8-nhwc", "--dataset", "digits")
    code, out, err = run(capsys, "--generator", GENERATOR, "--onnx", path, *options)
    assert (code, err) == (0, "")
    assert f"written to {path}" in out
    assert "64 digits images" in out
    network = generators.create(neuralfuse.bundled.GENERATOR)
    _, trained = load_weights(network, GENERATOR)
    pixels = load("digits", "test").images[100:110]
    with torch.no_grad():
        expected = generators.NeuralFuse(network).eval()(normalize(pixels))
    found = answer(path, pixels.permute(0, 2, 3, 1).contiguous().numpy())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    said = facts(path)
    assert said["generator"] == neuralfuse.bundled.GENERATOR
    assert said["trained"] == trained
    assert (said["input"], said["output"]) == ("uint8-nhwc", "transformed")
    assert said["checked_with"]["images"] == 64
    assert {"commit", "versions", "date"} <= set(said)
    assert {"torch", "onnx", "onnxruntime"} <= set(said["versions"])


def test_a_base_model_and_one_that_a_chip_reads(tmp_path, capsys):
    """Without words the shipped model; with --chip the int8 values are what `inject` of that chip would give."""
    clean, faulty = tmp_path / "clean.onnx", tmp_path / "faulty.onnx"
    assert run(capsys, "--onnx", clean)[0] == 0
    options = ("--weights", bundled.WEIGHTS, "--chip", 7, "--voltage", 0.83, "--preset", "neuralfuse_2022")
    code, out, _ = run(capsys, "--onnx", faulty, *options)
    assert code == 0
    where = "stuck_at_random, neuralfuse_2022 placement, curve '14nm'"
    assert f"as chip 7 reads it at bit error rate 1 % ({where})" in out
    model = models.create(bundled.MODEL)
    stored, _ = load_weights(model, bundled.WEIGHTS)
    model.eval()
    images = normalize(load("digits", "test").images[:20])
    chip = {"bit_error_rate": 0.01, "faults": FaultModel.preset("neuralfuse_2022"), "stored": stored}
    for path, options in ((clean, {"bit_error_rate": 0.0, "stored": stored}), (faulty, chip)):
        with torch.no_grad(), perturbed(model, Chip(7), **options):
            expected = model(images)
        torch.testing.assert_close(answer(path, images.numpy()), expected, rtol=0, atol=1e-4)
    assert not torch.equal(answer(clean, images.numpy()), answer(faulty, images.numpy()))
    assert "read_by" not in facts(clean)
    assert facts(faulty)["model"] == "DigitsNet"
    assert facts(faulty)["read_by"]["chip"] == 7
    assert facts(faulty)["read_by"]["voltage"] == 0.83
    assert facts(faulty)["read_by"]["faults"]["memory"]["placement"] == "neuralfuse_2022"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--onnx", "g.pb"), "must end in .onnx"),
        (("--onnx", "m.onnx", "--input", "jpeg"), "unknown input format 'jpeg': it can be float32"),
        (("--onnx", "m.onnx", "--generator", GENERATOR, "--weights", bundled.WEIGHTS), "give either"),
        (
            ("--onnx", "m.onnx", "--generator", GENERATOR, "--chip", 7),
            "--chip cannot be combined with --generator",
        ),
        (("--onnx", "m.onnx", "--generator", bundled.WEIGHTS), "holds no generator"),
        (("--onnx", "m.onnx", "--generator", "none.safetensors"), "does not exist"),
        (("--onnx", "m.onnx", "--voltage", 0.83), "add --chip"),
        (("--onnx", "m.onnx", "--preset", "iid_flips"), "add --chip"),
        (("--onnx", "m.onnx", "--chip", 7), "give either --voltage or --bit-error-rate"),
        (("--onnx", "m.onnx", "--chip", -1, "--voltage", 0.83), "chip seed -1"),
        (("--onnx", "m.onnx", "--images", 2), "at least 3"),
        (("--onnx", "m.onnx", "--images", 10**6), "test images"),
    ],
)
def test_wrong_words_get_one_line(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith("faultsim: error: ")
    assert words in err
    assert not list(tmp_path.iterdir())


def test_without_the_package_the_error_names_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    code, _, err = run(capsys, "--onnx", tmp_path / "m.onnx")
    assert (code, err.count("\n")) == (2, 1)
    assert "onnxruntime" in err
    assert not list(tmp_path.iterdir())
