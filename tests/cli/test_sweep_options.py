"""`faultsim sweep-voltage`: what its options do, with models, data, curves and chips of one's own."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from faultsim import Chip, FaultMap, FaultModel, find_failing_cells
from faultsim.data import load

SMALL = ["--images", "40", "--chips", "3", "--device", "cpu"]


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
        row, _ = report["summary"]
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
    alone = [row for row in report["summary"] if row["variant"] == "unprotected"]
    assert [row["voltage"] for row in alone] == [900, 700, 600]
    assert [row["bit_error_rate"] for row in alone] == [0, 0.001, 0.1]
    assert [row["energy_per_access"] for row in alone] == [1, 0.75, 0.625]
    assert report["configuration"]["curve"]["name"] == "mine.csv"
    assert (
        sweep("--curve", path, *SMALL)["summary"] == report["summary"]
    )  # its own points, as `faultsim curve`
    same = sweep("--bit-error-rates", "0.1", *SMALL)
    assert [row["mean"] for row in same["summary"]] == [row["mean"] for row in report["summary"][-2:]]


def test_measured_chips(sweep, refused, tmp_path):
    chips = [Chip(0), Chip(1)]
    for chip in chips:
        find_failing_cells(chip, 16, 0.01, FaultModel()).save(tmp_path / f"chip{chip.seed}.npz")
    maps = [word for chip in chips for word in ("--fault-map", tmp_path / f"chip{chip.seed}.npz")]
    small = ["--voltages", "0.83", "--images", 40, "--out", tmp_path / "run"]
    report = sweep(*small, *maps)
    simulated = sweep("--voltages", "0.83", "--images", 40, "--chips", 2)
    cells = sum(len(find_failing_cells(chip, 16, 0.01)) for chip in chips)
    for found, drawn in zip(report["summary"], simulated["summary"], strict=True):
        assert (found.pop("fault_kind"), drawn.pop("fault_kind")) == ("as measured", "flip")
        counted = found.pop("bit_error_rate")  # not from a curve
        assert counted == pytest.approx(cells / (2 * 16 * 32_768))
        assert drawn.pop("bit_error_rate") == 0.01
        assert found == drawn
    path = tmp_path / "down to 0.80.csv"
    path.write_text("# arrays=16\nvoltage,array,row,column,stuck_at\n0.83,0,0,0,\n0.83,0,0,1,\n0.8,0,0,2,\n")
    voltages = [row["voltage"] for row in sweep("--images", 40, "--fault-map", path)["summary"]]
    assert (min(voltages), max(voltages)) == (0.8, 1.0)  # the default, as far down as it was measured
    assert "voltage 0.78 is below 0.8, the lowest that was measured" in refused(
        "--voltages", "0.78,0.83", "--fault-map", path
    )
    with (tmp_path / "run" / "results.csv").open(newline="") as file:
        assert [row["chip"] for row in csv.DictReader(file)] == ["chip0", "chip1"] * 2
    mirrored = FaultMap.load(tmp_path / "chip1.npz")  # as many cells, in other places, under the old name
    replace(mirrored, column=63 - mirrored.column).save(tmp_path / "chip1.npz")
    assert "chips is [" in refused(*small, *maps)
    assert "over voltages, not bit error rates" in refused("--bit-error-rates", "0.9", "--images", 40, *maps)


def test_hand_computed_sweep(own, start, finish):
    """With p = 1 every weight is known: the model says 3 to all images, and 7 without faults."""
    options = ["--model", "sweep_own_model:known", "--dataset", "digits", "--chips", 2, "--json"]
    options += ["--bit-error-rates", "0,1", "--fault-kind", "stuck_at_1", "--out", "out"]
    code, out, err = finish(start(*options, cwd=own))
    assert code == 0, err
    labels = load("digits", "test").labels
    sevens, threes = (int((labels == digit).sum()) for digit in (7, 3))
    assert sevens != threes
    words = "stuck_at_1,unlimited,14nm,30720,30720"
    lines = (own / "out" / "results.csv").read_text().splitlines()
    assert lines == [
        "variant,voltage,bit_error_rate,chip,correct,images,accuracy,fault_kind,placement,curve,stored_weights,weights",
        *(f"unprotected,1.0,0.0,{chip},{sevens},359,{sevens / 359!r},{words}" for chip in (0, 1)),
        *(f"unprotected,,1.0,{chip},{threes},359,{threes / 359!r},{words}" for chip in (0, 1)),
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
