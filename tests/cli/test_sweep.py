"""`faultsim sweep-voltage`: its files, that a killed sweep goes on, and what it says to bad input."""

import csv
import io
import json
import math
import os
import random
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from faultsim import Chip, FaultMap, FaultModel, VoltageCurve, embedded, failing_cells
from faultsim.cli import main
from faultsim.data import load

COMMAND = [sys.executable, "-m", "faultsim", "sweep-voltage"]
IMAGES = 40
OPTIONS = f"--voltages 0.79:0.98:0.01 --images {IMAGES} --chips 8 --seed 5 --device cpu".split()
FILES = ("results.csv", "summary.csv", "sweep.png")
SMALL = ["--images", "40", "--chips", "3", "--device", "cpu"]
LIMIT = 7_000  # bytes: more than sweep.json has, less than results.csv

Run = Callable[..., subprocess.CompletedProcess]


def start(*arguments: object, **settings) -> subprocess.Popen:
    """A sweep in a process of its own, from any folder; with one thread, for these machines are shared."""
    path = os.pathsep.join(filter(None, [os.getcwd(), *sys.path]))
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        **settings,
    )


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def content(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


def wait_for(ready: Callable[[], bool], process: subprocess.Popen) -> None:
    end = time.monotonic() + 100
    while not ready() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of an uninterrupted sweep of the shipped model."""
    folder = tmp_path_factory.mktemp("sweep") / "new" / "run"
    code, out, err = finish(start(*OPTIONS, "--out", folder))
    assert (code, err.count("\n")) == (0, 20), err
    assert err.splitlines()[0].startswith("[1/20] V = 0.98, unprotected: ")
    assert err.splitlines()[-1].endswith(" %, 0 s left")
    assert "written to" in out
    assert max(map(len, out.splitlines()[:-1])) <= 80
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy"))


@pytest.fixture
def sweep(capfd: pytest.CaptureFixture[str]) -> Callable[..., dict]:
    """sweep(options) -> the JSON of a sweep, in this process."""

    def run(*options: object) -> dict:
        with pytest.raises(SystemExit) as ended:
            main(["sweep-voltage", *map(str, options), "--json"])
        out, err = capfd.readouterr()
        assert not ended.value.code, err
        return json.loads(out)

    return run


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """refused(options) -> the one line that a sweep says, in this process, before it ends with status 2."""

    def run(*options: object) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["sweep-voltage", *map(str, options)])
        out, err = capfd.readouterr()
        assert ended.value.code == 2
        assert out == ""
        assert err.startswith("faultsim: error: ")
        assert err.count("\n") == 1
        assert err.endswith("\n")
        return err.strip()

    return run


# -- what it writes ------------------------------------------------------------------------------------------------


def test_results_have_a_row_for_each_voltage_and_chip(finished):
    rows = table(finished / "results.csv")
    voltages = [f"{v / 100:.2f}".rstrip("0") for v in range(98, 78, -1)]
    chips = [str(5 * 2**32 + i) for i in range(8)]
    assert [(row["voltage"], row["chip"]) for row in rows] == [(v, c) for v in voltages for c in chips]
    curve = VoltageCurve.default()
    for row in rows:
        assert float(row["bit_error_rate"]) == curve.bit_error_rate(float(row["voltage"]))
        assert (row["variant"], row["images"]) == ("unprotected", str(IMAGES))
        assert float(row["accuracy"]) == int(row["correct"]) / IMAGES
    assert len({row["correct"] for row in rows}) > 5
    assert int(rows[0]["correct"]) > 0.9 * IMAGES


def test_summary_follows_from_the_results(finished):
    curve = VoltageCurve.default()
    groups: dict[str, list[float]] = {}
    for row in table(finished / "results.csv"):
        groups.setdefault(row["voltage"], []).append(int(row["correct"]) / IMAGES)
    summary = table(finished / "summary.csv")
    assert [row["voltage"] for row in summary] == list(groups)
    for row in summary:
        accuracies, voltage = groups[row["voltage"]], float(row["voltage"])
        assert (row["chips"], row["images"]) == ("8", str(IMAGES))
        found = {name: float(value) for name, value in row.items() if name != "variant"}
        assert found["bit_error_rate"] == curve.bit_error_rate(voltage)
        assert found["energy_per_access"] == pytest.approx(voltage ** (math.log(0.694) / math.log(0.83)))
        assert found["energy_saving"] == pytest.approx(1 - found["energy_per_access"])
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


def test_two_sweeps_with_one_seed_are_byte_identical_and_json_says_the_same(finished, tmp_path):
    code, out, _ = finish(start(*OPTIONS, "--json", "--out", "here", cwd=tmp_path))
    assert code == 0
    assert content(tmp_path / "here") == content(finished)
    report = json.loads(out)
    assert report["configuration"] == json.loads((finished / "sweep.json").read_text())["configuration"]
    written = table(finished / "summary.csv")
    assert [{n: "" if v is None else str(v) for n, v in row.items()} for row in report["summary"]] == written


def test_energy_is_left_out_below_the_curve_and_spread_for_one_chip(sweep, tmp_path):
    report = sweep("--bit-error-rates", "0.9,0,0.01", "--images", 20, "--chips", 1, "--out", tmp_path)
    clean, low, beyond = report["summary"]
    assert (clean["voltage"], clean["energy_saving"]) == (1.0, 0.0)
    assert low["voltage"] == 0.83
    assert [beyond[name] for name in ("voltage", "energy_per_access", "energy_saving")] == [None] * 3
    assert [low[name] for name in ("sample_std", "ci95_low", "ci95_high")] == [None] * 3
    assert [row["sample_std"] for row in table(tmp_path / "summary.csv")] == ["", "", ""]
    again = sweep("--bit-error-rates", "0.9,0,0.01", "--images", 20, "--chips", 1, "--out", tmp_path)
    assert again["summary"] == report["summary"]


# -- killed, and started again ---------------------------------------------------------------------------------------


def test_killed_at_random_points_and_continued(finished, tmp_path):
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
        lines.append((folder / "results.csv").read_text().count("\n"))
        whole = (finished / "results.csv").read_text()
        assert whole.startswith((folder / "results.csv").read_text())
        assert lines[-1] % 8 == 1
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
from faultsim.results import RunDirectory
from faultsim.sweep import ROW, points, sweep

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
    with RunDirectory(folder, "sweep", {"a": 1}, ROW) as directory:
        directory.begin({"b": 2})
        sweep(model, data, chips, points(curve, None, [0, 0.01, 0.1, 1]), directory=directory, **run)

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
    done = subprocess.run(
        [sys.executable, "-c", STEPS, tmp_path], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == 5 * 5  # the configuration and four points, five steps each


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


def test_a_directory_in_use_is_refused(tmp_path, refused):
    folder = tmp_path / "run"
    process = start(*OPTIONS, "--out", folder)
    try:
        wait_for((folder / "sweep.json").exists, process)
        assert process.poll() is None, finish(process)
        process.send_signal(signal.SIGSTOP)  # it stays where it is
        line = refused(*OPTIONS, "--out", folder)
        assert f"{folder} is in use by another run" in line
    finally:
        process.send_signal(signal.SIGCONT)
        process.send_signal(signal.SIGINT)
        code, _, err = finish(process)
    assert code == 130
    assert err.splitlines()[-1] == "faultsim: interrupted; what was finished is kept"


# -- disks that won't ------------------------------------------------------------------------------------------------


def test_full_disk_loses_nothing(finished, tmp_path):
    """A limit on the size of files fails the same write(2) calls that a full disk fails."""
    assert (finished / "sweep.json").stat().st_size < LIMIT < (finished / "results.csv").stat().st_size
    folder = tmp_path / "run"

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, resource.RLIM_INFINITY))

    code, out, err = finish(start(*OPTIONS, "--out", folder, preexec_fn=limited))
    assert (code, out) == (2, ""), err
    assert "Traceback" not in err
    *steps, last = err.splitlines()
    assert all(step.startswith("[") for step in steps)
    assert last == f"faultsim: error: cannot write {folder / 'results.csv'}: File too large"
    assert (finished / "results.csv").read_text().startswith((folder / "results.csv").read_text())
    assert sorted(entry.name for entry in folder.iterdir()) == [".lock", "results.csv", "sweep.json"]
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


# -- options ---------------------------------------------------------------------------------------------------------


def test_fault_model_reaches_the_results(sweep):
    rows, faults = {}, {}
    for options in (
        (),
        ("--fault-kind", "stuck_at_random"),
        ("--fault-kind", "stuck_at_0"),
        ("--fault-kind", "stuck_at_1"),
        ("--fault-kind", "transient"),
        ("--placement", "tiled_per_layer"),
        ("--placement", "neuralfuse_2022"),
        ("--preset", "neuralfuse_2022"),
        ("--preset", "neuralfuse_2022", "--fault-kind", "flip"),
    ):
        report = sweep("--bit-error-rates", "0.03", *SMALL, *options)
        (row,) = report["summary"]
        rows[options], found = row["mean"], report["configuration"]["faults"]
        faults[options] = (found["kind"], found["memory"]["placement"])
    assert faults[()] == ("flip", "unlimited")
    assert faults["--fault-kind", "transient"] == ("transient", "unlimited")
    assert faults["--placement", "tiled_per_layer"] == ("flip", "tiled_per_layer")
    assert faults["--preset", "neuralfuse_2022"] == ("stuck_at_random", "neuralfuse_2022")
    nested = "--preset", "neuralfuse_2022", "--fault-kind", "flip"
    assert faults[nested] == faults["--placement", "neuralfuse_2022"] == ("flip", "neuralfuse_2022")
    assert rows[nested] == rows["--placement", "neuralfuse_2022"]
    assert len(set(rows.values())) >= 6
    # half of the stuck cells hold the right bit already
    assert rows["--fault-kind", "stuck_at_random"] > rows[()]


def test_curve_of_ones_own(sweep, tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("voltage,bit_error_rate,energy_per_access\n900,0,8\n700,0.001,6\n600,0.1,5\n")
    report = sweep("--voltages", "600,700,900", "--curve", path, *SMALL)
    assert [row["voltage"] for row in report["summary"]] == [900, 700, 600]
    assert [row["bit_error_rate"] for row in report["summary"]] == [0, 0.001, 0.1]
    assert [row["energy_per_access"] for row in report["summary"]] == [1, 0.75, 0.625]
    assert report["configuration"]["curve"]["name"] == "mine.csv"
    same = sweep("--bit-error-rates", "0.1", *SMALL)
    assert same["summary"][0]["mean"] == report["summary"][-1]["mean"]


def test_measured_chips(sweep, refused, tmp_path):
    chips = [Chip(0), Chip(1)]
    for chip in chips:
        failing_cells(chip, 16, 0.01, FaultModel()).save(tmp_path / f"chip{chip.seed}.npz")
    maps = [word for chip in chips for word in ("--fault-map", tmp_path / f"chip{chip.seed}.npz")]
    small = ["--voltages", "0.83", "--images", 40, "--out", tmp_path / "run"]
    report = sweep(*small, *maps)
    simulated = sweep("--voltages", "0.83", "--images", 40, "--chips", 2)
    (found,), (drawn,) = report["summary"], simulated["summary"]
    cells = sum(len(failing_cells(chip, 16, 0.01)) for chip in chips)
    assert found.pop("bit_error_rate") == pytest.approx(
        cells / (2 * 16 * 32_768)
    )  # counted, not from a curve
    assert drawn.pop("bit_error_rate") == 0.01
    assert found == drawn
    assert [row["chip"] for row in table(tmp_path / "run" / "results.csv")] == ["chip0", "chip1"]
    mirrored = FaultMap.load(tmp_path / "chip1.npz")  # as many cells, in other places, under the old name
    replace(mirrored, column=63 - mirrored.column).save(tmp_path / "chip1.npz")
    assert "chips is [" in refused(*small, *maps)
    assert "over voltages, not bit error rates" in refused("--bit-error-rates", "0.9", "--images", 40, *maps)


# -- models and data of one's own --------------------------------------------------------------------------------------

OWN = """
import torch
from torch import nn


def known():
    '''Says 7 as long as its one weight is right, and 3 when it is not: pixel 0 of every digit is black, -1.'''
    layer = nn.Linear(3 * 32 * 32, 10)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[3, 0] = 1
        layer.bias.zero_()
        layer.bias[3], layer.bias[7] = 1.0, 0.5
    return nn.Sequential(nn.Flatten(), layer)


class Fails(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 10)

    def forward(self, x):
        return self.layer(x)


class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 10, 1)

    def forward(self, x):
        return self.layer(x)


