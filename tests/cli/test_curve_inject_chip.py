"""The commands curve, info, chip and inject, as a user calls them."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread

import faultsim
from faultsim.chips.chip_map import find_failing_cells, map_chip
from faultsim.chips.fault_map import FaultMap
from faultsim.cli import main
from faultsim.faults import Chip, FaultModel
from faultsim.kernel import ops
from faultsim.voltage import VoltageCurve
from tests import forked
from tests.forked import FAULTSIM, Done

CURVE = VoltageCurve.default()


def run(*arguments: object, **settings) -> Done:
    """A command in a process of its own, on a terminal of 80 columns."""
    return forked.run(FAULTSIM, arguments, env={"COLUMNS": "80"}, **settings)


@pytest.fixture
def call(capsys):
    """main() in this process: (exit status, stdout, stderr)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main([*map(str, arguments)])
        return end.value.code or 0, *capsys.readouterr()

    return call


@pytest.fixture
def weights(tmp_path) -> Path:
    path = tmp_path / "in.npy"
    np.save(path, np.arange(5000, dtype=np.int32).astype(np.int8).reshape(50, 10, 10))
    return path


def as_read(array: np.ndarray, seed: int, voltage: float, faults: FaultModel, access: int = 0) -> np.ndarray:
    return torch.ops.faultsim.corrupt(
        torch.from_numpy(array),
        ops.encode_chips([Chip(seed)]),
        ops.encode_rate(CURVE.bit_error_rate(voltage)),
        ops.encode_kind(faults),
        ops.encode_addresses(faults),
        None,
        torch.tensor([access]),
    )[0].numpy()


# -- as a user sees them -------------------------------------------------------------------------------------


def test_curve_prints_a_table_that_fits_and_draws(tmp_path):
    done = run("curve", "--voltages", "0.83,1.0,0.9", "--out", tmp_path / "curve.png")
    assert (done.status, done.err) == (0, "")
    rows = [line.split("│")[1:-1] for line in done.out.splitlines() if line.startswith("│")]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["0.83", "1 %", "0.6940", "30.6 %"],
        ["0.9", "0.0225 %", "0.8134", "18.7 %"],
        ["1", "0 %", "1.0000", "0.0 %"],
    ]
    assert max(map(len, done.out.splitlines()[:-1])) <= 80
    assert imread(tmp_path / "curve.png").ndim == 3


def test_inject_writes_what_the_chip_reads(tmp_path, weights):
    done = run("inject", "in.npy", "out.npy", "--chip", 7, "--voltage", 0.83, cwd=tmp_path)
    assert (done.status, done.err) == (0, "")
    before, after = np.load(weights), np.load(tmp_path / "out.npy")
    assert np.array_equal(after, as_read(before, 7, 0.83, FaultModel()))
    wrong = int(np.unpackbits((before ^ after).view(np.uint8)).sum())
    assert f"{wrong} of 40,000 bits wrong ({wrong / 400:.3g} %)" in done.out
    assert f"{np.count_nonzero(before != after)} of 5,000 weights" in done.out


def test_chip_counts_exports_and_draws(tmp_path):
    done = run(
        "chip", 7, "--voltage", "0.83", "--out", "a.npz", "--out", "a.csv", "--out", "a.png", cwd=tmp_path
    )
    assert (done.status, done.err) == (0, "")
    expected = map_chip(Chip(7), [0.83])
    assert FaultMap.load(tmp_path / "a.npz") == FaultMap.load(tmp_path / "a.csv") == expected
    assert imread(tmp_path / "a.png").ndim == 3
    assert f"{len(expected):,} of 2,097,152 cells fail" in done.out
    counts = [int(n) for line in done.out.splitlines() if line.startswith("│") for n in line.split("│")[2:-1]]
    assert counts == np.bincount(expected.array, minlength=64).tolist()
    assert max(map(len, done.out.splitlines())) <= 80


def test_info_tells_versions_build_and_devices():
    done = run("info", "--json")
    assert (done.status, done.err) == (0, "")
    told = json.loads(done.out)
    assert told["versions"]["torch"] == torch.__version__
    assert told["versions"]["numpy"] == np.__version__
    assert "scalesim" in told["versions"]
    assert told["kernel"]["vector_path_in_use"] == told["kernel"]["vector_paths"][0]
    assert "portable" in told["kernel"]["vector_paths"]
    assert isinstance(told["kernel"]["built_with_cuda"], bool)
    assert len(told["devices"]) == 1 + torch.cuda.device_count()


def test_a_full_disk_costs_nothing_but_the_command(tmp_path, weights):
    (tmp_path / "out.npy").write_text("old")
    for command in (
        ("inject", weights, tmp_path / "out.npy", "--chip", 7, "--voltage", 0.83),
        ("curve", "--out", tmp_path / "curve.png"),
    ):
        done = run(*command, limit=1000)
        assert done.status == 2
        assert done.err.startswith("faultsim: error: cannot write ")
        assert done.err.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.npy", "out.npy"]
    assert (tmp_path / "out.npy").read_text() == "old"


# -- what they answer ----------------------------------------------------------------------------------------


