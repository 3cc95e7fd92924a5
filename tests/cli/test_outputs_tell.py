"""Does every output say fault kind, placement and curve, and is a run of other conditions not mixed in?"""

import json
from pathlib import Path

import pytest

from tests.cli.small_files import SMALL


def test_every_line_says_kind_placement_and_curve(call):
    told = "stuck_at_random, neuralfuse_2022 placement, curve 'c.csv'"
    at = ("--voltage", 0.9, "--curve", "c.csv", "--preset", "neuralfuse_2022")
    for command in (
        ("inject", "w.npy", "o.npy", "--chip", 1, *at),
        ("evaluate", *SMALL, *at),
        ("export", "--onnx", "m.onnx", "--chip", 1, "--images", 4, *at),
        ("sweep-voltage", *SMALL, *("--voltages", 0.9), *at[2:]),
        (
            "train-generator",
            "--generator",
            "ConvXS",
            "--epochs",
            1,
            "--n-models",
            1,
            "--out",
            "g.safetensors",
            *at,
        ),
    ):
        status, out, err = call(*command)
        assert status == 0, err
        assert told in " ".join(out.split()), command
    out = call(
        "evaluate", *SMALL, "--bit-error-rate", "1%", "--fault-kind", "transient", "--placement", "tiled"
    )[1]
    told = "transient (each read wrong with probability 0.5), tiled placement in 256 KiB, no voltage curve"
    assert told in " ".join(out.split())
    assert "without bit errors" in call("export", "--onnx", "m.onnx", "--images", 4)[1]
    assert "curve '14nm'" in call("energy", "--model", "DigitsNet", "--voltage", 0.9)[1]


def test_a_black_box_does_not_tell(call, tmp_path, monkeypatch):
    (tmp_path / "eight_for_test.py").write_text("def eight(images):\n    return [8] * len(images)\n")
    monkeypatch.syspath_prepend(tmp_path)
    options = (
        "evaluate-blackbox",
        "--function",
        "eight_for_test:eight",
        "--dataset",
        "digits",
        "--images",
        20,
    )
    assert "faults: those of the black box, which tells neither" in call(*options)[1]
    configuration = json.loads(call(*options, "--json")[1])["configuration"]
    assert (configuration["faults"], configuration["curve"]) == (None, None)


def test_files_of_a_sweep_say_it_and_are_still_tables(call):
    import pandas

    options = ("sweep-voltage", *SMALL, "--curve", "c.csv", "--voltages", "0.9", "--fault-kind", "stuck_at_0")
    assert call(*options, "--out", "run", "--picture", "p.svg")[0] == 0
    for name in ("results.csv", "summary.csv"):
        found = pandas.read_csv(f"run/{name}")
        assert len(found) > 1
        for column, value in (("fault_kind", "stuck_at_0"), ("placement", "unlimited"), ("curve", "c.csv")):
            assert (found[column] == value).all()
    from matplotlib.figure import Figure

    shown = []
    draw = Figure.savefig
    Figure.savefig = lambda self, *a, **k: (shown.append(self.get_supxlabel()), draw(self, *a, **k))
    try:
        assert call(*options, "--out", "run")[0] == 0
    finally:
        Figure.savefig = draw
    assert shown == ["faults: stuck_at_0, unlimited placement, curve 'c.csv'"]


@pytest.mark.parametrize("kept", [1, 5, 13])
def test_a_run_directory_of_an_older_version_goes_on(call, kept):
    """Its results.csv lacks the last five columns, and its configuration knows nothing of units."""
    options = ("sweep-voltage", *SMALL, "--voltages", "0.8,0.9,1", "--out", "run")
    assert call(*options)[0] == 0
    results, summary = Path("run/results.csv"), Path("run/summary.csv")
    new = {path: path.read_text() for path in (results, summary)}
    old = [line.rsplit(",", 5)[0] for line in new[results].splitlines()]
    assert old[0] == "variant,voltage,bit_error_rate,chip,correct,images,accuracy"
    results.write_text("\n".join(old[:kept]) + "\n")
    summary.unlink()
    assert call(*options)[0] == 0
    whole = kept == 13  # nothing was to be added, so the file stays as it is
    assert results.read_text() == ("\n".join(old) + "\n" if whole else new[results])
    assert summary.read_text() == new[summary]


def test_conditions_of_another_run_are_refused(call, rejected):
    options = ("sweep-voltage", *SMALL, "--voltages", "0.8,0.9", "--out", "run")
    assert call(*options)[0] == 0
    results = Path("run/results.csv")
    results.write_text(results.read_text().replace("flip", "transient"))
    assert "results.csv was changed by hand" in rejected(*options)