def raises():
    raise RuntimeError("first line\\nsecond line")


def text():
    return "a model"


no_weights = nn.Flatten
few = lambda: nn.Sequential(nn.Flatten(), nn.Linear(3072, 4))
number = 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, the current one, with a module of the user's."""
    (tmp_path / "sweep_own_model.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("sweep_own_model", None)


def test_hand_computed_sweep(own):
    """With p = 1 every weight is known: the model says 3 to all images, and 7 without faults."""
    options = ["--model", "sweep_own_model:known", "--dataset", "digits", "--chips", 2, "--json"]
    options += ["--bit-error-rates", "0,1", "--fault-kind", "stuck_at_1", "--out", "out"]
    code, out, err = finish(start(*options, cwd=own))
    assert code == 0, err
    labels = load("digits", "test").labels
    sevens, threes = (int((labels == digit).sum()) for digit in (7, 3))
    assert sevens != threes
    lines = (own / "out" / "results.csv").read_text().splitlines()
    assert lines == [
        "variant,voltage,bit_error_rate,chip,correct,images,accuracy",
        *(f"unprotected,1.0,0.0,{chip},{sevens},359,{sevens / 359!r}" for chip in (0, 1)),
        *(f"unprotected,,1.0,{chip},{threes},359,{threes / 359!r}" for chip in (0, 1)),
    ]
    clean, stuck = json.loads(out)["summary"]
    assert (clean["mean"], clean["std"], clean["worst"], clean["best"]) == (
        sevens / 359,
        0,
        *[sevens / 359] * 2,
    )
    assert (stuck["mean"], stuck["energy_saving"]) == (threes / 359, None)
    assert clean["energy_per_inference"] > 0


@pytest.mark.parametrize("kind", ["stuck_at_0", "flip"])
def test_hand_computed_for_other_kinds(own, sweep, kind):
    options = ["--model", "sweep_own_model:known", "--dataset", "digits", "--chips", 2]
    (row,) = sweep(*options, "--bit-error-rates", "1", "--fault-kind", kind)["summary"]
    labels = load("digits", "test").labels
    assert row["mean"] == int((labels == 3).sum()) / 359


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("Fails", "fails on images [2, 3, 32, 32]: "),
        ("Wide", "answers [2, 10, 32, 32] to 2 images; logits [2, 10] are needed for digits"),
        ("few", "answers [2, 4] to 2 images; logits [2, 10] are needed for digits"),
        ("no_weights", "no convolution, linear or embedding layer"),
        ("raises", "calling raises() failed (RuntimeError: first line second line)"),
        ("text", "returned a str, not a torch.nn.Module"),
        ("number", "is of type int; give a function"),
        ("absent", "has no 'absent'"),
        ("", "write package.module:function"),
    ],
)
def test_models_that_cannot_be_used(own, refused, name, complaint):
    line = refused("--model", f"sweep_own_model:{name}", "--dataset", "digits", "--out", "out")
    assert complaint in line
    assert not (own / "out").exists()


