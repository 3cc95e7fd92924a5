"""A sweep that stops when it is precise enough: which chips it takes, what it keeps, and what it says."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from faultsim import Chip, FaultModel, MeasuredChip, StoredWeights, VoltageCurve, evaluation_chips
from faultsim import evaluation as evaluation_module
from faultsim.chips.chip_map import map_chip
from faultsim.cli import main
from faultsim.errors import FaultsimError
from faultsim.io.run_directory import RunDirectory, format_csv
from faultsim.metrics.metric import METRICS
from faultsim.studies import sweep_directory
from faultsim.studies.precision import LEAST_CHIPS, compute_half_widths
from faultsim.studies.stopping import plan_looks
from faultsim.studies.sweep_result import OPTIONAL, Variant, list_columns
from faultsim.studies.voltage_sweep import plan_points, sweep

RATES = [0, 0.01, 0.05]


class Stopped(Exception):
    pass


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """run(folder, **options) -> the sweep of a small model with two variants; every group of chips is kept at once."""
    monkeypatch.setattr(evaluation_module, "QUICK_SECONDS", 0.0)
    monkeypatch.setattr(sweep_directory, "KEEP_SECONDS", 0.0)
    monkeypatch.setattr(sweep_directory, "KEEP_SHARE", 0.0)
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    x = torch.randn(20, 4)
    data = [(x, model(x).argmax(1))]

    def call(name: str | None, metric: str = "accuracy", chips: int = 400, **more):
        settings = {
            "faults": FaultModel(),
            "stored": StoredWeights.of(model),
            "variants": [Variant(), Variant("scaled", _Scaled(), 1)],
            "metric": metric,
            **more,
        }
        points = plan_points(VoltageCurve.default(), None, RATES)
        if name is None:
            return sweep(model, data, evaluation_chips(0, chips), points, **settings)
        columns = list_columns(METRICS[metric])
        with RunDirectory(
            tmp_path / name, "sweep", {"metric": metric}, columns, optional=OPTIONAL
        ) as directory:
            directory.begin({})
            return sweep(model, data, evaluation_chips(0, chips), points, directory=directory, **settings)

    return call


class _Scaled(nn.Module):
    """In the place of a generator."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.tensor([1.0, 0.9, 1.1, 1.0])


@pytest.mark.parametrize(("metric", "precision"), [("accuracy", 0.08), ("cross_entropy", 0.02)])
def test_it_stops_at_the_first_look_at_which_all_intervals_are_narrow(run, metric, precision):
    whole, stopped = run(None, metric, chips=200), run(None, metric, chips=200, precision=precision)
    looks, reach = plan_looks(200, precision), 1.0 if metric == "accuracy" else None
    counts = []
    for at in range(0, len(whole), 2):
        alone, fused = (np.array(row.evaluation.values) for row in whole[at : at + 2])
        series = np.stack([alone, fused, fused - alone])
        widths = compute_half_widths(series, precision, reach if whole[at].point.bit_error_rate else 0.0)
        end = next((n for n in looks if (widths[:, n - 1] <= precision).all()), 200)
        for i, row in enumerate(stopped[at : at + 2]):
            assert row.evaluation.values == tuple(series[i, :end])
            assert row.half_width == widths[i, end - 1]
        assert stopped[at + 1].gain_half_width == widths[2, end - 1]
        assert stopped[at].gain_half_width is None
        counts.append(end)
    assert counts[0] == LEAST_CHIPS, "no bit errors, no doubt"
    assert LEAST_CHIPS < counts[2] < 200


@pytest.mark.parametrize("metric", ["accuracy", "cross_entropy"])
def test_stopped_after_every_group_it_ends_in_the_same_bytes(run, tmp_path, metric):
    whole = run("whole", metric, chips=60, precision=0.15)
    expected = (tmp_path / "whole" / "results.csv").read_bytes()
    assert expected.decode() == format_csv(list_columns(METRICS[metric]), whole.chip_rows())

    def stop(row) -> None:
        raise Stopped

    starts = 0
    while True:
        try:
            result = run("parts", metric, chips=60, precision=0.15, progress=stop)
            break
        except Stopped:
            starts += 1
            assert expected.startswith((tmp_path / "parts" / "results.csv").read_bytes())
    assert starts > 10
    assert (tmp_path / "parts" / "results.csv").read_bytes() == expected
    assert result.records == whole.records


