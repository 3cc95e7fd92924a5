"""What somebody meets who tries the commands for the first time: percent, empty words, files named twice, narrow
terminals, pictures and picojoules."""

import csv
import json
import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from faultsim import VoltageCurve
from faultsim.cli import main
from faultsim.cli.numerals import accuracy, fraction, parse_numbers
from faultsim.errors import FaultsimError
from faultsim.io.files import keep_apart
from faultsim.show.units import format_joules, format_percent

CURVE = "voltage,bit_error_rate,energy_per_access\n1.0,0,1\n0.9,0.001,0.8\n0.8,0.05,0.6\n"
PICOJOULES = "voltage,bit_error_rate,energy_per_access_pj\n1.1,0,3\n1.0,0,2.5\n0.9,0.001,2\n0.8,0.05,1.5\n"
LOG = '{"epoch": 1, "loss": 1.0, "accuracy": 0.5, "test_accuracy": 0.5, "seconds": 1.0}\n'
SMALL = ("--images", 20, "--chips", 2, "--device", "cpu")


@pytest.fixture
def call(capsys, tmp_path, monkeypatch) -> Callable[..., tuple[int, str, str]]:
    """(exit status, stdout, stderr) of a command in a folder with a few files."""
    monkeypatch.chdir(tmp_path)
    np.save("w.npy", np.arange(5000, dtype=np.int32).astype(np.int8))
    Path("c.csv").write_text(CURVE)
    Path("pj.csv").write_text(PICOJOULES)

    def run(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main([*map(str, words)])
        return end.value.code or 0, *capsys.readouterr()

    return run


@pytest.fixture
def refused(call) -> Callable[..., str]:
    """The one line with which a command ends; nothing was written."""

    def run(*words: object) -> str:
        before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
        status, out, err = call(*words)
        assert (status, out, err.count("\n")) == (2, "", 1), err
        assert err.startswith("faultsim: error: ")
        assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before
        return err

    return run


# -- fractions and percent ----------------------------------------------------------------------------------


@given(st.decimals(0, 1, places=6))
def test_percent_with_its_sign_is_the_same_fraction(value):
    assert (
        fraction(f"{value}") == fraction(f"{100 * value}%") == fraction(f" {100 * value} % ") == float(value)
    )


@given(st.integers(1, 10_000))
def test_what_is_printed_can_be_typed(number):
    rate = number / 10_000
    assert fraction(format_percent(rate)) == pytest.approx(rate, rel=5e-3)


def test_an_accuracy_is_a_fraction_percent_with_its_sign_or_above_one():
    assert accuracy("0.97") == accuracy("97%") == accuracy("97") == 0.97
    assert accuracy("1") == accuracy("100%") == accuracy("100") == 1
    assert accuracy("0.5%") == 0.005


@pytest.mark.parametrize("word", ["0", "-1", "101", "100.5%", "nan", "inf", "97 percent"])
def test_accuracies_that_cannot_be_meant(refused, word):
    assert "write a fraction like" in refused("sweep-voltage", *SMALL, f"--accuracy-floor={word}")


def test_a_floor_of_a_fraction_recommends_a_voltage_that_keeps_it(call):
    """0.97 was once read as 0.97 %, and met by any voltage."""
    options = ("sweep-voltage", *SMALL, "--voltages", "0.8,0.9,1")
    found = {words: call(*options, "--accuracy-floor", words)[1] for words in ("0.97", "97%", "97")}
    assert len(set(found.values())) == 1
    kept = re.findall(r"at 97 % accuracy at voltage \S+ \(([\d.]+) %", found["0.97"])
    assert kept
    assert all(float(accuracy) >= 97 for accuracy in kept)


def test_rates_are_the_same_in_every_command(call):
    for one, other in (("0.02", "2%"), ("0.005", "0.5 %")):
        answers = []
        for words in (one, other):
            status, out, err = call(
                "inject", "w.npy", "o.npy", "--chip", 1, "--bit-error-rate", words, "--json"
            )
            assert status == 0, err
            answers.append((json.loads(out)["bit_error_rate"], Path("o.npy").read_bytes()))
        assert answers[0] == answers[1]
    assert parse_numbers("0.1%,1 %,0.05", "--x", rates=True) == [0.001, 0.01, 0.05]
    assert parse_numbers("0%:2%:0.5%", "--x", rates=True) == [0, 0.005, 0.01, 0.015, 0.02]
    with pytest.raises(FaultsimError, match="not a finite number"):
        parse_numbers("80%", "--voltages")


@pytest.mark.parametrize(
    "command",
    [
        "inject w.npy o.npy --chip 1 --bit-error-rate",
        "chip 7 --bit-error-rate",
        "evaluate --bit-error-rate",
        "serve-model --bit-error-rate",
        "export --onnx m.onnx --chip 1 --bit-error-rate",
        "train-generator --generator ConvXS --out g.safetensors --bit-error-rate",
        "sweep-voltage --bit-error-rates",
        "transfer --source VGG11 --target VGG16 --show --train-bit-error-rate",
    ],
)
def test_rates_above_one_are_refused(refused, command):
    for word in ("1.5", "150%"):
        line = refused(*command.split(), word)
        assert "1.5" in line
        assert "[0, 1]" in line or "0 to 1" in line or "bit error rate" in line


# -- empty words --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["sweep-voltage", "--voltages", ""],
        ["sweep-voltage", "--voltages="],
        ["sweep-voltage", "--bit-error-rates", " "],
        ["sweep-voltage", "--dataset", "", *SMALL],
        ["sweep-voltage", "--out", ""],
        ["curve", "--voltages", ""],
        ["chip", "7", "--voltage", ""],
        ["evaluate", "--voltage", "0.83", "--dataset", ""],
        ["energy", "--model", "VGG11", "--generator", ""],
        ["reproduce", "table1", "--show", "--device", ""],
        ["transfer", "--source", "VGG11", "--target", "VGG16", "--generator", "", "--show"],
        ["report", ""],
    ],
)
def test_an_empty_word_is_no_default(refused, words):
    assert "empty: give it a value, or leave it out" in refused(*words)