def test_cifar10_in_the_official_layout(own, sweep, refused):
    """Twenty images whose first red byte is black where the answer is right: all sevens."""
    random_bytes = np.random.default_rng(3)
    folder = own / "data" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    (folder / "batches.meta.txt").write_text("\n".join(names) + "\n\n")
    for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
        records = random_bytes.integers(0, 256, (20, 3073), dtype=np.uint8)
        records[:, 0] = np.arange(20) % 10
        records[:, 1] = 0
        (folder / name).write_bytes(records.tobytes())
    options = ["--model", "sweep_own_model:known", "--dataset", "cifar10", "--chips", 2, "--voltages", "1"]
    report = sweep(*options, "--data-dir", own / "data")
    assert report["configuration"]["images"] == 20
    assert report["summary"][0]["mean"] == 0.1
    line = refused(*options, "--data-dir", own)
    assert "does not hold cifar10" in line
    (folder / "test_batch.bin").write_bytes(bytes(3073 * 20 - 1))
    assert "test_batch.bin" in refused(*options, "--data-dir", own / "data")


# -- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ("--model Foo", "unknown model 'Foo'; known are ResNet18"),
        ("--model no_such_module:f --dataset digits", "importing 'no_such_module' failed"),
        ("--model VGG11 --dataset digits", "an untrained VGG11 tells nothing: add --weights"),
        ("--model VGG11 --weights WEIGHTS", "doesn't fit the model"),
        ("--weights nothing.safetensors", "weight file nothing.safetensors does not exist"),
        ("--weights model.pt", "model.pt is a pickled file"),
        ("--dataset foo", "unknown data set 'foo'; known: digits, cifar10"),
        ("--dataset cifar10 --data-dir nowhere", "no such folder: nowhere"),
        ("--data-dir .", "take no data folder"),
        ("--images 0", "--images 0: digits has 359 test images, choose 1 to 359"),
        ("--images 360", "choose 1 to 359"),
        ("--images ten", "Invalid value for '--images'"),
        ("--chips 0", "0 chips: at least 1 is needed"),
        ("--batch-size 0", "the batch size must be at least 1, got 0"),
        ("--seed -1", "seed -1 must be from 0"),
        ("--seed 2147483648", "seed 2147483648 must be from 0"),
        ("--voltages nan", "'nan' is no finite number"),
        ("--voltages 0.4", "voltage 0.4 is outside the curve '14nm', which covers 0.5 to 1.5"),
        ("--voltages 0.8:1.6:0.1", "voltage 1.6 is outside"),
        ("--voltages 0.9:0.8:0.1", "must not be above the last"),
        ("--voltages 0.8,0.8", "occurs more than once"),
        ("--bit-error-rates 1.01", "outside [0, 1] (it is a fraction: 1 % is 0.01)"),
        ("--bit-error-rates -0.1", "outside [0, 1]"),
        ("--bit-error-rates nan", "'nan' is no finite number"),
        ("--bit-error-rates 0.1 --voltages 0.9", "either --voltages or --bit-error-rates"),
        ("--fault-kind odd", "unknown fault kind 'odd': it can be flip, "),
        ("--placement odd", "unknown placement 'odd': it can be unlimited, "),
        ("--preset odd", "unknown fault preset 'odd': it can be iid_flips, neuralfuse_2022"),
        ("--curve nothing.csv", "voltage curve nothing.csv: cannot be read: No such file"),
        ("--curve rising.csv", "rising.csv"),
        ("--fault-map nothing.npz", "nothing.npz"),
        ("--device tpu", "--device 'tpu': it can be auto, cpu, cuda or cuda:N"),
        ("--bogus", "No such option: --bogus"),
        ("stray", "stray"),
    ],
)
def test_bad_input_is_one_clear_line(tmp_path, monkeypatch, refused, options, complaint):
    monkeypatch.chdir(tmp_path)
    Path("rising.csv").write_text("voltage,bit_error_rate,energy_per_access\n0.5,0,1\n1.0,0.1,2\n")
    Path("model.pt").write_bytes(b"\x80\x02.")
    words = [str(embedded.WEIGHTS) if word == "WEIGHTS" else word for word in options.split()]
    assert complaint in refused(*words, "--out", "out")
    assert not Path("out").exists()


