"""`faultsim sweep-voltage`: its files, and that a killed sweep goes on."""

import csv
import io
import json
import math
import random
import shutil
import signal
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from scipy import stats

from faultsim import VoltageCurve
from faultsim.cli import main
from tests.forked import Forked

IMAGES = 40
OPTIONS = f"--voltages 0.79:0.97:0.02 --images {IMAGES} --chips 8 --seed 5 --device cpu".split()
FILES = ("results.csv", "summary.csv", "sweep.png")
SMALL = ["--images", "40", "--chips", "3", "--device", "cpu"]
WORDS = ("variant", "fault_kind", "placement", "curve")  # the columns without numbers
VARIANTS = ("unprotected", "with ConvXS")
ACCESSES, GENERATOR_ACCESSES = 15_872, 216  # by hand in test_sweep_energy.py and test_shipped_generator.py
LIMIT = 7_000  # bytes: more than sweep.json has, less than results.csv


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def content(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


def wait_for(ready: Callable[[], bool], process: Forked) -> None:
    end = time.monotonic() + 100
    while not ready() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, start, finish) -> Path:
    """The directory of an uninterrupted sweep of the shipped model."""
    folder = tmp_path_factory.mktemp("sweep") / "new" / "run"
    code, out, err = finish(start(*OPTIONS, "--out", folder))
    lines = [
        line for line in err.splitlines() if " of 8 chips, " not in line
    ]  # which a slow machine says besides
    assert (code, len(lines)) == (0, 20), err
    assert lines[0].startswith("[1/20] V = 0.97, unprotected: ")
    assert lines[-1].endswith(" %, 0 s left")
    assert "written to" in out
    assert max(map(len, out.splitlines()[:-1])) <= 80
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy"))


# -- what it writes ------------------------------------------------------------------------------------------------


def test_results_have_a_row_for_each_voltage_variant_and_chip(finished):
    rows = table(finished / "results.csv")
    voltages = [f"{v / 100:.2f}".rstrip("0") for v in range(97, 78, -2)]
    chips = [str(5 * 2**32 + i) for i in range(8)]
    expected = [(v, variant, c) for v in voltages for variant in VARIANTS for c in chips]
    assert [(row["voltage"], row["variant"], row["chip"]) for row in rows] == expected
    curve = VoltageCurve.default()
    for row in rows:
        assert float(row["bit_error_rate"]) == curve.bit_error_rate(float(row["voltage"]))
        assert row["images"] == str(IMAGES)
        assert float(row["accuracy"]) == int(row["correct"]) / IMAGES
    assert len({row["correct"] for row in rows}) > 5
    assert int(rows[0]["correct"]) > 0.9 * IMAGES


def test_summary_follows_from_the_results(finished):
    curve = VoltageCurve.default()
    groups: dict[tuple[str, str], list[float]] = {}
    for row in table(finished / "results.csv"):
        groups.setdefault((row["variant"], row["voltage"]), []).append(int(row["correct"]) / IMAGES)
    summary = table(finished / "summary.csv")
    assert [(row["variant"], row["voltage"]) for row in summary] == list(groups)
    for row in summary:
        accuracies, voltage = groups[row["variant"], row["voltage"]], float(row["voltage"])
        assert (row["chips"], row["images"]) == ("8", str(IMAGES))
        found = {name: float(value) for name, value in row.items() if name not in WORDS}
        assert [row[name] for name in WORDS[1:]] == ["flip", "unlimited", "14nm"]
        assert found["bit_error_rate"] == curve.bit_error_rate(voltage)
        assert found["energy_per_access"] == pytest.approx(voltage ** (math.log(0.694) / math.log(0.83)))
        generator = 0 if row["variant"] == "unprotected" else GENERATOR_ACCESSES / ACCESSES
        assert found["energy_saving"] == pytest.approx(1 - found["energy_per_access"] - generator)
        assert found["mean"] == pytest.approx(statistics.fmean(accuracies))
        assert found["std"] == pytest.approx(statistics.pstdev(accuracies), abs=1e-12)
        assert found["sample_std"] == pytest.approx(statistics.stdev(accuracies), abs=1e-12)
        half = stats.t.ppf(0.975, 7) * statistics.stdev(accuracies) / math.sqrt(8)
        assert found["ci95_low"] == pytest.approx(max(0, found["mean"] - half))
        assert found["ci95_high"] == pytest.approx(min(1, found["mean"] + half))
        assert (found["worst"], found["best"]) == (min(accuracies), max(accuracies))
    at_83 = next(row for row in summary if row["voltage"] == "0.83")
    assert float(at_83["bit_error_rate"]) == 0.01
    assert float(at_83["energy_per_access"]) == pytest.approx(0.694)


