"""`faultsim train-generator`, `evaluate` and `sweep-voltage --generator`: from words to a generator and its figures."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch

from faultsim import Chip, FaultModel, bundled, evaluate, evaluation_chips, load_weights, models
from faultsim.checkpoint import read_file
from faultsim.cli import main
from faultsim.data import iterate_batches, load
from faultsim.studies.chip_statistics import Statistics
from neuralfuse import generators
from tests.cli.in_process import run

SMALL = ["--generator", "UNetS", "--n-models", "1", "--device", "cpu"]
TRAIN = ["train-generator", *SMALL, "--bit-error-rate", "0.02", "--batch-size", "32"]
LOOK = ["--images", "50", "--chips", "3", "--device", "cpu"]
pytestmark = pytest.mark.usefixtures("few_images")


@pytest.fixture(scope="module")
def folder(few_images, tmp_path_factory) -> Path:
    """Holds g.safetensors, an epoch of training, with its state and log."""
    path = tmp_path_factory.mktemp("generator")
    with pytest.raises(SystemExit):
        main([*TRAIN, "--epochs", "1", "--out", str(path / "g.safetensors")])
    return path


def test_the_file_says_everything(folder):
    tensors, metadata = read_file(folder / "g.safetensors")
    assert metadata["generator"] == "UNetS"
    assert metadata["dataset"] == "digits"
    assert metadata["training"]["bit_error_rate"] == 0.02
    assert metadata["training"]["n_models"] == 1
    assert metadata["training"]["weight"] == 5.0
    assert metadata["training"]["betas"] == [0.5, 0.999]
    assert metadata["training"]["faults"]["kind"] == "flip"
    assert metadata["base"]["model"] == "DigitsNet"
    assert len(metadata["base"]["weights"]) == 64
    assert metadata["epochs"] == 1
    assert {"versions", "commit", "device", "date"} <= set(metadata)
    kinds = {str(t.dtype) for name, t in tensors.items() if name.endswith(("conv.weight", "last.weight"))}
    assert kinds == {"torch.int8"}


def test_adversarial_training(tmp_path, capsys):
    """Against the worst flips; the generator is then measured on unseen chips like any other (the paper's Table 16)."""
    file = tmp_path / "a.safetensors"
    options = ("--generator", "UNetS", "--batch-size", 32, "--epochs", 1, "--device", "cpu", "--out", file)
    code, out, _ = run(capsys, "train-generator", "--trainer", "adversarial", "--flips", 1000, *options)
    assert code == 0
    assert "UNetS for DigitsNet on digits against 1,000 bit flips: loss" in out
    training = read_file(file)[1]["training"]
    assert (training["trainer"], training["flips"], training["weight"]) == ("adversarial", 1000, 5.0)
    assert not {"bit_error_rate", "n_models", "faults"} & set(training)
    code, out, _ = run(capsys, "evaluate", "--generator", file, "--bit-error-rate", 0.01, "--json", *LOOK)
    assert code == 0
    assert [row["name"] for row in json.loads(out)["accuracy"]][-1] == "IP"
    code, _, err = run(capsys, "train-generator", "--bit-error-rate", 0.01, *options)
    assert (code, err.count("\n")) == (2, 1)
    assert "a.state.safetensors belongs to a run with other options" in err


def test_surrogates(tmp_path, capsys):
    """--base twice: the mean of both losses, twice the passes; the metadata names both."""
    file = tmp_path / "g.safetensors"
    bases = ("--base", bundled.WEIGHTS, "--base", bundled.WEIGHTS)
    code, _, _ = run(capsys, *TRAIN, *bases, "--epochs", 1, "--out", file)
    assert code == 0
    metadata = read_file(file)[1]
    assert [other["model"] for other in metadata["surrogates"]] == ["DigitsNet"]
    assert metadata["cost"]["base_forward"] == 2 * 2 * 60


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--trainer", "pgd"), "unknown trainer 'pgd': it can be eopm, adversarial, staged or lookup"),
        (("--trainer", "adversarial"), "add --flips"),
        (("--flips", 10), "add --trainer adversarial"),
        (("--flips", 10, "--bit-error-rate", 0.01), "add --trainer adversarial"),
        (("--trainer", "adversarial", "--flips", 0), "0 bit flips: the weights have 503,168 bits"),
        (("--trainer", "adversarial", "--flips", 503_169), "503169 bit flips: the weights have 503,168 bits"),
        (
            ("--trainer", "adversarial", "--flips", 10, "--bit-error-rate", 0.01),
            "--bit-error-rate cannot be combined",
        ),
        (("--trainer", "adversarial", "--flips", 10, "--voltage", 0.83), "--voltage cannot be combined"),
        (("--trainer", "adversarial", "--flips", 10, "--preset", "iid_flips"), "--preset cannot be combined"),
        (("--trainer", "adversarial", "--flips", 10, "--n-models", 10), "--n-models cannot be combined"),
        (("--trainer", "adversarial", "--flips", 10, "--in-flight", 2), "--in-flight cannot be combined"),
        (("--bit-error-rate", 0.01, "--in-flight", 0), "0 models in flight: at least 1 is needed"),
    ],
)
def test_trainers_refuse_each_others_options(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = ("--generator", "UNetS", "--device", "cpu", "--out", "g.safetensors")
    code, out, err = run(capsys, "train-generator", *options, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert words in err
    assert not list(tmp_path.iterdir())


def test_a_run_goes_on_to_the_same_result(folder, tmp_path, capsys, threads):
    for name in ("g.safetensors", "g.state.safetensors", "g.log.jsonl"):
        shutil.copy(folder / name, tmp_path)
    code, out, err = run(capsys, *TRAIN, "--epochs", "2", "--out", tmp_path / "g.safetensors")
    assert code == 0
    assert err.startswith("epoch 2/2: loss ")
    assert "after 2 epochs" in out
    code, _, err = run(capsys, *TRAIN, "--epochs", "2", "--out", tmp_path / "whole.safetensors")
    assert (code, err.count("\n")) == (0, 2)
    resumed, whole = (read_file(tmp_path / f"{name}.safetensors")[0] for name in ("g", "whole"))
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    logs = [(tmp_path / f"{name}.log.jsonl").read_text().splitlines() for name in ("g", "whole")]
    for ours, theirs in zip(*([json.loads(line) for line in log] for log in logs), strict=True):
        assert {**ours, "seconds": 0} == {**theirs, "seconds": 0}


def test_a_run_goes_on_with_another_number_in_flight(folder, tmp_path, capsys):
    """N = 1: the clean and the perturbed model one after the other, or both at once, add up to the same numbers."""
    for name in ("g.safetensors", "g.state.safetensors", "g.log.jsonl"):
        shutil.copy(folder / name, tmp_path)
    losses = []
    for more, file in ((("--in-flight", 2), "g"), ((), "whole")):
        code, _, _ = run(capsys, *TRAIN, *more, "--epochs", "2", "--out", tmp_path / f"{file}.safetensors")
        assert code == 0
        losses.append(read_file(tmp_path / f"{file}.safetensors")[1]["losses"])
    ours, theirs = losses
    assert ours == pytest.approx(theirs, rel=1e-3)


def test_a_run_begins_with_another_generator(folder, tmp_path, capsys):
    """With a vanishing learning rate it stays what it was, except for the statistics of its own batches."""
    file, begun = tmp_path / "h.safetensors", folder / "g.safetensors"
    still = (*TRAIN, "--epochs", 1, "--learning-rate", 1e-12, "--out", file)
    code, _, _ = run(capsys, *still, "--start", begun)
    assert code == 0
    tensors, metadata = read_file(file)
    theirs, trained = read_file(begun)
    weights = [name for name, tensor in tensors.items() if tensor.dtype == torch.int8]
    assert weights
    assert all(torch.equal(tensors[name], theirs[name]) for name in weights)
    start = metadata["start"]
    assert len(start["weights"]) == 64
    assert {key: start[key] for key in ("training", "epochs", "commit", "date")} == {
        key: trained[key] for key in ("training", "epochs", "commit", "date")
    }
    assert "start" not in start
    assert "start" not in trained
    # a third one names both before it, and none of them goes on as if it had begun otherwise
    code, _, err = run(capsys, *still)
    assert (code, err.count("\n")) == (2, 1)
    assert "h.state.safetensors belongs to a run with other options" in err
    code, _, _ = run(capsys, *still[:-1], tmp_path / "i.safetensors", "--start", file)
    assert code == 0
    assert read_file(tmp_path / "i.safetensors")[1]["start"]["start"] == start


def test_a_run_begins_with_the_same_architecture_only(folder, tmp_path, capsys):
    options = ("--bit-error-rate", 0.01, "--device", "cpu", "--out", tmp_path / "h.safetensors")
    file = folder / "g.safetensors"
    code, _, err = run(capsys, "train-generator", "--generator", "ConvS", "--start", file, *options)
    assert (code, err.count("\n")) == (2, 1)
    assert "holds UNetS: begin with a ConvS, or train --generator UNetS" in err
    code, _, err = run(
        capsys, "train-generator", "--generator", "UNetS", "--start", bundled.WEIGHTS, *options
    )
    assert (code, err.count("\n")) == (2, 1)
    assert "holds no generator" in err
    assert not list(tmp_path.iterdir())


def test_evaluate_agrees_with_the_library(folder, capsys):
    file = folder / "g.safetensors"
    arguments = ("--generator", file, "--voltage", "0.83", "--preset", "neuralfuse_2022", "--json")
    code, out, _ = run(capsys, "evaluate", *arguments, *LOOK)
    assert code == 0
    report = json.loads(out)
    rows = {row["name"]: row for row in report["accuracy"]}
    assert list(rows) == ["C.A.", "P.A.", "C.A.+N.F.", "P.A.+N.F.", "IP"]
    assert report["configuration"]["bit_error_rate"] == 0.01
    assert report["configuration"]["generator"]["name"] == "with UNetS"

    model = models.create(bundled.MODEL)
    stored, _ = load_weights(model, bundled.WEIGHTS)
    network = generators.create("UNetS")
    load_weights(network, file)
    fuse = generators.NeuralFuse(network)
    data = list(iterate_batches(load("digits", "test").subset(torch.arange(50)), 256))
    options = {"faults": FaultModel.preset("neuralfuse_2022"), "stored": stored}
    chips = evaluation_chips(0, 3)
    for suffix, transform in (("", None), ("+N.F.", fuse)):
        clean = evaluate(model, data, [Chip(0)], bit_error_rate=0.0, transform=transform, **options)
        failing = evaluate(model, data, chips, bit_error_rate=0.01, transform=transform, **options)
        assert rows[f"C.A.{suffix}"] == {"name": f"C.A.{suffix}", "mean": clean.mean}
        assert rows[f"P.A.{suffix}"]["chips"] == list(failing.accuracies)
        assert rows[f"P.A.{suffix}"]["std"] == failing.std
        assert rows[f"P.A.{suffix}"]["interval"] == list(failing.interval)
    differences = [b - a for a, b in zip(rows["P.A."]["chips"], rows["P.A.+N.F."]["chips"], strict=True)]
    improvement = Statistics.of(differences)
    assert (rows["IP"]["mean"], rows["IP"]["std"]) == (improvement.mean, improvement.std)
    assert rows["IP"]["interval"] == list(improvement.interval)


def test_evaluate_prints_a_table(folder, capsys):
    code, out, err = run(
        capsys, "evaluate", "--generator", folder / "g.safetensors", "--bit-error-rate", 0.01, *LOOK
    )
    assert (code, err) == (0, "")
    for name in ("C.A.", "P.A.", "C.A.+N.F.", "P.A.+N.F.", "IP", "3 chips", "flip, unlimited placement"):
        assert name in out
    assert max(map(len, out.splitlines())) <= 80


def test_evaluate_without_a_generator(capsys):
    code, out, _ = run(capsys, "evaluate", "--bit-error-rate", 0.01, "--json", *LOOK[:2], "--chips", 1)
    assert code == 0
    clean, perturbed = json.loads(out)["accuracy"]
    assert clean["mean"] == 1.0
    assert perturbed["interval"] == [None, None]


def test_the_improvement_by_hand():
    """Differences 1, 2, 3 points: mean 2, population deviation sqrt(2/3), t(0.975, 2) = 4.30265."""
    found = Statistics.of([0.01, 0.02, 0.03])
    assert found.mean == pytest.approx(0.02)
    assert found.std == pytest.approx(0.01 * math.sqrt(2 / 3))
    half = 4.302652729911275 * 0.01 / math.sqrt(3)
    assert found.interval == pytest.approx((0.02 - half, 0.02 + half))
    assert all(map(math.isnan, Statistics.of([0.1]).interval))


def test_a_sweep_with_a_generator_counts_its_energy(folder, capsys):
    arguments = ("--generator", folder / "g.safetensors", "--voltages", "0.83,0.85", "--json")
    code, out, _ = run(capsys, "sweep-voltage", *arguments, *LOOK)
    assert code == 0
    rows = {(row["variant"], row["voltage"]): row for row in json.loads(out)["summary"]}
    assert len(rows) == 4
    for volts in (0.83, 0.85):
        extra = (
            rows["with UNetS", volts]["energy_per_inference"]
            - rows["unprotected", volts]["energy_per_inference"]
        )
        assert extra == pytest.approx(45711)  # the accesses of UNetS, at Vmin: the paper's Table 6


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("--generator", "ConvXXL", "--bit-error-rate", 0.01),
            "unknown generator 'ConvXXL': it can be ConvL",
        ),
        (("--generator", "ConvS"), "give either --voltage or --bit-error-rate"),
        (("--generator", "ConvS", "--bit-error-rate", 0.01, "--voltage", 0.8), "give either --voltage or"),
        (("--generator", "ConvS", "--bit-error-rate", 1.5), "outside [0, 1]"),
        (("--generator", "ConvS", "--bit-error-rate", 0.01, "--n-models", 0), "at least 1 is needed"),
        (("--generator", "ConvS", "--bit-error-rate", 0.01, "--epochs", 0), "max_epochs 0"),
        (("--generator", "ConvS", "--bit-error-rate", 0.01, "--precision", "int8"), "float32 or bfloat16"),
        (("--generator", "ConvS", "--bit-error-rate", 0.01, "--preset", "x"), "unknown fault preset 'x'"),
        (("--generator", "ConvS", "--bit-error-rate", 0.01, "--seed", -1), "seed -1"),
        (
            ("--generator", "ConvS", "--bit-error-rate", 0.01, "--curve", "x.csv"),
            "--curve cannot be combined",
        ),
        (("--generator", "ConvS", "--bit-error-rate", 0.01, "--base", "no.safetensors"), "does not exist"),
        (("--generator", "ConvS", "--bit-error-rate", 0.01, "--out", "g.pt"), "must end in .safetensors"),
    ],
)
def test_wrong_words_get_one_line(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    out = () if "--out" in arguments else ("--out", "g.safetensors")
    code, printed, err = run(capsys, "train-generator", *arguments, *out, "--device", "cpu")
    assert (code, printed, err.count("\n")) == (2, "", 1), err
    assert err.startswith("faultsim: error: ")
    assert words in err
    assert not list(tmp_path.iterdir())


def test_other_options_do_not_go_on(folder, tmp_path, capsys):
    shutil.copy(folder / "g.state.safetensors", tmp_path)
    code, _, err = run(capsys, *TRAIN, "--seed", 1, "--epochs", "2", "--out", tmp_path / "g.safetensors")
    assert (code, err.count("\n")) == (2, 1)
    assert "g.state.safetensors belongs to a run with other options" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "give either --voltage or --bit-error-rate"),
        (("--bit-error-rate", 0.01, "--generator", bundled.WEIGHTS), "holds no generator"),
        (("--bit-error-rate", 0.01, "--generator", "none.safetensors"), "does not exist"),
        (("--bit-error-rate", 0.01, "--chips", 0), "at least 1"),
        (("--bit-error-rate", "nan"), "outside [0, 1]"),
    ],
)
def test_wrong_words_to_evaluate_get_one_line(arguments, words, capsys):
    code, out, err = run(capsys, "evaluate", *arguments, "--device", "cpu")
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert words in err


def test_bench_compares_in_one_run(capsys):
    small = [*SMALL, "--model", "DigitsNet", "--batch-size", "4", "--rounds", "2"]
    code, out, _ = run(capsys, "bench", "eopm", *small, "--json")
    assert code == 0
    found = json.loads(out)
    assert found["over_parts"] == pytest.approx(found["eopm"] / found["parts"])
    assert found["naive_over"] == pytest.approx(found["naive"] / found["eopm"])
    assert found["naive_over_parts"] == pytest.approx(found["naive"] / found["parts"])
    assert found["eopm"] == pytest.approx(sum(found["samples"][0]) / 2)
    assert found["threads"] == torch.get_num_threads()
    code, out, _ = run(capsys, "bench", "eopm", *small)
    assert "x its parts" in out
