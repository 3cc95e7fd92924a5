"""`faultsim energy` and `faultsim reproduce`: what people see, scripts read, and a mistake gets."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from faultsim.cli import main
from neuralfuse import published


class Outcome(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """Runs a command on a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")

    def command(*arguments: object) -> Outcome:
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        return Outcome(end.value.code or 0, *capsys.readouterr())

    return command


def numbers(text: str, word: str) -> list[str]:
    """The words after `word` of the line that begins with it."""
    return next(line.split()[1:] for line in text.splitlines() if line.split()[:1] == [word])


def test_the_paper_on_one_screen(run: Callable[..., Outcome]) -> None:
    status, out, err = run("energy", "--model", "VGG11", "--generator", "ConvL", "--voltage", 0.83)
    assert (status, err) == (0, "")
    assert max(len(line) for line in out.splitlines()) <= 80
    assert "VGG11: 1,334,656 weight memory accesses per inference (8 weights each)" in out
    assert "ConvL: 320,256 weight memory accesses" in out
    at = "At voltage 0.83 of curve '14nm': bit error rate 1 %, energy per access 0.694 of that at Vmin"
    assert at in " ".join(out.split())
    assert "Saved weight-memory energy: 30.60 %, with ConvL 6.60 %" in out
    assert "ConvL pays below voltage 0.869" in out
    assert numbers(out, "classifier")[:5] == ["1", "512", "10", "5,120", "512"]


def test_both_engines_agree(run: Callable[..., Outcome]) -> None:
    for flow in ("os", "ws", "is"):
        status, out, _ = run(
            *("energy", "--model", "DigitsNet", "--engine", "both", "--array", "8x16", "--dataflow", flow)
        )
        assert status == 0
        assert "Closed form and SCALE-Sim agree in every number of 5 layers." in out


def test_a_difference_is_shown_and_fails(
    run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    from energy import closed_form

    honest = closed_form.count_layer
    monkeypatch.setattr(
        closed_form, "count_layer", lambda layer, accelerator: honest(layer, accelerator).times(2)
    )
    status, out, _ = run("energy", "--model", "DigitsNet", "--engine", "both")
    assert status == 1
    assert "differ: layer features.0, quantity filter_reads, closed-form 27648, scalesim 13824" in " ".join(
        out.split()
    )
    assert "The engines differ in" in out


def test_json_holds_every_number(run: Callable[..., Outcome]) -> None:
    status, out, err = run(
        *(
            "energy",
            "--model",
            "ResNet18",
            "--generator",
            "UNetS",
            "--voltage",
            0.83,
            "--engine",
            "both",
            "--json",
        )
    )
    report = json.loads(out)
    assert (status, err) == (0, "")
    assert report["weight_memory_accesses"] == 2_755_968
    assert report["generator_counts"]["weight_memory_accesses"] == 45_711
    assert report["differences"] == []
    assert report["saving_with_generator"] == pytest.approx(0.2894, abs=5e-5)
    assert report["accelerator"] | {"rows": 32, "dataflow": "os", "word_bits": 64} == report["accelerator"]
    assert len(report["layers"]) == 21
    assert sum(layer["filter_reads"] for layer in report["layers"]) == report["total"]["filter_reads"]


def test_topology_out_and_in(run: Callable[..., Outcome], tmp_path: Path) -> None:
    path = tmp_path / "network.csv"
    _, first, _ = run("energy", "--model", "VGG11", "--write-topology", path)
    status, second, _ = run("energy", "--topology", path, "--voltage", 0.9)
    assert status == 0
    assert numbers(first, "total") == numbers(second, "total")
    assert "1,334,656 weight memory accesses" in second


def test_own_model_and_exact_counting(
    run: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_energy_net.py").write_text(
        "from torch import nn\ndef net(): return nn.Conv2d(4, 16, 1, stride=2)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    own = ("energy", "--model", "own_energy_net:net", "--input-shape", "4x16x16")
    assert numbers(run(*own).out, "Conv2d")[0] == "81"
    assert numbers(run(*own, "--counting", "exact").out, "Conv2d")[0] == "64"


def test_generator_that_never_pays(run: Callable[..., Outcome]) -> None:
    status, out, _ = run("energy", "--model", "DigitsNet", "--generator", "ConvL")
    assert status == 0
    assert "ConvL takes more than any voltage of the curve saves" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("energy", "give either --model NAME or --topology FILE"),
        ("energy --model VGG11 --topology x.csv", "give either --model NAME or --topology FILE"),
        ("energy --model LeNet", "unknown network 'LeNet': it can be ResNet18, "),
        ("energy --model VGG11 --generator VGG16", "unknown network 'VGG16': it can be ConvL, "),
        ("energy --model surely_not_there:net", "importing 'surely_not_there' failed"),
        ("energy --model torch.nn:LSTM", "calling LSTM() failed"),
        ("energy --model torch.nn:Identity --voltage 0.9", "there are no weights to store in memory"),
        ("energy --topology nowhere.csv", "topology nowhere.csv can't be read (No such file"),
        (
            "energy --model VGG11 --engine fast",
            "unknown engine 'fast': it can be closed-form, scalesim or both",
        ),
        ("energy --model VGG11 --array big", "'big' is no array size; write ROWSxCOLUMNS"),
        ("energy --model VGG11 --array 0x4", "rows of an accelerator has to be a positive integer, not 0"),
        ("energy --model VGG11 --dataflow rs", "unknown dataflow 'rs': it can be os"),
        ("energy --model VGG11 --voltage 9", "voltage 9.0 is outside the curve"),
        ("energy --model VGG11 --voltage nan", "voltage nan is outside the curve"),
        ("energy --model VGG11 --curve nowhere.csv", "voltage curve nowhere.csv"),
        ("energy --model VGG11 --counting real", "unknown counting 'real': it can be paper or exact"),
        ("energy --model VGG11 --input-shape 3x0x4", "'3x0x4' is not an input shape"),
        ("energy --model VGG11 --input-shape 3x16x16", "VGG can't be traced"),
        ("energy --model VGG11 --write-topology nowhere/x.csv", "topology nowhere/x.csv can't be written"),
        ("reproduce table99", "unknown table or figure 'table99': it can be table1, table2, table5, table6"),
    ],
)
def test_mistakes_get_one_line(
    run: Callable[..., Outcome], arguments: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = run(*arguments.split())
    assert (status, out) == (2, "")
    assert err.startswith("faultsim: error: ")
    assert len(err.splitlines()) == 1
    assert message in err


def test_reproduce_fits_and_agrees(run: Callable[..., Outcome]) -> None:
    status, out, _ = run("reproduce", "table8")
    assert status == 0
    assert max(len(line) for line in out.splitlines()) <= 80
    assert "…" not in out
    assert "22 of 22 values agree" in out
    report = json.loads(run("reproduce", "table8", "--json").out)
    assert report["agrees"] is True
    assert {row["published"] for row in report["rows"]} >= {11_173_962, 153_500_000}


def test_reproduce_fails_when_a_value_is_off(
    run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = published.read_table("model_costs")[-1:]
    rows[0]["parameters"] = "121196"
    monkeypatch.setattr(published, "read_table", lambda name: rows)
    status, out, _ = run("reproduce", "table8")
    assert status == 1
    assert numbers(out, "UNetS") == ["parameters", "121,195", "121,196", "-1", "NO"]
    assert "1 of 2 values agree" in " ".join(out.split())


def test_as_a_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "faultsim", "energy", "--model", "ConvS", "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["weight_memory_accesses"] == 41_508
