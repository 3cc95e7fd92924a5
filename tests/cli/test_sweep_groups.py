"""`faultsim sweep-voltage` with many chips: groups of them are told and kept, and what was kept is taken up again."""

import csv
import signal
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from faultsim import FaultModel, StoredWeights, VoltageCurve, evaluation_chips
from faultsim import evaluation as evaluation_module
from faultsim.cli import main
from faultsim.io.run_directory import RunDirectory
from faultsim.metrics.metric import ACCURACY, METRICS
from faultsim.studies import sweep_directory
from faultsim.studies.conditions import COLUMNS
from faultsim.studies.sweep_result import OPTIONAL, Variant, list_columns
from faultsim.studies.voltage_sweep import plan_points, sweep

RATES = [0, 0.05]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """run(folder, metric) -> results of 11 chips, one a group, each kept at once."""
    monkeypatch.setattr(evaluation_module, "QUICK_SECONDS", 0.0)
    monkeypatch.setattr(sweep_directory, "KEEP_SECONDS", 0.0)
    monkeypatch.setattr(sweep_directory, "KEEP_SHARE", 0.0)
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    x = torch.randn(20, 4)
    data, chips = [(x, model(x).argmax(1))], evaluation_chips(0, 11)

    def call(name: str, metric: str = "accuracy", transform: bool = False, **more):
        variants = [Variant(), Variant("shifted", nn.Identity(), 1)] if transform else [Variant()]
        columns = list_columns(METRICS[metric])
        with RunDirectory(
            tmp_path / name, "sweep", {"metric": metric}, columns, optional=OPTIONAL
        ) as directory:
            directory.begin({})
            return sweep(
                model,
                data,
                chips,
                plan_points(VoltageCurve.default(), None, RATES),
                faults=FaultModel(),
                stored=StoredWeights.of(model),
                variants=variants,
                metric=metric,
                directory=directory,
                **more,
            )

    return call


class Stopped(Exception):
    pass


@pytest.mark.parametrize("metric", ["accuracy", "cross_entropy"])
@pytest.mark.parametrize("transform", [False, True])
def test_stopped_after_every_group_it_ends_in_the_same_bytes(run, tmp_path, monkeypatch, metric, transform):
    whole = run("whole", metric, transform)
    expected = (tmp_path / "whole" / "results.csv").read_bytes()
    lengths = []

    def stop(result) -> None:
        raise Stopped

    for _ in range(100):
        try:
            results = run("parts", metric, transform, progress=stop)
        except Stopped:
            kept = (tmp_path / "parts" / "results.csv").read_bytes()
            assert expected.startswith(kept)
            lengths.append(kept.count(b"\n") - 1)
        else:
            break
    assert (tmp_path / "parts" / "results.csv").read_bytes() == expected
    assert results == whole
    assert lengths == sorted(set(lengths)), "each start did something"
    # one chip a group; or eight, where a transform runs once for all of them
    assert lengths[:3] == [1, 2, 3]
    assert set(lengths) >= ({11, 12} if not transform else {11, 19, 22, 23})
    # a directory that was kept in one piece is taken up too, and the other way round
    assert run("whole", metric, transform) == whole


def test_rows_are_not_written_again_and_again(run, tmp_path, monkeypatch):
    """The file is replaced once a second at most, and at the end of each operating point."""
    monkeypatch.setattr(sweep_directory, "KEEP_SECONDS", 3600.0)
    written = []
    add = RunDirectory.add
    monkeypatch.setattr(RunDirectory, "add", lambda self, rows: (written.append(len(rows)), add(self, rows)))
    told = []
    run("run", progress=lambda result: told.append(result.evaluation.chips))
    assert written == [11, 11]
    assert told == [*range(1, 12)] * 2


def test_rows_of_half_a_point_that_were_changed_are_refused(run, tmp_path):
    with pytest.raises(Stopped):
        run("run", progress=_after(5))
    file = tmp_path / "run" / "results.csv"
    assert file.read_text().count("\n") == 6
    good = file.read_text()
    for old, new in (
        (",20,1.0", ",20,0.9"),
        (",20,1.0", ",21,1.0"),
        ("unprotected,1.0,0,3", "unprotected,1.0,0,4"),
    ):
        assert old in good
        file.write_text(good.replace(old, new, 1))
        with pytest.raises(ValueError, match="is not what this sweep wrote there"):
            run("run")
    file.write_text(good)
    run("run")


def _after(count: int):
    def stop(result) -> None:
        if result.evaluation.chips == count:
            raise Stopped

    return stop


MANY = ["--voltages", "0.83", "--images", "60", "--chips", "50000", "--device", "cpu"]


def test_very_many_chips_are_told_kept_and_interrupted(tmp_path, start, finish):
    """Silent for minutes, once; and Ctrl-C said that something was kept."""
    process = start(*MANY, "--out", tmp_path / "run")
    line = process.stderr.readline()  # comes within seconds, or the test's time limit ends this
    assert line.startswith("[1/2] V = 0.83, unprotected: ")
    assert " of 50,000 chips, " in line
    assert line.endswith(" s left\n")
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    code, _, err = finish(process)
    assert (code, err.splitlines()[-1]) == (130, "faultsim: interrupted; finished results are in --out")
    with (tmp_path / "run" / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert 0 < len(rows) < 50_000
    assert tuple(rows[0]) == (*list_columns(ACCURACY), *COLUMNS)
    assert [row["chip"] for row in rows] == [str(chip) for chip in range(len(rows))]


def test_without_a_directory_nothing_is_kept_and_nothing_else_is_said(start, finish):
    process = start(*MANY)
    assert " of 50,000 chips, " in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    code, out, err = finish(process)
    assert (code, out) == (130, "")
    assert err.splitlines()[-1] == "faultsim: interrupted; nothing was written"


def test_an_interrupt_that_a_library_swallows_is_one_all_the_same(tmp_path, monkeypatch, capfd):
    """As torch does when Ctrl-C comes while it imports NumPy: what fails afterwards is no error of the user's."""
    (tmp_path / "swallows_interrupts.py").write_text(
        "import os, signal\n"
        "def images():\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        while True:\n"
        "            pass\n"
        "    except KeyboardInterrupt:\n"
        "        raise RecursionError('half imported') from None\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit) as ended:
            main(["evaluate", "--data", "swallows_interrupts:images", "--bit-error-rate", "0.01"])
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended.value.code == 130
    assert capfd.readouterr().err == "faultsim: interrupted; nothing was written\n"
