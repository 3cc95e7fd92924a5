"""`faultsim reproduce` and `transfer` as commands: everything on a few digits, budgets, figures, status."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import neuralfuse.paper.actions
import neuralfuse.paper.budget
from faultsim.cli import main
from faultsim.data import digits
from faultsim.evaluation import evaluate
from faultsim.faults import FaultModel, evaluation_chips
from faultsim.training.loop import Pace
from neuralfuse.paper import figures
from neuralfuse.paper.cells import NAMES
from neuralfuse.paper.result import read, read_results

TINY = ["--smoke", "--device", "cpu", "--base-epochs", "2", "--epochs", "1", "--n-models", "1"]
IMAGES, CHIPS = 8, 2


@pytest.fixture
def run(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Callable[..., SimpleNamespace]:
    """`faultsim` on a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")

    def command(*arguments: object) -> SimpleNamespace:
        with pytest.raises(SystemExit) as end:
            main([*map(str, arguments)])
        out, err = capsys.readouterr()
        return SimpleNamespace(status=end.value.code or 0, out=out, err=err)

    return command


@pytest.fixture
def few_digits(monkeypatch: pytest.MonkeyPatch, threads: Callable[[int], None]) -> None:
    """16 digits to train on, IMAGES to test on and CHIPS chips, and arithmetic that is the same every time."""
    threads(1)
    few = {
        split: digits.load_digits(split).subset(torch.arange(count))
        for split, count in (("train", 16), ("test", IMAGES))
    }
    monkeypatch.setattr(digits, "load_digits", few.__getitem__)
    monkeypatch.setattr(neuralfuse.paper.actions, "CHIPS", CHIPS)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.timeout(900)  # a minute of processor time, on a machine that may be busy
def test_everything_on_a_few_digits(run: Callable, few_digits: None, tmp_path: Path):
    """Every path that `all` takes; the tables and figures share what they need, and nothing is done twice."""
    directory = tmp_path / "run"
    end = run("reproduce", "all", *TINY, "--out", directory)
    assert end.status == 0, end.err
    for name in NAMES:
        (row,) = [line.split() for line in end.out.splitlines() if line.split()[:2] == [name, "iid_flips"]]
        there, of = row[3].split("/")
        assert there == of, f"{name}: {row}"
    for name, values in (("figure2", 3), ("table6", 22), ("table7", 60), ("table8", 22)):
        assert f"{name}: {values} of {values} values agree" in end.out
    for figure in (
        "figure2",
        "figure3-iid_flips",
        "figure3-neuralfuse_2022",
        "figure4",
        "figure5",
        "figure6",
    ):
        assert (directory / f"{figure}.png").read_bytes().startswith(b"\x89PNG")
        assert table(directory / f"{figure}.csv")

    by_cell = {result.cell: result for result in read_results(directory)}
    drawn = table(directory / "figure5.csv")
    assert {row["faults"] for row in drawn} == {"neuralfuse_2022", "iid_flips"}
    for row in drawn:
        (result,) = (
            result
            for cell, result in by_cell.items()
            if not cell.transferred
            and (cell.base, cell.faults, cell.generator.name)
            == ("DigitsNet", row["faults"], row["generator"])
            and cell.bit_error_rate == 0.01
            and (cell.generator.n_models, cell.generator.flips) == (None, None)
        )
        assert float(row["perturbed_fused"]) == result.mean("perturbed_fused")

    figure = run("reproduce", "figure5", *TINY, "--out", directory, "--json")
    assert len(json.loads(figure.out)["rows"]) == len(drawn), "JSON, and nothing else"
    assert "written: " in figure.err
    again = run("reproduce", "table16", *TINY, "--out", directory)
    assert "0 are missing" in again.err
    assert "DigitsNet ConvS K=100" in again.out
    status = json.loads(run("reproduce", "--status", "--out", directory, "--json").out)
    assert {row["name"] for row in status} == set(NAMES)


