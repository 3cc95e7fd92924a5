"""--bits and --format: does each command store its weights so, say so, and refuse what does not go together?"""

import json
from pathlib import Path

import pytest

from faultsim import load_subject
from faultsim.cli import main


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]):
    """run(words) -> exit status, stdout, stderr."""

    def call(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        return ended.value.code or 0, *capsys.readouterr()

    return call


FEW = ("--images", 32, "--chips", 2)


def test_a_sweep_says_the_format_in_every_output_and_resumes(run, tmp_path: Path):
    words = ("sweep-voltage", *FEW, "--voltages", "0.83", "--generator", "", "--bits", 4, "--out", tmp_path)
    words = tuple(word for word in words if word not in ("--generator", ""))
    status, out, err = run(*words)
    assert status == 0, err
    assert "int4 weights" in out
    header, first, *_ = (tmp_path / "results.csv").read_text().splitlines()
    assert dict(zip(header.split(","), first.split(","), strict=True))["format"] == "int4"
    assert json.loads((tmp_path / "sweep.json").read_text())["configuration"]["format"] == "int4"
    before = (tmp_path / "results.csv").read_bytes()
    assert run(*words[:-4], "--format", "int4", *words[-2:])[0] == 0  # the same in other words
    assert (tmp_path / "results.csv").read_bytes() == before
    status, _, err = run(*words[:-4], *words[-2:])
    assert (status, err.count("\n")) == (2, 1)  # int8 is another sweep


def test_evaluate_and_memory(run):
    status, out, err = run("evaluate", *FEW, "--bit-error-rate", "1%", "--format", "uint4-asymmetric")
    assert status == 0, err
    assert "uint4-asymmetric weights" in out
    status, out, _ = run("memory", "--bits", "4", "--json")
    found = json.loads(out)
    stored = load_subject(images=4, format="int4").stored
    assert (found["format"], found["bytes"], found["words"]) == ("int4", stored.bytes, stored.bytes // 8)
    assert "16 weights in a 64-bit word" in run("memory", "--model", "VGG11", "--bits", 4)[1]  # shapes only
    assert not {"format", "words"} & set(json.loads(run("memory", "--json")[1]))


def test_energy_counts_the_words_of_the_model_and_int8_of_the_generator(run):
    words = ("energy", "--model", "DigitsNet", "--generator", "ConvXS", "--voltage", 0.83, "--json")
    plain, four = (json.loads(run(*words, *more)[1]) for more in ((), ("--bits", 4)))
    assert plain["weight_memory_accesses"] == 2 * four["weight_memory_accesses"]
    assert (
        plain["generator_counts"]["weight_memory_accesses"]
        == four["generator_counts"]["weight_memory_accesses"]
    )
    assert four["format"] == "int4"
    assert "format" not in plain
    assert four["saving"] == plain["saving"]  # a share
    assert four["saving_with_generator"] < plain["saving_with_generator"]


def test_a_training_for_four_bits_writes_what_it_trained_for(run, tmp_path: Path):
    file = tmp_path / "net.safetensors"
    words = ("train-base", "--model", "DigitsNet", "--dataset", "digits", "--epochs", 1, "--device", "cpu")
    status, _, err = run(*words, "--bits", 4, "--out", file)
    assert status == 0, err
    subject = load_subject(weights=file, images=32)
    assert subject.stored.format.name == subject.trained["weight_format"] == "int4"
    status, out, err = run(
        "train-generator", "--generator", "ConvXS", "--base", file, "--bit-error-rate", "2%", "--epochs", 1,
        "--n-models", 1, "--out", tmp_path / "g.safetensors", "--device", "cpu", "--batch-size", 1024,
    )  # fmt: skip
    assert status == 0, err
    assert "int4 weights" in out
    trained = load_subject(weights=file, images=4).network
    from neuralfuse.files import read_generator

    assert read_generator(tmp_path / "g.safetensors").metadata["base"] == trained


@pytest.mark.parametrize("name", ["int4", "uint3"])
def test_export_writes_integers_of_fewer_bits(run, tmp_path: Path, name: str):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    file = tmp_path / "net.onnx"
    status, out, err = run(
        "export", "--onnx", file, "--format", name, "--images", 4, "--chip", 1, "--bit-error-rate", "1%"
    )
    assert status == 0, err  # onnxruntime's answers are torch's, or nothing is written
    assert f"62,896 {name} weights" in out
    most = 8 if name == "int4" else 3  # uint3 clamps what it reads
    (codes,) = [t for t in onnx.load(file).graph.initializer if t.name.endswith("classifier.weight.int4")]
    values = onnx.numpy_helper.to_array(codes)
    assert (values.astype(int).min(), values.dtype) == (-most, "int4")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("sweep-voltage", "--bits", 4, "--format", "int4"), "--bits cannot be combined with --format"),
        (("sweep-voltage", "--bits", 9), "must be from 2 to 8"),
        (("evaluate", "--bit-error-rate", "1%", "--format", "int44"), "unknown format 'int44'"),
        (("sweep-voltage", "--bits", 4, "--protect-bits", 5), "the bits of these weights are 0 to 3"),
        (("sweep-voltage", "--per-channel", "--format", "bfloat16"), "no scale for each channel"),
    ],
)
def test_one_line(run, words, message: str):
    status, out, err = run(*words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert message in err
