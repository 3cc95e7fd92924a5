"""Do functions, folders, sequences and metrics of the user's work in each command?"""

import csv
import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from faultsim import Chip, perturb
from faultsim.studies.conditions import COLUMNS
from tests.cli.own_pictures import SMALL, digits_in, pictures


def test_a_function_of_sequences_in_sweep_evaluate_and_energy(here, run):
    """Labels are what the clean network answers, so that the right value without errors is known."""
    torch.manual_seed(1)
    code, out, err = run(
        "evaluate", "--model", "@Rows", "--data", "@rows", "--bit-error-rate", 0, *SMALL, "--json"
    )
    assert code == 0, err
    report = json.loads(out)
    own = importlib.import_module("own_data_module")
    model = own.Rows().eval()
    clean = perturb(model, Chip(0), bit_error_rate=0)
    right = sum(int((clean(x).argmax(1) == y).sum()) for x, y in own.rows())
    assert report["accuracy"][0] == {"name": "C.A.", "mean": right / 359}
    assert report["configuration"]["dataset"] == "own_data_module:rows"
    assert report["configuration"]["images"] == 359
    assert "warning: without bit errors the accuracy is" in err, "an untrained model answers by chance"
    code, out, err = run(
        "sweep-voltage", "--model", "@Rows", "--data", "@rows", "--voltages", "0.8,1", "--images", 130, *SMALL,
        "--out", "run",
    )  # fmt: skip
    assert code == 0, err
    assert "own_data_module:Rows on 130 own_data_module:rows samples" in " ".join(out.split())
    with open("run/results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["images"] for row in rows] == ["130"] * 6


def test_tokens_by_name_and_their_perplexity(here, run):
    words = ["--model", "@Tokens", "--data", "@tokens", *SMALL]
    code, out, err = run(
        "sweep-voltage", *words, "--metric", "perplexity", "--voltages", "0.8,1", "--out", "run"
    )
    assert code == 0, err
    assert "perplexity (lower is better): mean ± population std over 3 chips" in out
    own = importlib.import_module("own_data_module")
    clean = perturb(own.Tokens(), Chip(0), bit_error_rate=0)
    batch = own.tokens()[0]
    loss = torch.nn.functional.cross_entropy(
        clean(batch["input_ids"])["logits"].movedim(-1, 1), batch["labels"]
    )
    with open("run/results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["perplexity"]) == pytest.approx(loss.exp().item())
    assert list(rows[0]) == ["variant", "voltage", "bit_error_rate", "chip", "images", "perplexity", *COLUMNS]
    with open("run/summary.csv", newline="") as file:
        summary = list(csv.DictReader(file))
    assert {(row["metric"], row["higher_is_better"]) for row in summary} == {("perplexity", "False")}
    assert all(float(row["worst"]) >= float(row["best"]) for row in summary)
    assert json.loads(Path("run/sweep.json").read_text())["configuration"]["metric"] == {
        "name": "perplexity",
        "higher_is_better": False,
    }
    before = Path("run/results.csv").read_bytes()
    code, _, err = run(
        "sweep-voltage", *words, "--metric", "perplexity", "--voltages", "0.8,1", "--out", "run"
    )
    assert (code, Path("run/results.csv").read_bytes()) == (0, before)
    code, _, err = run(
        "sweep-voltage", *words, "--metric", "cross-entropy", "--voltages", "0.8,1", "--out", "run"
    )
    assert code == 2
    assert "metric.name is perplexity there, cross entropy here" in err
    code, out, err = run("report", "run", "--out", "page.html")
    assert code == 0, err
    page = Path("page.html").read_text()
    assert "Perplexity against supply voltage" in page
    assert "perplexity, lower is better" in page
    assert "Accuracy" not in page


@pytest.mark.parametrize(
    ("model", "data", "metric", "label"),
    [
        ("@Pixels", "@pixels", "mean_iou", "mean IoU (%)"),
        ("@Line", "@numbers", "mse", "mean squared error"),
        ("@Line", "@numbers", "mae", "mean absolute error"),
        ("@Rows", "@rows", "@Hits", "Hits"),
        ("@Rows", "@rows", "top5", "top-5 accuracy"),
    ],
)
def test_each_metric_and_its_name_in_evaluate(here, run, model, data, metric, label):
    words = (
        "evaluate",
        "--model",
        model,
        "--data",
        data,
        "--metric",
        metric,
        "--bit-error-rate",
        0.02,
        *SMALL,
    )
    code, out, err = run(*words)
    assert code == 0, err
    assert label in out
    assert (
        f"{label.removesuffix(' (%)')}, {'lower' if metric in ('mse', 'mae') else 'higher'} is better" in out
    )
    report = json.loads(run(*words, "--json")[1])
    assert report["configuration"]["metric"]["name"] == label.removesuffix(" (%)")
    assert len(report["values"][1]["chips"]) == 3


def test_the_picture_of_another_metric_is_drawn(here, run):
    code, _, err = run(
        "sweep-voltage", "--model", "@Line", "--data", "@numbers", "--metric", "mse", "--bit-error-rates", "0,0.9",
        "--out", "run", *SMALL,
    )  # fmt: skip
    assert code == 0, err
    assert Path("run/sweep.png").read_bytes().startswith(b"\x89PNG")


def test_answers_that_are_no_numbers_are_reported_everywhere(here, run):
    words = ("--model", "@ten", "--data", "@nan", *SMALL)
    code, out, _ = run("evaluate", *words, "--bit-error-rate", 0)
    assert code == 0
    # 40 of the model without bit errors, and 40 of each of three chips
    assert "160 answers were not finite (NaN or infinity): they count as wrong" in out
    code, out, _ = run("sweep-voltage", *words, "--voltages", 1, "--out", "run")
    assert code == 0
    assert "120 answers were not finite" in out
    assert Path("run/results.csv").read_text().splitlines()[:2] == [
        "variant,voltage,bit_error_rate,chip,correct,images,accuracy,not_finite,fault_kind,placement,curve,stored_weights,weights",
        "unprotected,1.0,0.0,0,0,40,0.0,40,flip,unlimited,14nm,30720,30720",
    ]
    assert (
        Path("run/summary.csv").read_text().splitlines()[1].endswith(",120,flip,unlimited,14nm,30720,30720")
    )
    code, out, _ = run("sweep-voltage", *words, "--voltages", 1, "--out", "run")
    assert "120 answers were not finite" in out, "a sweep that is taken up again knows it, too"
    code, _, err = run("report", "run", "--out", "page.html")
    assert code == 0, err
    assert "120 answers were not finite" in Path("page.html").read_text()


# -- folders, sizes, training ----------------------------------------------------------------------------------------


def test_a_grey_folder_is_trained_on_evaluated_and_exported(here, run):
    digits_in(here / "train", "train", 400)
    digits_in(here / "test", "test", 120)
    (here / "train" / "3" / ".hidden.png").write_bytes(b"no picture")
    (here / "train" / "readme.txt").write_text("no class")
    code, out, err = run(
        "train-base", "--model", "@Grey", "--data", "train", "--test-data", "test", "--input-size", "1x28x28",
        "--mean", 0.3, "--std", 0.4, "--epochs", 4, "--out", "grey.safetensors", "--device", "cpu",
    )  # fmt: skip
    assert code == 0, err
    reached = float(out.split("test accuracy ")[1].split()[0])
    assert reached > 70
    # the size and the normalization are those of the training without a word
    code, out, err = run(
        "evaluate", "--model", "@Grey", "--weights", "grey.safetensors", "--data", "test", "--bit-error-rate", 0.05,
        *SMALL, "--json",
    )  # fmt: skip
    assert code == 0, err
    found = json.loads(out)
    assert 100 * found["accuracy"][0]["mean"] == pytest.approx(reached, abs=0.01)
    assert found["accuracy"][1]["mean"] < found["accuracy"][0]["mean"]
    assert found["configuration"]["input_size"] == [1, 28, 28]
    assert found["configuration"]["normalisation"] == {"mean": [0.3], "std": [0.4]}
    code, _, err = run(
        "evaluate", "--weights", "grey.safetensors", "--model", "@Grey", "--bit-error-rate", 0.05
    )
    assert code == 2
    assert (
        "unknown dataset 'train'; known: digits, cifar10, cifar100, gtsrb; give your own with --data" in err
    )
    code, out, err = run(
        "export", "--model", "@Grey", "--weights", "grey.safetensors", "--data", "test", "--images", 20, "--onnx",
        "grey.onnx",
    )  # fmt: skip
    assert code == 0, err
    assert "on 20 test images; written to grey.onnx" in out
    code, _, err = run(
        "export", "--model", "@Grey", "--weights", "grey.safetensors", "--data", "test", "--images", 20, "--onnx",
        "pixels.onnx", "--input", "uint8",
    )  # fmt: skip
    assert code == 2
    assert "the input format uint8 is for pixels that become x / 127.5 - 1" in err
    code, out, err = run("energy", "--model", "@Grey", "--input-shape", "1x28x28")
    assert code == 0, err
    assert f"{1 * 25:,}" in out


def test_a_folder_of_large_pictures(here, run):
    generator = np.random.default_rng(0)
    shown = {name: [generator.integers(0, 256, (40, 50, 3), np.uint8) for _ in range(3)] for name in "abc"}
    pictures(here / "own", shown, "jpg")
    words = ("--model", "@large", "--data", "own", "--input-size", "3x224x224")
    code, out, err = run("evaluate", *words, "--bit-error-rate", 0.01, "--images", 8, *SMALL, "--json")
    assert code == 0, err
    assert json.loads(out)["configuration"]["images"] == 8
    code, out, err = run("export", *words, "--images", 4, "--onnx", "large.onnx")
    assert code == 0, err


def test_sequences_are_trained_on_and_exported(here, run):
    code, out, err = run(
        "train-base", "--model", "@Rows", "--data", "@train_rows", "--test-data", "@rows", "--epochs", 1, "--out",
        "rows.safetensors", "--device", "cpu",
    )  # fmt: skip
    assert code == 0, err
    words = ("--model", "@Rows", "--weights", "rows.safetensors", "--data", "@rows")
    code, out, err = run("evaluate", *words, "--bit-error-rate", 0.01, *SMALL)
    assert code == 0, err
    code, out, err = run("export", *words, "--images", 8, "--onnx", "rows.onnx")
    assert code == 0, err
    assert "on 8 own_data_module:rows images" in out