def test_outputs_are_the_model_s_logits_and_what_tsne_sees(
    run: Callable, few_digits: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    seen = []
    embed_tsne = figures.embed_tsne
    monkeypatch.setattr(figures, "embed_tsne", lambda logits: seen.append(logits) or embed_tsne(logits))
    end = run("reproduce", "figure3", *TINY, "--faults", "iid_flips", "--out", tmp_path)
    assert end.status == 0, end.err
    (file,) = tmp_path.glob("outputs-*.npz")
    outputs = figures.read_outputs(file)
    shown = [outputs[name] for name in figures.OUTPUTS]
    assert len(seen) == 4
    for ours, theirs in zip(seen, shown, strict=True):
        np.testing.assert_array_equal(ours, theirs)

    # the same model, chip and generator through evaluate(): as many right answers
    (found,) = read_results(tmp_path)
    base = next(tmp_path.glob("base-*.safetensors"))
    from faultsim.studies.subject import load_subject

    subject = load_subject(None, base, None, None, torch.device("cpu"))
    right = int((outputs["perturbed"].argmax(1) == outputs["labels"]).sum())
    chips = evaluation_chips(0, 1)
    once = evaluate(
        subject.model,
        subject.data,
        chips,
        bit_error_rate=0.01,
        faults=FaultModel.preset("iid_flips"),
        stored=subject.stored,
    )
    assert right == once.correct[0] == found.correct["perturbed"][0]
    assert found.correct["clean_fused"][0] == (outputs["clean_fused"].argmax(1) == outputs["labels"]).sum()
    assert len(table(tmp_path / "figure3-iid_flips.csv")) == 4 * IMAGES


def test_damaged_outputs_are_refused(run: Callable, few_digits: None, tmp_path: Path):
    options = ("figure3", *TINY, "--faults", "iid_flips", "--out", tmp_path)
    assert run("reproduce", *options).status == 0
    (file,) = tmp_path.glob("outputs-*.npz")
    file.write_bytes(file.read_bytes()[:-100])
    end = run("reproduce", *options)
    assert end.status == 2
    assert end.err.splitlines()[-1].startswith(f"faultsim: error: {file} holds no outputs")


def test_a_generator_in_front_of_another_model(run: Callable, few_digits: None, tmp_path: Path):
    """Trained for DigitsNet, measured with VGG11: nothing of VGG11 is needed but its answers."""
    options = [
        "--dataset",
        "digits",
        "--source",
        "DigitsNet",
        "--target",
        "DigitsNet,VGG11",
        "--generator",
        "ConvS",
    ]
    options += [
        "--train-bit-error-rate",
        "0.02",
        "--test-bit-error-rate",
        "0.02,0.01",
        "--faults",
        "iid_flips",
    ]
    how = ["--recipe", "modern", "--base-epochs", "2", "--epochs", "1", "--n-models", "1", "--device", "cpu"]
    end = run("transfer", *options, *how, "--out", tmp_path)
    assert end.status == 0, end.err
    assert len(list(tmp_path.glob("generator-*-0.02.safetensors"))) == 1
    assert "digits, trained for DigitsNet at 2 %" in end.out
    assert "4 of 4 results are there" in end.out
    assert max(map(len, end.out.splitlines())) <= 80
    stem = "result-ConvS-VGG11-digits-modern-iid_flips-0.01-from-DigitsNet-0.02.json"
    result = read(tmp_path / stem)
    assert (result.cell.base, result.cell.generator.source) == ("VGG11", "DigitsNet")
    unprotected = read(tmp_path / "unprotected-VGG11-digits-modern-iid_flips-0.01.json")
    assert result.correct["perturbed"] == unprotected.correct["perturbed"]
    rows = json.loads(run("transfer", *options, "--show", "--out", tmp_path, "--json").out)["rows"]
    assert [len(row["results"]) for row in rows] == [1, 1, 1, 1]


def test_budgets_add_up(run: Callable, few_digits: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """On a device that is said to be very slow nothing fits, so that budgets go to trainings. Each lasts for one step
    here; the next one goes on, and in the end nothing differs from a run without a budget."""
    options = ("table1", *TINY, "--epochs", "2", "--generator", "ConvS", "--faults", "iid_flips")
    assert run("reproduce", *options, "--out", tmp_path / "whole").status == 0
    said = []
    with monkeypatch.context() as slow:
        slow.setattr(neuralfuse.paper.budget, "measure_speed", lambda *_: 1.0)
        slow.setattr(Pace, "within", lambda seconds: Pace(deadline=0.0))
        for _ in range(20):
            end = run("reproduce", *options, "--out", tmp_path / "short", "--budget", "10m")
            assert end.status == 0
            said.append(end.err)
            if "1 of 1 results are there" in end.out:
                break
    used_up = [text for text in said if "the time is up after epoch 1 of 2: the same command goes on" in text]
    assert ["] train ConvS" in text for text in used_up] == [False, True], (
        "of the base model, then of the generator"
    )
    (name,) = (path.name for path in (tmp_path / "whole").glob("result-*.json"))
    ours, theirs = (read(tmp_path / directory / name) for directory in ("short", "whole"))
    assert (ours.correct, ours.configuration) == (theirs.correct, theirs.configuration)


def test_the_curve_is_figure_2(run: Callable, tmp_path: Path):
    end = run("reproduce", "figure2", "--out", tmp_path)
    assert end.status == 0
    assert "3 of 3 values agree" in end.out
    rows = {row["voltage"]: row for row in table(tmp_path / "figure2.csv")}
    assert float(rows["0.83"]["bit_error_rate"]) == pytest.approx(0.01)
    assert float(rows["1.0"]["energy_per_access"]) == 1.0
    assert (tmp_path / "figure2.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--source VGG11 --target VGG12 --generator ConvL --show", "unknown base model 'VGG12'"),
        ("--source VGG11 --target VGG11", "add --out RUN_DIR, or --show"),
        (
            "--source VGG11 --target VGG11 --generator ConvL --show --epochs 3",
            "--epochs cannot be combined with --show",
        ),
        (
            "--source VGG11 --target VGG11 --generator ConvL --show --out nowhere",
            "nowhere is no run directory",
        ),
        (
            "--source VGG11 --target VGG11 --generator ConvL --show --test-bit-error-rate 3",
            "bit error rate 3 must",
        ),
        ("--target VGG11 --generator ConvL --show", "--source"),
    ],
)
def test_mistakes_get_one_line(run: Callable, arguments: str, message: str):
    end = run("transfer", *arguments.split())
    assert (end.status, end.out) == (2, "")
    (line,) = end.err.splitlines()
    assert line.startswith("faultsim: error: ")
    assert message in line
