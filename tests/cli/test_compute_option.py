"""--compute bfloat16: do commands compute so, say so in every output, and keep the results apart from others?"""

import csv
import json
from pathlib import Path

import pytest

from faultsim import evaluate, evaluation_chips, load_subject
from faultsim.cli import main

FEW = ("--images", 64, "--chips", 2)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]):
    """run(words) -> exit status, stdout, stderr."""

    def call(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        return ended.value.code or 0, *capsys.readouterr()

    return call


def test_evaluate_computes_in_bfloat16_and_says_so(run):
    """The mean cross entropy tells one arithmetic from the other; it is that of the Python function."""
    words = (
        "evaluate",
        *FEW,
        "--bit-error-rate",
        0.02,
        "--metric",
        "cross_entropy",
        "--json",
        "--device",
        "cpu",
    )
    status, out, err = run(*words, "--compute", "bfloat16")
    assert status == 0, err
    found, usual = json.loads(out), json.loads(run(*words)[1])
    assert found["configuration"]["compute"] == "bfloat16"
    assert "compute" not in usual["configuration"]
    subject = load_subject("DigitsNet", images=64)
    for printed, compute in ((found, "bfloat16"), (usual, "float32")):
        expected = evaluate(
            subject.model,
            subject.data,
            evaluation_chips(0, 2),
            bit_error_rate=0.02,
            metric="cross_entropy",
            stored=subject.stored,
            compute=compute,
        )
        assert printed["values"][1]["chips"] == pytest.approx(expected.values, rel=1e-6)
    assert found["values"][1]["chips"] != usual["values"][1]["chips"]
    assert found["values"][1]["chips"] == pytest.approx(usual["values"][1]["chips"], rel=0.1)


def test_a_sweep_says_it_in_every_file_and_is_kept_apart(run, tmp_path: Path):
    words = ("sweep-voltage", *FEW, "--model", "DigitsNet", "--voltages", "0.83", "--out", tmp_path)
    status, out, err = run(*words, "--compute", "bfloat16")
    assert status == 0, err
    assert "computed in bfloat16" in " ".join(out.split())
    for name in ("results.csv", "summary.csv"):
        rows = list(csv.DictReader((tmp_path / name).read_text().splitlines()))
        assert rows
        assert all(row["compute"] == "bfloat16" for row in rows)
    before = (tmp_path / "results.csv").read_bytes()
    status, _, err = run(*words)
    assert status == 2
    assert "compute" in err
    assert run(*words, "--compute", "bfloat16")[0] == 0
    assert (tmp_path / "results.csv").read_bytes() == before


def test_other_arithmetic_is_refused_in_one_line(run):
    status, _, err = run("evaluate", *FEW, "--bit-error-rate", 0.02, "--compute", "int4")
    assert status == 2
    assert err.strip() == "faultsim: error: a model cannot compute in 'int4': it can be float32 or bfloat16"