def test_rows_that_another_rule_would_have_written_are_refused(run, tmp_path):
    run("run", chips=60, precision=0.15)
    with pytest.raises(FaultsimError, match="is not what this sweep wrote there"):
        run("run", chips=60)
    with pytest.raises(FaultsimError, match="is not what this sweep wrote there"):
        run("run", chips=60, precision=0.3)


def test_most_chips_are_kept_to_and_what_was_not_reached_is_said(run):
    result = run(None, chips=25, precision=0.01)
    assert [row.evaluation.chips for row in result] == [10, 10, 25, 25, 25, 25]
    assert result[4].half_width > 0.01
    low, high = result[4].interval
    assert (low, high) == (
        max(0, result[4].evaluation.mean - result[4].half_width),
        min(1, result[4].evaluation.mean + result[4].half_width),
    )
    assert result.rows()[4]["ci95_low"] == low
    assert "±1 points, valid at each look" in repr(result)
    assert "not reached at 2 of 3 points" in repr(result)
    assert "over 10 to 25 chips" in repr(result)


def test_looks_are_close_and_few():
    looks = plan_looks(10_000, 0.005)
    assert (looks[0], looks[-1]) == (LEAST_CHIPS, 10_000)
    assert all(before < after <= before + max(LEAST_CHIPS, before / 10) for before, after in pairwise(looks))
    assert len(looks) < 70
    assert plan_looks(7, 0.1) == (7,)
    assert plan_looks(500, None) == (500,)


def test_measured_chips_and_too_few_are_refused():
    model = nn.Linear(4, 3)
    data = [(torch.randn(5, 4), torch.zeros(5, dtype=torch.int64))]
    measured = [
        MeasuredChip(map_chip(Chip(i), [0.83], VoltageCurve.default(), 16), str(i)) for i in range(10)
    ]
    with pytest.raises(FaultsimError, match="cannot be combined with measured chips"):
        sweep(model, data, measured, voltages=[0.83], precision=0.1)
    with pytest.raises(FaultsimError, match="at least 10 chips"):
        sweep(model, data, range(9), voltages=[0.83], precision=0.1)
    with pytest.raises(FaultsimError, match="positive half width"):
        sweep(model, data, range(10), voltages=[0.83], precision=0.0)


SMALL = ["sweep-voltage", "--images", "20", "--voltages", "0.82,1.0", "--device", "cpu", "--json"]


def test_command(tmp_path, capsys):
    words = [*SMALL, "--precision", "20", "--max-chips", "40", "--out", str(tmp_path / "run")]
    with pytest.raises(SystemExit):
        main(words)
    found = json.loads(capsys.readouterr().out)
    assert found["configuration"]["precision"] == 0.2
    chips = {row["voltage"]: row["chips"] for row in found["summary"]}
    assert chips[1.0] == LEAST_CHIPS
    assert LEAST_CHIPS <= chips[0.82] <= 40
    for row in found["summary"]:
        assert row["ci95_high"] - row["ci95_low"] <= 0.4 + 1e-12
    files = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.suffix != ".png"}
    with pytest.raises(SystemExit):
        main(words)
    assert {name: (tmp_path / "run" / name).read_bytes() for name in files} == files


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ("--precision 0.5 --chips 20", "--precision cannot be combined with --chips"),
        ("--max-chips 20", "--max-chips needs --precision"),
        ("--precision 0", "not a number above 0"),
        ("--precision nan", "not a number above 0"),
        ("--precision 0.5 --max-chips 9", "at least 10 chips"),
        ("--precision 0.5 --fault-map chip.csv", "--precision cannot be combined with --fault-map"),
    ],
)
def test_bad_input_is_one_line(words, what, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*SMALL, *words.split()])
    told = capsys.readouterr().err
    assert ended.value.code == 2
    assert what in told
    assert len(told.splitlines()) == 1


def test_report_says_what_the_intervals_are(tmp_path, capsys):
    out = str(tmp_path / "run")
    with pytest.raises(SystemExit):
        main([*SMALL[:-1], "--precision", "20", "--max-chips", "40", "--out", out])
    with pytest.raises(SystemExit):
        main(["report", out, "--out", str(tmp_path / "whole.html")])
    page = (tmp_path / "whole.html").read_text(encoding="utf-8")
    assert "a confidence sequence, which ends at the precision asked for" in page
    assert "at most 40" in page
    assert "Student" not in page
    (tmp_path / "run" / "summary.csv").unlink()  # as if the sweep had been stopped
    with pytest.raises(SystemExit):
        main(["report", out, "--out", str(tmp_path / "part.html")])
    assert "95 % interval: " in page
    assert "95 % interval: " not in (tmp_path / "part.html").read_text(encoding="utf-8")
