"""`faultsim train-generator --trainer staged` and `lookup`: from words to generators, patterns and classifiers."""

import json

import pytest

from faultsim.checkpoint import read_file
from neuralfuse.files import read_generator
from tests.cli.in_process import run

pytestmark = pytest.mark.usefixtures("few_images")
STAGES = ["--classifier-epochs", 1, "--pattern-epochs", 1, "--drawing-epochs", 1, "--epochs", 1]
STAGED = ["train-generator", "--trainer", "staged", *STAGES, "--bit-error-rate", 0.02, "--batch-size", 32]


def test_staged_training(tmp_path, capsys):
    """Four stages, one line each; classifier and patterns are kept for the next generator, and drawn."""
    file = tmp_path / "s.safetensors"
    more = ("--n-models", 2, "--device", "cpu")
    code, out, err = run(capsys, *STAGED, *more, "--generator", "ConvS", "--out", file)
    assert code == 0
    assert [line.split(",")[1].strip() for line in err.splitlines()] == [
        "classifier",
        "patterns",
        "drawing",
        "eopm",
    ]
    assert "ConvS for DigitsNet on digits at bit error rate 2 %" in out
    metadata = read_file(file)[1]
    training = metadata["training"]
    assert (training["trainer"], training["loss"], training["divided"]) == (
        "staged",
        "error_probability",
        True,
    )
    assert training["stages"]["classifier"]["epochs"] == 1
    # 60 images: once for the patterns, once for EOPM, each through one model
    assert (metadata["cost"]["base_forward"], metadata["cost"]["base_backward"]) == (120, 120)
    assert metadata["cost"]["generator_forward"] == 180
    assert 0 <= metadata["patterns"]["mean"] <= 1
    assert metadata["patterns"]["chips"] == 50
    assert metadata["classifier"]["accesses"] > 0
    entries = [json.loads(line) for line in (tmp_path / "s.log.jsonl").read_text().splitlines()]
    assert [entry["stage"] for entry in entries] == ["classifier", "patterns", "drawing", "eopm"]
    code, out, _ = run(capsys, "patterns", tmp_path / "s.patterns.safetensors", "--out", tmp_path / "p.png")
    assert code == 0
    assert "10 patterns: " in out
    assert "50 unseen chips" in out
    assert (tmp_path / "p.png").stat().st_size > 1000
    other = tmp_path / "d.safetensors"  # another generator with the same encoder draws finer patterns
    code, _, err = run(capsys, *STAGED, *more, "--generator", "DeConvS", "--reuse", tmp_path, "--out", other)
    assert code == 0
    assert [line.split(",")[1].strip() for line in err.splitlines()] == ["patterns", "drawing", "eopm"]
    code, _, err = run(capsys, "patterns", file, "--out", tmp_path / "p.png")
    assert (code, err.count("\n")) == (2, 1)
    assert "holds no class patterns" in err


def test_a_look_up_is_the_first_two_stages(tmp_path, capsys):
    """The same classifier and patterns, as make-lookup puts them together, at the cost of these stages."""
    options = ("--generator", "UNetS", "--device", "cpu", "--classifier-epochs", 1, "--pattern-epochs", 1)
    whole, file, made = (tmp_path / f"{name}.safetensors" for name in ("whole", "look", "made"))
    code, _, _ = run(capsys, *STAGED, *options, "--n-models", 2, "--out", whole)
    assert code == 0
    train = ("train-generator", "--trainer", "lookup", "--bit-error-rate", 0.02, *options)
    code, out, err = run(capsys, *train, "--out", file)
    assert code == 0
    assert [line.split(",")[1].strip() for line in err.splitlines()] == ["classifier", "patterns"]
    assert "UNetS for DigitsNet on digits at bit error rate 2 %" in out
    assert "its patterns succeed in " in out
    code, _, _ = run(capsys, "make-lookup", whole, "--out", made)
    assert code == 0
    assert read_generator(file).fingerprint == read_generator(made).fingerprint
    metadata = read_file(file)[1]
    training = metadata["training"]
    assert (training["trainer"], training["bit_error_rate"], training["n_models"]) == ("lookup", 0.02, 3)
    assert "loss" not in training  # of EOPM, which there was not
    assert (metadata["cost"]["base_forward"], metadata["cost"]["generator_forward"]) == (60, 60)
    code, out, _ = run(
        capsys, "evaluate", "--generator", file, "--bit-error-rate", 0.02, "--chips", 1, "--json"
    )
    assert code == 0
    # what was found is taken over by another look-up and by make-lookup
    code, out, err = run(capsys, *train, "--reuse", tmp_path, "--out", tmp_path / "again.safetensors")
    assert (code, err) == (0, "")
    assert read_generator(tmp_path / "again.safetensors").fingerprint == read_generator(made).fingerprint
    code, out, _ = run(capsys, "make-lookup", file, "--confidence", 0.6, "--out", made)
    assert (code, out.split(":")[0]) == (0, "lookup UNetS@0.6")
    # nothing draws these patterns: they are as fine with a generator that draws coarser
    coarse = (
        "train-generator",
        "--trainer",
        "lookup",
        "--bit-error-rate",
        0.02,
        "--generator",
        "ConvS",
        *options[2:],
    )
    code, _, err = run(capsys, *coarse, "--reuse", tmp_path, "--out", tmp_path / "coarse.safetensors")
    assert (code, err.count("\n")) == (0, 1)
    assert "classifier" in err
    code, _, err = run(capsys, *train, "--start", whole, "--out", tmp_path / "other.safetensors")
    assert (code, err.count("\n")) == (2, 1)
    assert "--start cannot be combined with --trainer lookup" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--classifier-epochs", 2), "--classifier-epochs needs --trainer staged or lookup"),
        (("--pattern-epochs", 2), "--pattern-epochs needs --trainer staged or lookup"),
        (("--reuse", "."), "--reuse needs --trainer staged or lookup"),
        (("--trainer", "lookup", "--epochs", 1), "--epochs cannot be combined with --trainer lookup"),
        (("--trainer", "lookup", "--drawing-epochs", 1), "--drawing-epochs cannot be combined"),
        (("--trainer", "lookup", "--n-models", 2), "--n-models cannot be combined with --trainer lookup"),
        (("--trainer", "lookup", "--no-divided"), "--divided cannot be combined with --trainer lookup"),
        (("--trainer", "lookup", "--flips", 2), "add --trainer adversarial"),
        (("--trainer", "staged", "--reuse", "nowhere"), "--reuse nowhere is no folder"),
        (("--trainer", "staged", "--drawing-epochs", 0), "at least one epoch"),
        (("--trainer", "staged", "--seed", 1 << 30), "staged training takes seeds below"),
        (("--trainer", "staged", "--flips", 3), "add --trainer adversarial"),
        (("--loss", "hinge"), "unknown loss 'hinge': it can be cross_entropy or error_probability"),
    ],
)
def test_bad_stages_are_refused(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = ("--generator", "ConvS", "--bit-error-rate", 0.01, "--device", "cpu", "--out", "g.safetensors")
    code, out, err = run(capsys, "train-generator", *options, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert words in err
    assert not list(tmp_path.iterdir())