def test_configuration_and_picture(finished):
    record = json.loads((finished / "sweep.json").read_text())
    configuration = record["configuration"]
    assert (configuration["model"], configuration["dataset"], configuration["images"]) == (
        "DigitsNet",
        "digits",
        IMAGES,
    )
    assert configuration["faults"]["kind"] == "flip"
    assert configuration["faults"]["memory"]["placement"] == "unlimited"
    assert configuration["faults"]["visible_flips_per_failing_cell"] == 1
    assert configuration["curve"]["name"] == "14nm"
    assert (configuration["seed"], configuration["device"]) == (5, "cpu")
    assert {"faultsim", "torch", "numpy", "python"} <= record["versions"].keys()
    assert {"commit", "device", "date"} <= record.keys()
    assert (finished / "sweep.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert sorted(entry.name for entry in finished.iterdir()) == [".lock", *sorted([*FILES, "sweep.json"])]


def test_two_sweeps_with_one_seed_are_byte_identical_and_json_says_the_same(
    finished, tmp_path, start, finish
):
    code, out, _ = finish(start(*OPTIONS, "--json", "--out", "here", cwd=tmp_path))
    assert code == 0
    assert content(tmp_path / "here") == content(finished)
    report = json.loads(out)
    assert report["configuration"] == json.loads((finished / "sweep.json").read_text())["configuration"]
    written = table(finished / "summary.csv")
    assert [{n: "" if v is None else str(v) for n, v in row.items()} for row in report["summary"]] == written


def test_energy_is_left_out_below_the_curve_and_spread_for_one_chip(sweep, tmp_path):
    report = sweep("--bit-error-rates", "0.9,0,0.01", "--images", 20, "--chips", 1, "--out", tmp_path)
    clean, low, beyond = report["summary"][::2]
    assert (clean["voltage"], clean["energy_saving"]) == (1.0, 0.0)
    assert low["voltage"] == 0.83
    assert [beyond[name] for name in ("voltage", "energy_per_access", "energy_saving")] == [None] * 3
    assert [low[name] for name in ("sample_std", "ci95_low", "ci95_high")] == [None] * 3
    assert [row["sample_std"] for row in table(tmp_path / "summary.csv")] == [""] * 6
    again = sweep("--bit-error-rates", "0.9,0,0.01", "--images", 20, "--chips", 1, "--out", tmp_path)
    assert again["summary"] == report["summary"]


# -- killed, and started again ---------------------------------------------------------------------------------------


def test_killed_at_random_points_and_continued(finished, tmp_path, start, finish):
    folder, delays = tmp_path / "run", random.Random(1)
    lines = []
    for _ in range(3):
        before = (folder / "results.csv").stat().st_size if (folder / "results.csv").exists() else 0
        process = start(*OPTIONS, "--out", folder)
        wait_for(
            lambda before=before: (
                (folder / "results.csv").exists() and (folder / "results.csv").stat().st_size > before
            ),
            process,
        )
        time.sleep(delays.uniform(0, 0.7))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kept = (folder / "results.csv").read_text()
        lines.append(kept.count("\n"))
        assert (finished / "results.csv").read_text().startswith(kept)
        assert kept.endswith("\n")
    assert 1 < lines[0] < 161, "the first kill came too late to show anything"
    code, _, err = finish(start(*OPTIONS, "--out", folder))
    assert code == 0, err
    assert content(folder) == content(finished)
    assert sorted(e.name for e in folder.iterdir()) == sorted(e.name for e in finished.iterdir())


STEPS = '''
"""Ends itself at the k-th step of writing files, for every k; then goes on and prints what came out."""
import os, sys, tempfile
from pathlib import Path
import torch
from torch import nn
from faultsim import FaultModel, StoredWeights, VoltageCurve, evaluation_chips
from faultsim.io.run_directory import RunDirectory
from faultsim.metrics.metric import ACCURACY
from faultsim.studies.sweep_result import list_columns
from faultsim.studies.voltage_sweep import plan_points, sweep

torch.set_num_threads(1)
torch.manual_seed(0)
model = nn.Linear(4, 3)
data = [(torch.randn(20, 4), torch.randint(0, 3, (20,)))]
chips, curve = evaluation_chips(0, 3), VoltageCurve.default()
run = dict(faults=FaultModel(), stored=StoredWeights.of(model))

def go(folder, last=0):
    left = [last]
    def step(call):
        def counted(*a, **k):
            left[0] -= 1
            if left[0] == 0:
                os._exit(9)
            return call(*a, **k)
        return counted
    if last:
        tempfile.mkstemp, os.fsync, Path.replace = map(step, (tempfile.mkstemp, os.fsync, Path.replace))
        Path.write_text, Path.chmod = map(step, (Path.write_text, Path.chmod))
    with RunDirectory(folder, "sweep", {"a": 1}, list_columns(ACCURACY)) as directory:
        directory.begin({"b": 2})
        sweep(model, data, chips, plan_points(curve, None, [0, 0.01, 0.1, 1]), directory=directory, **run)

whole = Path(sys.argv[1]) / "whole"
go(whole)
for k in range(1, 100):
    folder = whole.with_name(f"killed-{k}")
    child = os.fork()
    if not child:
        go(folder, k)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == 0:
        break
    assert status == 9, status
    go(folder)
    for name in ("results.csv", "sweep.json"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), (k, name)
    assert sorted(os.listdir(folder)) == sorted(os.listdir(whole)), (k, os.listdir(folder))
print(k - 1)
'''


def test_killed_at_every_step_of_writing(tmp_path):
    process = Forked(STEPS, [tmp_path])
    out, err = process.communicate()
    assert process.returncode == 0, err
    # the configuration, four points, and the status once or, on a slow machine, more often: five steps each
    assert int(out) % 5 == 0
    assert int(out) >= 5 * 6


def test_finished_sweeps_are_not_computed_again(finished, copied):
    before = {entry.name: entry.stat().st_mtime_ns for entry in copied.iterdir()}
    with pytest.raises(SystemExit) as ended:
        main(["sweep-voltage", *OPTIONS, "--out", str(copied)])
    assert not ended.value.code
    assert content(copied) == content(finished)
    assert before["results.csv"] == (copied / "results.csv").stat().st_mtime_ns
    assert before["sweep.json"] == (copied / "sweep.json").stat().st_mtime_ns


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        (["--seed", "6"], "seed is 5 there, 6 here"),
        (["--chips", "7"], "chips is ["),
        (["--images", "39"], "images is 40 there, 39 here"),
        (["--batch-size", "64"], "batch_size is 256 there, 64 here"),
        (["--voltages", "0.8,0.9"], "points is ["),
        (["--fault-kind", "stuck_at_0"], "faults.kind is flip there, stuck_at_0 here"),
        (["--placement", "tiled"], "faults.memory.placement is unlimited there, tiled here"),
        (["--preset", "neuralfuse_2022"], "faults.kind is flip there, stuck_at_random here"),
        (["--curve", "CURVE"], "curve.name is 14nm there, own.csv here"),
    ],
)
def test_another_configuration_is_refused(copied, refused, tmp_path, options, difference):
    (tmp_path / "own.csv").write_text("voltage,bit_error_rate,energy_per_access\n1.2,0,2\n0.5,0.4,1\n")
    options = [str(tmp_path / "own.csv") if word == "CURVE" else word for word in options]
    before = content(copied) | {"json": (copied / "sweep.json").read_bytes()}
    line = refused(*OPTIONS, *options, "--out", copied)
    assert f"{copied} holds a run of another configuration" in line
    assert difference in line
    assert "choose another directory" in line
    assert content(copied) | {"json": (copied / "sweep.json").read_bytes()} == before


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def _edited(old: str, new: str) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return edit


