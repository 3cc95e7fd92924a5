"""`faultsim memory`, and the share of the weights in every output."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from faultsim import bundled
from faultsim.cli import main

OWN = """
import torch
from torch import nn

class Half(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(32, 8, batch_first=True), nn.Linear(8, 10)
        self.hidden = [nn.Linear(8, 8)]

    def forward(self, images):
        return self.head(self.hidden[0](self.lstm(images.mean(1))[0][:, -1]))

def half():
    torch.manual_seed(0)
    return Half()

def lazy():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(10))

def odd():
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 10, dtype=torch.complex64))
"""


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """run(arguments) -> exit status, stdout, stderr; with the user's module own_memory."""
    (tmp_path / "own_memory.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    def command(*arguments: object) -> SimpleNamespace:
        with pytest.raises(SystemExit) as ended:
            main([*map(str, arguments)])
        return SimpleNamespace(
            status=ended.value.code or 0, **dict(zip(("out", "err"), capsys.readouterr(), strict=True))
        )

    yield command
    sys.modules.pop("own_memory", None)


def test_the_shipped_model(run):
    done = run("memory")
    assert (done.status, done.err) == (0, "")
    lines = done.out.splitlines()
    assert "features.4.weight   32x16x3x3   4,608  0-1         432" in lines
    assert lines[-1] == "62,896 of 62,896 weights lie in the faulty memory; placement unlimited"
    assert "8 tensors" in done.out
    report = json.loads(run("memory", "--weights", bundled.WEIGHTS, "--placement", "tiled", "--json").out)
    assert report["share"] == {"stored": 62_896, "weights": 62_896, "share": 1.0}
    assert [entry["address"] for entry in report["stored"]] == [0, 432, 5040, 23472, 60336]
    assert report["placement"] == "tiled"
    assert len(report["not_stored"]) == 9


def test_models_without_weights_and_generators(run):
    assert "11,164,352 of 11,164,352 weights" in run("memory", "--model", "ResNet18").out
    assert "112,401 of 112,401 weights" in run("memory", "--model", "ConvS").out


def test_a_share_below_all_is_visible(run):
    stored = 4 * 8 * (32 + 8) + 80
    share = f"{stored:,} of {stored + 64:,} weights (95.5 %) lie in the faulty memory"
    done = run("memory", "--model", "own_memory:half", "--all")
    assert share in done.out
    assert "hidden[0].weight" in done.out
    assert "lstm.bias_ih_l0" in done.out
    some = run("memory", "--model", "own_memory:half", "--select", "lstm.*", "--select", "head.bias").out
    assert ["head.weight", "10x8", "not", "selected"] in [line.split() for line in some.splitlines()]
    energy = run("energy", "--model", "own_memory:half")
    assert energy.status == 0
    assert share in energy.out
    assert "Not counted: 1,280 of these, lstm.weight_hh_l0, lstm.weight_ih_l0" in energy.out
    report = json.loads(run("energy", "--model", "own_memory:half", "--json").out)
    assert report["memory"]["stored"] == stored
    assert report["uncounted"] == {"weights": 1280, "tensors": ["lstm.weight_hh_l0", "lstm.weight_ih_l0"]}


def test_sweep_and_evaluate_say_it_too(run, tmp_path):
    stored = 4 * 8 * (32 + 8) + 80
    share = f"{stored:,} of {stored + 64:,} weights (95.5 %) lie in the faulty memory"
    common = (
        "--model",
        "own_memory:half",
        "--dataset",
        "digits",
        "--images",
        20,
        "--chips",
        2,
        "--device",
        "cpu",
    )
    told = {"stored": stored, "weights": stored + 64, "share": stored / (stored + 64)}
    done = run("evaluate", *common, "--bit-error-rate", 0.02)
    assert (done.status, share in done.out) == (0, True)
    assert json.loads(run("evaluate", *common, "--bit-error-rate", 0.02, "--json").out)["memory"] == told
    done = run("sweep-voltage", *common, "--voltages", "0.83", "--out", tmp_path / "run")
    assert (done.status, share in done.out) == (0, True)
    assert "saving does not count: lstm.weight_hh_l0, lstm.weight_ih_l0" in done.out
    assert json.loads((tmp_path / "run" / "sweep.json").read_text())["memory"] == told
    head = run("evaluate", *common, "--bit-error-rate", 0.02, "--select", "head.*", "--json")
    assert json.loads(head.out)["memory"]["stored"] == 90


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--model", "own_memory:lazy"), "has no shape yet: run the model once"),
        (("--model", "own_memory:odd"), "1.weight is torch.complex64"),
        (("--model", "Nothing"), "unknown network 'Nothing'"),
        (("--select", "nothing.*"), "no tensor of the model is called 'nothing.*'"),
        (("--model", "own_memory:none"), "has no 'none'"),
    ],
)
def test_mistakes_are_one_line(run, words, complaint):
    done = run("memory", *words)
    assert done.status == 2
    assert complaint in done.err
    assert done.err.count("\n") == 1