# -- files that are read and written ------------------------------------------------------------------------


@pytest.mark.parametrize("link", ["itself", "a longer path", "symbolic", "hard", "symbolic folder"])
def test_inject_never_overwrites_what_it_reads(refused, tmp_path, link):
    if link == "symbolic":
        (tmp_path / "o.npy").symlink_to("w.npy")
    elif link == "hard":
        os.link("w.npy", "o.npy")
    elif link == "symbolic folder":
        (tmp_path / "here").symlink_to(tmp_path)
    names = {"itself": "w.npy", "a longer path": f"../{tmp_path.name}/w.npy", "symbolic folder": "here/w.npy"}
    line = refused("inject", "w.npy", names.get(link, "o.npy"), "--chip", 1, "--voltage", 0.83)
    assert "is the same file as IN.npy w.npy, which would be lost" in line


@pytest.mark.parametrize(
    "command",
    [
        "curve --curve c.csv --out c.csv",
        "chip 7 --voltage 0.83 --curve c.csv --out c.csv",
        "chip --fault-map c.csv --out c.csv",
        "chip 7 --voltage 0.83 --out a.csv --out ./a.csv",
        "energy --topology c.csv --write-topology ./c.csv",
        "sweep-voltage --curve run/summary.csv --out run",
        "sweep-voltage --weights w.png --picture w.png",
        "export --onnx m.onnx --weights m.onnx",
        "export --onnx m.onnx --generator linked.safetensors",
        "train-generator --generator ConvXS --bit-error-rate 1% --out g.safetensors --base g.safetensors",
        "train-generator --generator ConvXS --bit-error-rate 1% --out g.safetensors --start g.state.safetensors",
        "report run --out run/page.html",
    ],
)
def test_no_command_overwrites_what_it_reads(refused, command):
    for name in ("run/summary.csv", "w.png", "m.onnx", "g.safetensors", "g.state.safetensors"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(CURVE)
    Path("linked.safetensors").symlink_to("m.onnx")
    Path("run/train.log.jsonl").write_text(LOG)
    os.link("run/train.log.jsonl", "run/page.html")
    assert "same file as" in refused(*command.split())


def test_files_that_differ_may_stand_together(tmp_path):
    (tmp_path / "a").write_text("")
    keep_apart(
        {"--out": tmp_path / "b"}, {"--in": tmp_path / "a", "--none": None, "--more": [tmp_path / "c"]}
    )


# -- pictures -----------------------------------------------------------------------------------------------

BEGINS = {"png": b"\x89PNG\r\n", "pdf": b"%PDF-", "svg": b"<?xml"}


@pytest.mark.parametrize("ending", BEGINS)
@pytest.mark.parametrize(
    "command",
    ["curve --out", "chip 7 --voltage 0.83 --arrays 2 --out", "sweep-voltage --voltages 0.9 --picture"],
)
def test_pictures_are_what_their_name_says_and_always_the_same(call, command, ending):
    small = SMALL if command.startswith("sweep") else ()
    contents = set()
    for name in (f"a.{ending}", f"b.{ending.upper()}"):
        status, out, err = call(*command.split(), name, *small)
        assert status == 0, err
        assert f"written to {name}" in out
        contents.add(Path(name).read_bytes())
    (content,) = contents
    assert content.startswith(BEGINS[ending])


@pytest.mark.parametrize("command", ["curve --out", "chip 7 --voltage 0.83 --out", "sweep-voltage --picture"])
@pytest.mark.parametrize("name", ["x.gif", "x", "x.png.txt", ".svg"])
def test_other_endings_are_refused_before_anything_is_computed(refused, command, name):
    assert "the name must end in .png, .pdf" in refused(*command.split(), name)


def test_a_picture_that_cannot_be_written_is_refused_before_the_sweep(refused, tmp_path):
    (tmp_path / "p.png").mkdir()
    assert "cannot write p.png: it is a folder" in refused("sweep-voltage", "--picture", "p.png")
    assert "is not a folder that can be written to" in refused("sweep-voltage", "--picture", "w.npy/p.png")


# -- picojoules ---------------------------------------------------------------------------------------------


def test_a_curve_may_have_picojoules(call):
    curve = VoltageCurve.from_csv("pj.csv")
    assert curve.picojoules
    assert (curve.v_min, curve.access_pj) == (1.0, 2.5)
    assert curve.energy_per_access(0.9) == 0.8
    assert VoltageCurve.default().access_pj is None
    assert VoltageCurve(**curve.describe()) == curve
    curve.to_csv("again.csv")
    assert VoltageCurve.from_csv("again.csv") == VoltageCurve("again.csv", *list(vars(curve).values())[1:])
    assert "picojoules" not in VoltageCurve.default().describe()


def test_curve_shows_and_writes_picojoules(call):
    status, out, _ = call("curve", "--curve", "pj.csv", "--voltages", "0.9,1", "--out", "o.csv")
    assert status == 0
    rows = [
        [cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│")
    ]
    assert [row[-1] for row in rows] == ["2", "2.5"]
    assert Path("o.csv").read_text().splitlines()[0] == PICOJOULES.splitlines()[0]
    assert VoltageCurve.from_csv("o.csv").access_pj == 2.5
    points = json.loads(call("curve", "--curve", "pj.csv", "--json")[1])["points"]
    assert [point["energy_per_access_pj"] for point in points] == [1.5, 2, 2.5, 3]


def test_a_sweep_counts_picojoules_by_hand(call):
    options = ("sweep-voltage", *SMALL, "--curve", "pj.csv", "--voltages", "0.9,1")
    status, out, _ = call(*options, "--out", "run")
    assert status == 0
    accesses, generator = 15_872, 216  # by hand in test_sweep_energy.py and test_shipped_generator.py
    with Path("run/summary.csv").open(newline="") as file:
        found = [(row["variant"], float(row["energy_per_inference_pj"])) for row in csv.DictReader(file)]
    alone, fused = "unprotected", "with ConvXS"
    expected = {1.0: accesses * 2.5, 0.9: accesses * 2.0}
    assert found == [
        (alone, expected[1.0]),
        (fused, pytest.approx(expected[1.0] + generator * 2.5)),
        (alone, pytest.approx(expected[0.9])),
        (fused, pytest.approx(expected[0.9] + generator * 2.5)),
    ]
    assert "39.68 nJ" in out
    assert "31.74 nJ" in out
    summary = json.loads(call(*options, "--json")[1])["summary"]
    assert [row["energy_per_inference_pj"] for row in summary] == [value for _, value in found]
    relative = json.loads(call("sweep-voltage", *SMALL, "--voltages", "1", "--json")[1])["summary"]
    assert not any("energy_per_inference_pj" in row for row in relative)


def test_energy_says_picojoules(call):
    options = (
        "energy",
        "--model",
        "DigitsNet",
        "--generator",
        "ConvXS",
        "--curve",
        "pj.csv",
        "--voltage",
        0.9,
    )
    report = json.loads(call(*options, "--json")[1])
    assert report["energy_per_access_pj"] == 2.0
    assert report["energy_per_inference_pj"] == 15_872 * 2.0
    assert report["energy_per_inference_at_vmin_pj"] == 15_872 * 2.5
    assert (
        report["generator_energy_per_inference_pj"]
        == report["generator_counts"]["weight_memory_accesses"] * 2.5
    )
    out = " ".join(call(*options)[1].split())
    assert "39.68 nJ at Vmin, 31.74 nJ at voltage 0.9" in out
    relative = json.loads(call("energy", "--model", "DigitsNet", "--voltage", 0.9, "--json")[1])
    assert not [name for name in relative if name.endswith("_pj")]


def test_joules_take_the_unit_that_suits():
    assert [format_joules(x) for x in (0.5, 999.4, 1e3, 39_680, 4.2e7, 1e10)] == [
        "0.5 pJ", "999.4 pJ", "1 nJ", "39.68 nJ", "42 µJ", "10 mJ",
    ]  # fmt: skip


# -- tables -------------------------------------------------------------------------------------------------

TABLES = {
    "sweep-voltage --voltages 0.79,0.83,1 --images 20 --chips 3 --device cpu": 60,
    "evaluate --bit-error-rate 1% --images 20 --chips 3 --device cpu": 60,
    "curve --voltages 0.83,0.9": 60,
    "chip 7 --voltage 0.8 --arrays 12": 60,
    "energy --model VGG11 --generator ConvL --voltage 0.83": 60,
    "bench kernel --weights 5000 --seconds 0 --device cpu": 60,
    "reproduce table8": 80,
    "reproduce table1 --show --dataset cifar10 --base VGG11": 80,
    "reproduce --status": 60,
}


@pytest.mark.parametrize("command", TABLES)
def test_tables_cut_no_digit_and_no_name(call, monkeypatch, command):
    """The same digits at every width (where time is not what is printed), no ellipsis, and lines that fit."""
    texts = {}
    for width in (60, 400) if command == "reproduce table8" else (40, 60, 80, 120, 400):
        monkeypatch.setenv("COLUMNS", str(width))
        status, texts[width], err = call(*command.split())
        assert status == 0, err
        assert "…" not in texts[width]
        of_tables = [
            line for line in texts[width].splitlines() if re.search(r"[│┃━─]|^ *[-+\d.,% ±]+$", line)
        ]
        if width >= TABLES[command]:
            assert max(map(len, of_tables)) <= width
    if not command.startswith("bench"):
        counts = [Counter(filter(str.isdigit, text)) for text in texts.values()]  # names may be folded
        assert counts == len(counts) * counts[:1]


@given(
    st.lists(
        st.lists(st.text("ab c", min_size=1, max_size=20), min_size=3, max_size=3), min_size=1, max_size=5
    ),
    st.integers(0, 10**12),
    st.integers(20, 120),
)
def test_any_table_keeps_its_letters_and_digits(rows, number, width):
    from faultsim.cli.tables import console

    table = Table()
    for heading in ("some name", "another", "third"):
        table.add_column(heading)
    table.add_column("a long heading", justify="right")
    for row in rows:
        table.add_row(*row, f"{number:,}")
    printer = console()
    printer.width = width
    with printer.capture() as captured:
        printer.print(table)
    text = captured.get()
    assert text.count(f"{number:,}") >= len(rows)
    for letter in "ab":
        named = sum(cell.count(letter) for row in rows for cell in row)
        headings = sum(word.count(letter) for word in ("some name", "another", "third", "a long heading"))
        assert text.count(letter) == named + headings


# -- odd values ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("energy --model VGG11 --input-shape ²x32x32", "'²x32x32' is not an input shape"),
        ("energy --model VGG11 --input-shape 3x32x" + 5000 * "9", "is not an input shape"),
        (
            "train-base --model DigitsNet --dataset digits --out m.safetensors --seed " + 30 * "9",
            "it must be from 0 to 2**63 - 1",
        ),
        (
            "sweep-voltage --chips 99999999999",
            "99999999999 chips: at least 1 is needed, and 2**32 are the most",
        ),
        ("chip 7 --voltage 0.83 --array -1", "--array: give at most 16 numbers from 0 to 63"),
        ("inject w.npy o.npy --chip 1 --bit-error-rate 5%x", "'5%x' is not a number"),
        ("bench kernel --weights 99999999999999999 --device cpu", "not enough memory"),
        ("bench kernel --seconds -1", "--seconds"),
    ],
)
def test_odd_values_get_one_line(refused, command, words):
    assert words in refused(*command.split())


def test_names_of_any_letters(call):
    Path("größe [bold] 圧.csv").write_text(CURVE)
    status, out, err = call("curve", "--curve", "größe [bold] 圧.csv", "--out", "bild 圧.svg")
    assert status == 0, err
    assert "größe [bold] 圧.csv" in out
    assert Path("bild 圧.svg").exists()


# -- outputs say their conditions ---------------------------------------------------------------------------


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


def test_conditions_of_another_run_are_refused(call, refused):
    options = ("sweep-voltage", *SMALL, "--voltages", "0.8,0.9", "--out", "run")
    assert call(*options)[0] == 0
    results = Path("run/results.csv")
    results.write_text(results.read_text().replace("flip", "transient"))
    assert "results.csv was changed by hand" in refused(*options)