@pytest.mark.parametrize(
    ("name", "damage", "complaint"),
    [
        ("results.csv", _truncated, "changed"),
        ("results.csv", _edited(",40,1.0", ",41,1.0"), "changed"),
        ("results.csv", _edited("0.97,", "0.970,"), "changed"),
        ("results.csv", _edited("unprotected", "protected"), "changed"),
        ("results.csv", _edited("accuracy", "accuracies"), "changed"),
        ("results.csv", _edited(",40,1.0", ",40,0.9"), "changed"),
        ("results.csv", lambda path: path.write_text(path.read_text() * 2), "changed"),
        ("results.csv", lambda path: path.write_bytes(b"\xff\x00" * 50), "cannot be read"),
        ("results.csv", lambda path: path.write_text(""), "changed"),
        ("sweep.json", _truncated, "cannot be read"),
        ("sweep.json", lambda path: path.write_text("[1]"), "cannot be read"),
        ("sweep.json", lambda path: path.write_text("{}"), "cannot be read"),
        ("sweep.json", lambda path: path.write_bytes(b"\xff"), "cannot be read"),
        ("sweep.json", Path.unlink, "holds a results.csv of something else"),
    ],
)
def test_damaged_directories_are_refused(copied, refused, name, damage, complaint):
    damage(copied / name)
    before = {entry.name: entry.read_bytes() for entry in copied.iterdir()}
    line = refused(*OPTIONS, "--out", copied)
    assert complaint in line
    assert "choose another directory" in line
    assert {entry.name: entry.read_bytes() for entry in copied.iterdir()} == before


