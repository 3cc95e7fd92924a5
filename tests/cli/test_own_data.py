"""Own data and metrics on the command line: functions, folders, sizes, sequences, what doesn't fit."""

import csv
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from faultsim import Chip, perturb
from faultsim.cli import main
from faultsim.conditions import COLUMNS
from faultsim.data import load

MODULE = '''
import numpy as np
import torch
from torch import nn
from faultsim.data import load


class Grey(nn.Module):
    """Digits of 28x28 grey pixels."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 6, 5, 2), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 12 * 12, 10))

    def forward(self, x):
        return self.layers(x)


class Rows(nn.Module):
    """An LSTM that reads the rows of a digit."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.rnn, self.head = nn.LSTM(8, 12, batch_first=True), nn.Linear(12, 10)

    def forward(self, x):
        return self.head(self.rnn(x)[1][0][0])


class Tokens(nn.Module):
    """A language model of 11 tokens, called by name, that answers as transformers' do."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.embed, self.head = nn.Embedding(11, 6), nn.Linear(6, 11)

    def forward(self, input_ids, attention_mask=None):
        return {"logits": self.head(self.embed(input_ids))}


class Pixels(nn.Module):
    """A class for each pixel."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.layer = nn.Conv2d(3, 4, 1)

    def forward(self, x):
        return self.layer(x)


class Line(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(4)
        self.layer = nn.Linear(5, 1)

    def forward(self, x):
        return self.layer(x)[:, 0]


class Hits:
    higher_is_better = True

    def __init__(self):
        self.hits = self.seen = 0

    def update(self, answers, targets):
        self.hits += int((answers.argmax(1) == targets).sum())
        self.seen += len(targets)

    def compute(self):
        return self.hits / self.seen


class Broken(Hits):
    def compute(self):
        raise RuntimeError("no number today")


def large():
    return nn.Sequential(nn.Conv2d(3, 4, 8, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))


def hundred():
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 100))


def two():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 2))


def ten():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))


def rows(split="test"):
    digits = load("digits", split)
    x = digits.images[:, 0].float().reshape(-1, 8, 4, 8, 4).mean((2, 4)) / 255
    for i in range(0, len(x), 100):
        yield x[i : i + 100], digits.labels[i : i + 100]


def train_rows():
    return rows("train")


def tokens():
    ids = torch.arange(40).reshape(4, 10) % 11
    return [{"input_ids": ids, "attention_mask": torch.ones(4, 10), "labels": (ids + 1) % 11}]


def pixels():
    torch.manual_seed(0)
    return [(torch.randn(4, 3, 6, 5), torch.randint(0, 4, (4, 6, 5)))]


def numbers():
    torch.manual_seed(0)
    return [(np.ones((6, 5), np.float32), np.zeros(6, np.float32))]


def columns():
    return [(torch.randn(8, 3, 32, 32), torch.zeros(8, 1, dtype=torch.int64))]


def nan():
    return [(torch.full((40, 3, 32, 32), float("nan")), torch.zeros(40, dtype=torch.int64))]


def fails():
    yield torch.zeros(2, 3), torch.zeros(2)
    raise OSError("the disk is\\ngone")


def strings():
    return ["a", "b"]


nothing = list
seven = lambda: 7
constant = 7
'''


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, the current one, with a module of the user's, and pictures."""
    (tmp_path / "own_data_module.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("own_data_module", None)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(word).replace("@", "own_data_module:") for word in words])
        out, err = capfd.readouterr()
        return ended.value.code or 0, out, err

    return call


def pictures(folder: Path, classes: dict[str, list[np.ndarray]], ending: str = "png") -> None:
    for name, arrays in classes.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number, array in enumerate(arrays):
            Image.fromarray(array).save(folder / name / f"{number:03d}.{ending}")


def digits_in(folder: Path, split: str, count: int) -> None:
    """Grey pictures of digits, 28 x 28."""
    digits = load("digits", split)
    for index in range(count):
        place = folder / str(int(digits.labels[index]))
        place.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(digits.images[index, 0].numpy()).resize((28, 28))
        picture.save(place / f"{index:04d}.png")


SMALL = ["--device", "cpu", "--chips", "3"]


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


# -- what doesn't fit ------------------------------------------------------------------------------------------------

SWEEP, RATE = ["sweep-voltage", "--voltages", "1"], ["--bit-error-rate", "0.01"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--model", "@hundred", "--dataset", "digits"], "returns [2, 100] for 2 images; digits needs logits [2, 10]"),
        (["--model", "@ten", "--data", "@absent"], "data 'own_data_module:absent': module 'own_data_module' has no"),
        (["--model", "@ten", "--data", "@constant"], "'constant' is of type int; give a function that returns batches"),
        (["--model", "@ten", "--data", "no_such_module:f"], "importing 'no_such_module' failed"),
        (["--model", "@ten", "--data", "@fails"], "data 'own_data_module:fails' fails (OSError: the disk is)"),
        (["--model", "@ten", "--data", "@strings"], "data 'own_data_module:strings': a batch is a str: it must be"),
        (["--model", "@ten", "--data", "@seven"], "it gives a int, not an iterable of batches"),
        (["--model", "@ten", "--data", "@nothing"], "gives no samples"),
        (["--model", "@ten", "--data", "@columns"], "accuracy needs logits [N, classes] and integer labels [N], not"),
        (["--model", "@ten", "--data", "@rows"], "fails on inputs float32 [100, 8, 8]: mat1 and mat2"),
        (["--model", "@Pixels", "--data", "@pixels"], "take the metric mean_iou or your own"),
        (["--model", "@ten", "--data", "nowhere"], "--data nowhere: no such folder; your own function is"),
        (["--model", "@ten", "--data", "empty"], "empty holds no folders: one for each class is needed"),
        (["--model", "@ten", "--data", "bare"], "a holds no picture (.png, .jpg"),
        (["--model", "@ten", "--data", "damaged"], "000.png is not a whole picture: "),
        (["--model", "@ten", "--data", "@rows", "--dataset", "digits"], "--data cannot be combined with --dataset"),
        (["--model", "@ten", "--data", "@rows", "--mean", "1"], "--mean is for the pictures of a folder"),
        (["--model", "@ten", "--dataset", "digits", "--input-size", "1x2x3"], "add --data FOLDER"),
        (["--model", "@ten", "--data", "good", "--input-size", "28"], "write channels x height x width, such as"),
        (["--model", "@ten", "--data", "good", "--input-size", "2x8x8"], "1 (grey) or 3 (RGB) channels"),
        (["--model", "@ten", "--data", "good", "--mean", "0.5"], "--mean and --std belong together"),
        (["--model", "@ten", "--data", "good", "--mean", "a", "--std", "1"], "--mean 'a': write a number"),
        (["--model", "@ten", "--data", "good", "--mean", "0,0", "--std", "1,1"], "don't fit torch.uint8"),
        (["--model", "@ten", "--data", "good", "--mean", "0", "--std", "0"], "a std above 0"),
        (["--model", "@ten", "--data", "good", "--images", "9"], "good has 2 pictures, choose 1 to 2"),
        (["--model", "@ten", "--data", "good"], "returns [2, 10] for 2 images; good needs logits [2, 2]"),
        (["--model", "@Rows", "--data", "@rows", "--images", "999"], "has 359, choose 1 to 359"),
        (["--model", "@Rows", "--data", "@rows", "--metric", "speed"], "unknown metric 'speed': it can be accuracy"),
        (["--model", "@Rows", "--data", "@rows", "--metric", "@seven"], "metric <lambda> is no metric"),
        (["--model", "@Rows", "--data", "@rows", "--metric", "@absent"], "has no 'absent'"),
        (["--model", "@Rows", "--data", "@rows", "--metric", "@Broken"], "metric Broken gives no number: no number"),
        (["--model", "@Rows", "--data", "@rows", "--metric", "mse"], "a regression error needs answers and targets"),
        (["--model", "@two", "--data", "good", "--input-size", "1x28x28", "--generator", "GENERATOR"],
         "generator ConvXS takes images of 3 channels whose height and width are multiples of 8, such as 3x32x32"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", [SWEEP, ["evaluate", *RATE]], ids=["sweep", "evaluate"])
def test_one_line_and_status_2(here, run, command, words, complaint):
    from neuralfuse import bundled

    pictures(here / "good", {name: [np.zeros((8, 8, 3), np.uint8)] for name in "ab"})
    pictures(here / "damaged", {"a": [np.zeros((8, 8, 3), np.uint8)]})
    (here / "damaged" / "a" / "000.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (here / "empty").mkdir()
    (here / "bare" / "a").mkdir(parents=True)
    words = [str(bundled.WEIGHTS) if word == "GENERATOR" else word for word in words]
    code, out, err = run(*command, *words, "--device", "cpu", "--chips", "2")
    assert code == 2, (out, err)
    line = [text for text in err.splitlines() if "warning" not in text]
    assert len(line) == 1, err
    assert line[0].startswith("faultsim: error: ")
    assert complaint in line[0]
    assert len(line[0]) < 400


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["train-base", "--model", "@Rows", "--data", "@rows", "--out", "x.safetensors"],
         "--data and --test-data belong together"),
        (["train-base", "--model", "@Rows", "--data", "@tokens", "--test-data", "@rows", "--out", "x.safetensors"],
         "training needs batches (one tensor of inputs, class numbers [N])"),
        (["train-base", "--model", "@ten", "--data", "@train_rows", "--test-data", "@rows", "--out", "x.safetensors"],
         "fails on images [2, 8, 8]"),
        (["energy", "--model", "ResNet18", "--data", "@rows", "--input-shape", "3x8x8"], "cannot be combined with"),
        (["energy", "--model", "ResNet18", "--generator", "ConvL", "--input-shape", "1x28x28"],
         "the data gives 1x28x28"),
        (["energy", "--model", "@ten", "--data", "@rows"], "can't be traced: it fails on one input of shape (8, 8)"),
        (["export", "--model", "@Tokens", "--data", "@tokens", "--onnx", "x.onnx"], "a model with one input"),
        (["sweep-voltage", "--metric", "mse", "--accuracy-floor", "0.9"],
         "cannot be combined with the metric mean squared error"),
    ],
)  # fmt: skip
def test_other_commands_refuse_in_one_line(here, run, words, complaint):
    code, out, err = run(*words)
    assert code == 2, (out, err)
    assert err.count("\n") == 1
    assert complaint in err
