"""Is a look-up what its classifier and its patterns say, in Python, in a file, as an ONNX model and in commands?"""

import json
import shutil

import pytest
import torch

import faultsim
import neuralfuse
from faultsim import FaultsimError, evaluation_chips, save_weights
from faultsim.cli import main
from faultsim.data import iterate_batches, load
from neuralfuse.bundled import GENERATORS
from neuralfuse.files import read_generator
from neuralfuse.lookup import PatternLookup, read_lookup
from neuralfuse.lookup_file import combine, write_lookup
from neuralfuse.patterns import save_patterns
from neuralfuse.stage_files import read_classifier

SHIPPED = GENERATORS["DigitsNet"].weights.with_suffix(".classifier.safetensors")


@pytest.fixture
def trained(tmp_path):
    """The name of a generator of which there are a classifier and, at random, patterns."""
    shutil.copyfile(SHIPPED, tmp_path / "g.classifier.safetensors")
    table = torch.rand(10, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    save_patterns(tmp_path / "g.patterns.safetensors", table, {"dataset": "digits", "mean": 0.9})
    return tmp_path / "g.safetensors", table


@pytest.mark.parametrize("confidence", [0.0, 0.6])
def test_a_file_adds_the_pattern_of_the_recognized_class(confidence, trained, tmp_path):
    generator, table = trained
    written = write_lookup(tmp_path / "look.safetensors", generator, confidence)
    fuse = neuralfuse.load(tmp_path / "look.safetensors")
    images, _ = next(iterate_batches(load("digits", "test"), 359))
    with torch.inference_mode():
        sure, found = read_classifier(SHIPPED).network(images).softmax(1).max(1)
        added = torch.clamp(images + torch.round(127 * table[found]) / 127, -1, 1)
        expected = torch.where((sure >= confidence)[:, None, None, None], added, images)
        assert 0.05 < float((sure < 0.6).float().mean()) < 0.95
        assert torch.allclose(fuse(images), expected, atol=1e-6)
    saved = read_generator(tmp_path / "look.safetensors")
    assert saved.name == written.name == "lookup ConvXS" + ("@0.6" if confidence else "")
    assert saved.fingerprint == written.fingerprint
    assert saved.metadata["dataset"] == "digits"
    # all weights of the classifier but biases and normalization, and the table, a byte each
    weights = sum(p.numel() for p in read_classifier(SHIPPED).network.parameters() if p.dim() > 1)
    assert saved.stored.bytes == weights + table.numel()


def test_commands_take_it_as_a_generator(trained, tmp_path, capsys):
    generator, _ = trained
    file = tmp_path / "look.safetensors"

    def run(*arguments) -> str:
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        assert end.value.code in (0, None)
        return capsys.readouterr().out

    assert "lookup ConvXS@0.6: " in run("make-lookup", generator, "--confidence", 0.6, "--out", file)
    common = ("--images", 60, "--chips", 2, "--json")
    found = json.loads(run("evaluate", "--generator", file, "--bit-error-rate", "2%", *common))
    (fused,) = (row for row in found["accuracy"] if row["name"] == "P.A.+N.F.")
    subject = faultsim.load_subject(images=60)
    expected = faultsim.evaluate(
        subject.model,
        subject.data,
        evaluation_chips(0, 2),
        bit_error_rate=0.02,
        stored=subject.stored,
        transform=neuralfuse.load(file),
    )
    assert fused["chips"] == list(expected.values)
    rows = json.loads(
        run(
            "compare",
            "--mitigations",
            f"neuralfuse:{file},lookup:{generator}@0.6",
            "--voltages",
            0.8,
            *common,
        )
    )["summary"]
    assert [row["variant"] for row in rows] == ["unprotected", "with lookup ConvXS@0.6", "lookup ConvXS@0.6"]
    assert rows[1]["mean"] == rows[2]["mean"]
    assert rows[1]["energy_per_inference"] == rows[2]["energy_per_inference"]
    told = run("export", "--generator", file, "--onnx", tmp_path / "f.onnx", "--dataset", "digits")
    assert "onnxruntime and torch differ by" in told


def test_what_does_not_fit_is_refused(trained, tmp_path):
    generator, table = trained
    save_patterns(tmp_path / "few.safetensors", table[:3], {})
    look = write_lookup(tmp_path / "look.safetensors", generator)
    for action, message in (
        (lambda: combine(SHIPPED, tmp_path / "few.safetensors"), "has 3 patterns; .* knows 10 classes"),
        (lambda: write_lookup(tmp_path / "l.safetensors", generator, 1.5), "confidence 1.5"),
        (lambda: write_lookup(tmp_path / "l.safetensors", tmp_path / "none"), "does not exist"),
        (lambda: look.create_variant(torch.device("cpu"), (3, 64, 64)), r"images \[3, 32, 32\], not \[3, 64"),
        (lambda: PatternLookup("ConvXS", 10, (3, 30, 30)), "multiples of 8"),
        (lambda: PatternLookup("ConvXS", 1 << 24, (3, 32, 32)), "a table of"),
        (
            lambda: neuralfuse.train(
                tmp_path / "t.safetensors",
                "ConvXS",
                [faultsim.load_subject()],
                neuralfuse.Training(bit_error_rate=0.01),
                start=tmp_path / "look.safetensors",
            ),
            "holds lookup ConvXS, which is not trained by gradients",
        ),
    ):
        with pytest.raises(FaultsimError, match=message) as found:
            action()
        assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    "described",
    [
        None,
        {},
        {"encoder": "ConvXS", "classes": 10, "shape": [3, 32], "confidence": 0},
        {"encoder": "ResNet18", "classes": 10, "shape": [3, 32, 32], "confidence": 0},
        {"encoder": ["ConvXS"], "classes": 10, "shape": [3, 32, 32], "confidence": 0},
        {"encoder": "ConvXS", "classes": True, "shape": [3, 32, 32], "confidence": 0},
        {"encoder": "ConvXS", "classes": 10, "shape": [3, 32, -32], "confidence": 0},
        {"encoder": "ConvXS", "classes": 10, "shape": 3, "confidence": 0},
        {"encoder": "ConvXS", "classes": 10, "shape": [3, 32, 32], "confidence": "high"},
    ],
)
def test_files_that_describe_something_else_are_one_line(described, tmp_path):
    with pytest.raises(FaultsimError, match="describes no look-up: encoder, classes, shape and confidence"):
        read_lookup(described, "x.safetensors")
    path = tmp_path / "x.safetensors"
    save_weights(path, torch.nn.Linear(3, 3), {"generator": "lookup", "lookup": described})
    with pytest.raises(FaultsimError, match="describes no look-up"):
        neuralfuse.load(path)