def test_no_gpu(refused):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert "finds no GPU here; use --device cpu" in refused("--device", "cuda")


def test_weight_files_do_not_choose_which_code_runs(tmp_path, refused):
    from safetensors.torch import save_file

    from faultsim.checkpoint import read_file

    tensors, metadata = read_file(embedded.WEIGHTS)
    path = tmp_path / "foreign.safetensors"
    for change, complaint in (
        ({"model": "os:getcwd"}, "doesn't say of which model it is"),
        ({"model": 7}, "doesn't say of which model it is"),
        ({"dataset": 7}, "which images?"),
        ({"num_classes": "ten"}, "'ten' classes"),
    ):
        save_file(tensors, path, {"faultsim": json.dumps({**metadata, **change})})
        assert complaint in refused("--weights", path)


def test_errors_of_the_real_program(tmp_path):
    process = start("--voltages", "0.3", "--out", tmp_path / "out")
    code, out, err = finish(process)
    line = "faultsim: error: voltage 0.3 is outside the curve '14nm', which covers 0.5 to 1.5\n"
    assert (code, out, err) == (2, "", line)
    assert not (tmp_path / "out").exists()


def test_csv_dialect(finished):
    text = (finished / "summary.csv").read_bytes().decode("ascii")
    assert "\r" not in text
    assert text.endswith("\n")
    assert len(list(csv.reader(io.StringIO(text)))) == 21