def test_curve_csv_is_a_curve_again(tmp_path, call):
    path = tmp_path / "mine.csv"
    assert call("curve", "--voltages", "0.80:1.02:0.01", "--out", path)[0] == 0
    status, out, _ = call("curve", "--curve", path, "--json")
    told = json.loads(out)
    assert (status, told["curve"], told["v_min"]) == (0, "mine.csv", 1.0)
    assert [point["voltage"] for point in told["points"]] == [n / 100 for n in range(80, 103)]
    for point in told["points"]:
        assert point["bit_error_rate"] == CURVE.bit_error_rate(point["voltage"])
        assert point["energy_per_access"] == pytest.approx(CURVE.energy_per_access(point["voltage"]))
    with path.open() as file:
        assert next(csv.reader(file)) == ["voltage", "bit_error_rate", "energy_per_access"]


@pytest.mark.parametrize(
    ("options", "faults", "access"),
    [
        (["--fault-kind", "stuck_at_random"], FaultModel("stuck_at_random"), 0),
        (["--preset", "neuralfuse_2022"], FaultModel.preset("neuralfuse_2022"), 0),
        (["--fault-kind", "transient", "--access", "5"], FaultModel("transient"), 5),
    ],
)
def test_inject_with_other_faults(tmp_path, weights, call, options, faults, access):
    out = tmp_path / "out.npy"
    status, text, _ = call("inject", weights, out, "--chip", 3, "--voltage", 0.8, *options, "--json")
    told, before, after = json.loads(text), np.load(weights), np.load(out)
    assert status == 0
    assert np.array_equal(after, as_read(before, 3, 0.8, faults, access))
    assert told["bits_wrong"] == int(np.unpackbits((before ^ after).view(np.uint8)).sum()) > 0
    assert told["weights_changed"] == np.count_nonzero(before != after)
    assert (told["fault_kind"], told["placement"]) == (faults.kind, faults.memory.placement)
    assert told["bit_error_rate"] == CURVE.bit_error_rate(0.8)


def test_inject_reads_through_a_measured_chip(tmp_path, weights, call):
    assert call("chip", 7, "--voltage", "0.78:0.9:0.01", "--arrays", 2, "--out", tmp_path / "lab.csv")[0] == 0
    options = ("--fault-map", tmp_path / "lab.csv", "--voltage", 0.83)
    assert call("inject", weights, tmp_path / "out.npy", *options)[0] == 0
    assert np.array_equal(np.load(tmp_path / "out.npy"), as_read(np.load(weights), 7, 0.83, FaultModel()))


@pytest.mark.parametrize(
    "array", [np.int8(5), np.empty((0, 3), np.int8), np.asfortranarray(np.ones((30, 7), np.int8))]
)
def test_inject_takes_any_shape(tmp_path, call, array):
    np.save(tmp_path / "in.npy", array)
    assert (
        call("inject", tmp_path / "in.npy", tmp_path / "out.npy", "--chip", 1, "--bit-error-rate", 1)[0] == 0
    )
    assert np.array_equal(np.load(tmp_path / "out.npy"), ~array)


def test_chip_over_several_voltages_and_from_a_file(tmp_path, call):
    path = tmp_path / "map.csv"
    status, out, _ = call("chip", 9, "--voltage", "0.9,0.8", "--arrays", 3, "--out", path, "--json")
    told = json.loads(out)
    expected = {v: find_failing_cells(Chip(9), 3, CURVE.bit_error_rate(v)) for v in (0.8, 0.9)}
    assert status == 0
    assert told["by_voltage"] == [{"voltage": v, "failing_cells": len(m)} for v, m in expected.items()]
    assert told["by_array"] == np.bincount(expected[0.8].array, minlength=3).tolist()
    status, out, _ = call(
        "chip", "--fault-map", path, "--voltage", 0.9, "--out", tmp_path / "high.npz", "--json"
    )
    assert (status, json.loads(out)["failing_cells"]) == (0, len(expected[0.9]))
    assert np.array_equal(FaultMap.load(tmp_path / "high.npz").row, expected[0.9].row)


# -- wrong commands: status 2, one line, nothing written -----------------------------------------------------

