"""--fault-sites and the input memory's options, in sweep-voltage and evaluate."""

import csv
import json
from pathlib import Path

import pytest

from faultsim import ActivationMemory, evaluate, evaluation_chips
from faultsim.cli import main
from faultsim.studies.subject import load_subject


def run(*words: str) -> int:
    """The exit status of a command."""
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    return ended.value.code or 0


FEW = ["--images", "60", "--chips", "2"]


def test_evaluate_measures_what_python_measures(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--fault-sites", "activations", "--activation-bits", "4", "--input-sram", "64KiB"]
    assert not run("evaluate", *FEW, "--voltage", "0.84", *options, "--input-voltage", "0.8", "--json")
    report = json.loads(capsys.readouterr().out)
    memory = report["configuration"]["activations"]
    assert report["configuration"]["fault_sites"] == "activations"
    assert (memory["format"], memory["voltage"]) == ("int4", 0.8)
    assert memory["faults"]["memory"]["capacity_bytes"] == 64 * 1024
    assert (
        list(memory["ranges"]["sites"]) == ["conv1", "conv2", "conv3", "fc1", "fc2"]
        or memory["ranges"]["sites"]
    )
    subject = load_subject(images=60)
    same = ActivationMemory(subject.calibrate(), "int4", voltage=0.8)
    chips = evaluation_chips(0, 2)
    found = evaluate(
        subject.model, subject.data, chips, voltage=0.84, stored=subject.stored,
        sites="activations", activations=same,
    )  # fmt: skip
    perturbed = next(row for row in report["accuracy"] if row["name"] == "P.A.")
    clean = next(row for row in report["accuracy"] if row["name"] == "C.A.")
    assert tuple(perturbed["chips"]) == found.accuracies
    assert perturbed["mean"] < clean["mean"]


def test_sweeps_keep_and_resume_what_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "sweep"
    command = ["sweep-voltage", *FEW, "--voltages", "0.8", "--out", str(out)]
    assert not run(*command, "--fault-sites", "both")
    assert "weights and activations fail (inputs of " in capsys.readouterr().out
    files = {path.name: path.read_bytes() for path in out.iterdir() if path.suffix == ".csv"}
    rows = list(csv.DictReader(files["results.csv"].decode().splitlines()))
    assert {row["fault_sites"] for row in rows} == {"both"}
    assert not run(*command, "--fault-sites", "both")
    assert files == {path.name: path.read_bytes() for path in out.iterdir() if path.suffix == ".csv"}
    assert run(*command, "--fault-sites", "activations") == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--fault-sites", "cells"], "unknown fault sites 'cells': they can be weights, activations, both"),
        (["--input-voltage", "0.8"], "--input-voltage needs --fault-sites activations or both"),
        (["--input-sram", "1MiB"], "--input-sram needs --fault-sites activations or both"),
        (
            ["--fault-sites", "both", "--input-sram", "3B"],
            "it must be a size like 256KiB or 1MiB, or unlimited",
        ),
        (["--fault-sites", "both", "--input-sram", "2KiB"], "capacity must be a multiple of 4096"),
        (["--fault-sites", "both", "--activation-bits", "9"], "--activation-bits"),
        (["--fault-sites", "both", "--input-voltage", "0.1"], "0.1"),
    ],
)
def test_what_does_not_fit_is_one_line(
    options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("evaluate", "--images", "20", "--chips", "1", "--bit-error-rate", "1%", *options) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert words in said[0]