def test_a_directory_in_use_is_refused(tmp_path, refused, start, finish):
    folder = tmp_path / "run"
    process = start(*OPTIONS, "--out", folder)
    try:
        wait_for((folder / "sweep.json").exists, process)
        assert process.poll() is None, finish(process)
        process.send_signal(signal.SIGSTOP)  # it stays where it is
        line = refused(*OPTIONS, "--out", folder)
        assert f"{folder} is in use by another run" in line
    finally:
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGCONT)
        code, _, err = finish(process)
    assert code == 130
    assert err.splitlines()[-1] == "faultsim: interrupted; finished results are in --out"


# -- disks that won't ------------------------------------------------------------------------------------------------


def test_full_disk_loses_nothing(finished, tmp_path, start, finish):
    """A limit on the size of files fails the same write(2) calls that a full disk fails."""
    assert (finished / "sweep.json").stat().st_size < LIMIT < (finished / "results.csv").stat().st_size
    folder = tmp_path / "run"
    code, out, err = finish(start(*OPTIONS, "--out", folder, limit=LIMIT))
    assert (code, out) == (2, ""), err
    assert "Traceback" not in err
    *steps, last = err.splitlines()
    assert all(step.startswith("[") for step in steps)
    assert last == f"faultsim: error: cannot write {folder / 'results.csv'}: File too large"
    assert (finished / "results.csv").read_text().startswith((folder / "results.csv").read_text())
    assert sorted(entry.name for entry in folder.iterdir()) == [
        ".lock",
        "results.csv",
        "status.json",
        "sweep.json",
    ]
    code, _, err = finish(start(*OPTIONS, "--out", folder))
    assert code == 0, err
    assert content(folder) == content(finished)


def test_places_that_cannot_be_written(tmp_path, refused):
    (tmp_path / "file").write_text("kept")
    assert "is a file: choose a directory" in refused(*SMALL, "--out", tmp_path / "file")
    assert "Not a directory" in refused(*SMALL, "--out", tmp_path / "file" / "below")
    assert "choose another directory with --out" in refused(*SMALL, "--out", "/proc/sweep")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "kept"


def test_csv_dialect(finished):
    text = (finished / "summary.csv").read_bytes().decode("ascii")
    assert "\r" not in text
    assert text.endswith("\n")
    assert len(list(csv.reader(io.StringIO(text)))) == 21