WRONG = {
    "inject in.npy": "OUT.npy",
    "inject in.npy out.npy --chip 1.5 --voltage 0.83": "--chip",
    "chip seven --voltage 0.83": "SEED",
    "curve --volts 0.83": "--volts",
    "curve --voltages 0.3:0.9:0.1": "voltage 0.3 is outside the curve",
    "curve --voltages 0.9:0.8:0.1": "must not be above the last",
    "curve --voltages nan": "not a finite number",
    "curve --curve none.csv": "none.csv: cannot be read: No such file or directory",
    "curve --curve unsorted.csv": "voltages must fall",
    "curve --out curve.gif": "must end in .png, .pdf, .svg or .csv",
    "curve --out in.npy/curve.png": "cannot write in.npy/curve.png",
    "inject in.npy out.npy --voltage 0.83": "either --chip SEED or --fault-map FILE",
    "inject in.npy out.npy --chip 7": "either --voltage or --bit-error-rate",
    "inject in.npy out.npy --chip 7 --voltage 0.83 --bit-error-rate 0.1": "either --voltage or --bit-error-rate",
    "inject in.npy out.npy --chip 7 --voltage nan": "outside the curve",
    "inject in.npy out.npy --chip 7 --bit-error-rate nan": "outside [0, 1]",
    "inject in.npy out.npy --chip 7 --bit-error-rate 1.5": "1 % is 0.01",
    "inject in.npy out.npy --chip -7 --voltage 0.83": "0 to 2**64 - 1",
    "inject in.npy out.npy --chip 7 --voltage 0.83 --fault-kind bent": "unknown fault kind 'bent'",
    "inject in.npy out.npy --chip 7 --voltage 0.83 --placement up": "unknown placement 'up'",
    "inject in.npy out.npy --chip 7 --voltage 0.83 --preset paper": "unknown fault preset 'paper'",
    "inject in.npy out.npy --chip 7 --voltage 0.83 --base -1": "--base -1",
    "inject in.npy out.npy --chip 7 --voltage 0.83 --access -1": "--access -1",
    "inject in.npy out.txt --chip 7 --voltage 0.83": "must end in .npy",
    "inject in.npy in.npy/out.npy --chip 7 --voltage 0.83": "cannot write",
    "inject none.npy out.npy --chip 7 --voltage 0.83": "none.npy: cannot be read: No such file",
    "inject float.npy out.npy --chip 7 --voltage 0.83": "holds float32, int8 is needed; quantize it",
    "inject uint8.npy out.npy --chip 7 --voltage 0.83": "holds uint8, int8 is needed",
    "inject objects.npy out.npy --chip 7 --voltage 0.83": "truncated, damaged, or an array of Python objects",
    "inject short.npy out.npy --chip 7 --voltage 0.83": "truncated, damaged",
    "inject unsorted.csv out.npy --chip 7 --voltage 0.83": "not a .npy file",
    "inject in.npy out.npy --fault-map none.npz --voltage 0.83": "none.npz: there is no such file",
    "inject in.npy out.npy --fault-map in.npy --voltage 0.83": "must end in .npz or .csv",
    "inject in.npy out.npy --fault-map two.csv": "say at which voltage",
    "inject in.npy out.npy --fault-map map.csv --bit-error-rate 0.1": "give it a --voltage only",
    "inject in.npy out.npy --fault-map map.csv --voltage 0.8": "use tiled placement",
    "inject in.npy out.npy --fault-map two.csv --voltage -1": "must be a finite number above 0",
    "chip": "either a SEED or --fault-map FILE",
    "chip 7": "either --voltage or --bit-error-rate",
    "chip 7 --voltage 0.2 --out a.csv": "outside the curve",
    "chip 7 --voltage 0.83 --arrays 0 --out a.csv": "at least one array",
    "chip 7 --voltage 0.83 --array 64 --out a.csv --out a.png": "at most 16 numbers from 0 to 63",
    "chip 7 --voltage 0.83 --out a.csv --out a.gif": "must end in .png, .pdf, .svg, .npz or .csv",
    "chip 7 --voltage 0.83 --fault-kind transient --out a.csv": "differ from read to read",
    "chip 7 --fault-map map.csv": "either a SEED or --fault-map FILE",
    "chip --fault-map map.csv --arrays 2": "give it a --voltage only",
    "chip --fault-map map.csv --voltage 0.8,0.9": "one voltage, or",
    "chip --fault-map bad.csv --out a.npz": "bad.csv, line 2: row 600 is outside 0 to 511",
}


@pytest.fixture
def folder(tmp_path, weights, monkeypatch) -> Path:
    """Files that wrong commands name."""
    np.save(tmp_path / "float.npy", np.ones(3, np.float32))
    np.save(tmp_path / "uint8.npy", np.ones(3, np.uint8))
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    (tmp_path / "short.npy").write_bytes(weights.read_bytes()[:300])
    header = "voltage,bit_error_rate,energy_per_access\n"
    (tmp_path / "unsorted.csv").write_text(header + "0.9,0.1,1\n0.8,0.2,0.9\n1.0,0,1.2\n")
    header = "voltage,array,row,column,stuck_at\n"
    (tmp_path / "map.csv").write_text(header + "0.8,0,1,1,1\n")
    (tmp_path / "two.csv").write_text("# arrays=2\n" + header + "0.8,0,1,1,1\n")
    (tmp_path / "bad.csv").write_text(header + "0.8,0,600,1,1\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("command", WRONG)
def test_wrong_commands(folder, call, command):
    before = contents(folder)
    status, out, err = call(*command.split())
    assert (status, out) == (2, "")
    assert err.startswith("faultsim: error: ")
    assert err.count("\n") == 1
    assert WRONG[command] in err
    assert contents(folder) == before


def test_a_wrong_command_in_a_process_of_its_own(folder):
    words = ["inject", "float.npy", "out.npy", "--chip", "7", "--voltage", "0.83"]
    path = os.pathsep.join([str(Path(faultsim.__file__).parents[1]), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-m", "faultsim", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("faultsim: error: float.npy holds float32")
