"""Does the page say what the files say, and is every other file refused in one line or noted on the page?"""

import contextlib
import csv
import json
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faultsim.errors import FaultsimError
from faultsim.show.report import page as page_module
from faultsim.show.report.charts import draw_chart
from faultsim.show.report.collect import OWN, collect
from faultsim.show.report.document import Chart, Point, Section, Series, Table
from faultsim.show.report.page import render_page
from faultsim.show.series_styles import COLORS
from faultsim.studies.comparison import compare
from faultsim.studies.subject import load_subject
from neuralfuse.paper.report import READER
from neuralfuse.paper.result import Cell, GeneratorSpec, read
from neuralfuse.paper.rows import find_published

READERS = (READER, *OWN)
WORDS = ("variant", "fault_kind", "placement", "curve")  # columns of summary.csv without numbers


def summary(folder: Path) -> list[dict[str, str]]:
    with (folder / "summary.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def copy(sweep, tmp_path) -> Path:
    """A sweep to be spoilt."""
    return Path(shutil.copytree(sweep, tmp_path / "copy"))


# ------------------------------------------------------------------------------------------------- what it says


def test_a_sweep_is_told_with_its_numbers(sweep):
    (section,) = collect([sweep])
    rows = summary(sweep)
    assert (section.title, section.kind) == ("DigitsNet on digits", "Voltage sweep")
    variants = ["unprotected", "with ConvS"]
    assert [table.caption for table in section.tables] == [f"All points, {variant}" for variant in variants]
    for variant, table in zip(variants, section.tables, strict=True):
        mine = [row for row in rows if row["variant"] == variant]
        assert len(mine) == len(table.rows) == 4
        for row, shown in zip(mine, table.rows, strict=True):
            percent = {name: 100 * float(row[name]) for name in row if name not in WORDS}
            assert float(shown.cells[0]) == pytest.approx(float(row["voltage"]))
            assert shown.cells[3] == f"{percent['energy_saving']:.1f} %".replace("-", "\N{MINUS SIGN}")
            assert shown.cells[4] == f"{percent['mean']:.2f} ± {percent['std']:.2f}"
            assert shown.cells[5] == f"{percent['ci95_low']:.2f} to {percent['ci95_high']:.2f}"
            assert shown.cells[6:] == (f"{percent['worst']:.2f}", f"{percent['best']:.2f}")
    facts = dict(section.facts)
    information = json.loads((sweep / "sweep.json").read_text())
    assert (facts["Seed"], facts["Chips"], facts["Images"], facts["Faults"]) == ("5", "3", "25", "flip")
    assert facts["Faulty memory"] == "62,896 of 62,896 weights"
    assert (facts["Device"], facts["torch"]) == (information["device"], information["versions"]["torch"])
    assert facts["Date"] == information["date"].replace("T", " ").replace("+00:00", " UTC")
    assert json.loads(section.configuration) == information["configuration"]


def test_charts_hold_every_point_with_its_interval(sweep):
    (section,) = collect([sweep])
    voltage, energy, used = section.charts
    for chart in section.charts:
        assert [series.name for series in chart.series] == ["unprotected", "with ConvS"]
    for index, series in enumerate(voltage.series):
        mine = [row for row in summary(sweep) if row["variant"] == series.name]
        for place, (row, point) in enumerate(zip(mine, series.points, strict=True)):
            value = {name: float(text) for name, text in row.items() if name not in WORDS}
            assert (point.x, point.y) == pytest.approx((value["voltage"], 100 * value["mean"]))
            assert point.interval == pytest.approx((100 * value["ci95_low"], 100 * value["ci95_high"]))
            assert point.spread == pytest.approx((100 * value["worst"], 100 * value["best"]))
            of_energy = 100 * (1 - value["energy_saving"])
            assert (energy.series[index].points[place].x, energy.series[index].points[place].y) == (
                pytest.approx(of_energy),
                point.y,
            )
            assert used.series[index].points[place].y == pytest.approx(of_energy)


def test_a_drawing_has_a_marker_with_values_for_each_point_in_its_place(sweep):
    (section,) = collect([sweep])
    chart = section.charts[0]
    for drawing in draw_chart(chart, "c"):
        titles = re.findall(r"<title>([^<]*)</title>", drawing)
        assert titles == ["\n".join(point.values) for series in chart.series for point in series.points]
        places = [float(y) for y in re.findall(r"</title><use [^>]*\by=\"([\d.]+)\"", drawing)]
        accuracies = [point.y for series in chart.series for point in series.points]
        # higher accuracy, higher place: one straight line through all of them
        (low, at_low), (high, at_high) = (f(zip(accuracies, places, strict=True)) for f in (min, max))
        for accuracy, place in zip(accuracies, places, strict=True):
            share = (accuracy - low) / (high - low)
            assert place == pytest.approx(at_low + share * (at_high - at_low), abs=0.01)


def test_reproduced_accuracies_stand_beside_the_published_ones(reproduced, tmp_path):
    """The smoke run's files, once as they are and once as if they were VGG11 on CIFAR-10."""
    section, training = collect([reproduced], READERS)
    assert (section.kind, training.kind) == ("Reproduction of the paper", "Training")
    files = sorted(reproduced.glob("result-*.json"))
    assert len(files) == 2
    for file in files:
        result = read(file)
        row = next(row for row in section.tables[0].rows if row.cells[0] == result.cell.faults)
        assert row.cells[1] == f"{result.mean('clean'):.2f}"
        assert row.cells[5] == f"{result.improvement:+.2f}"
    assert not [row for row in section.tables[0].rows if row.kind == "published"]

    cell = Cell("cifar10", "VGG11", GeneratorSpec("ConvS", "VGG11", 0.01), "iid_flips", 0.01)
    found = json.loads(files[0].read_text())
    found["cell"] = {**vars(cell), "generator": vars(cell.generator)}
    (tmp_path / "result-a.json").write_text(json.dumps(found))
    (section,) = collect([tmp_path], READERS)
    group, published, ours = section.tables[0].rows
    known = find_published(cell)
    assert (group.cells, group.kind, published.kind) == (("VGG11 + ConvS",), "group", "published")
    assert published.cells[1] == f"{known.clean:.2f}"
    assert float(published.cells[4].split("±")[0]) == known.perturbed_fused
    assert ours.cells[1] == f"{read(files[0]).mean('clean'):.2f}"
    hollow = [series for series in section.charts[0].series if series.hollow]
    assert [series.points[0].x for series in hollow] == [known.perturbed, known.perturbed_fused]


def test_training_curves_are_those_of_the_logs(reproduced):
    training = collect([reproduced], READERS)[1]
    logs = sorted(reproduced.glob("*.log.jsonl"))
    assert [chart.title for chart in training.charts] == [log.name[: -len(".log.jsonl")] for log in logs]
    for log, chart in zip(logs, training.charts, strict=True):
        entries = [json.loads(line) for line in log.read_text().splitlines()]
        key, factor = ("test_accuracy", 100) if "accuracy" in entries[0] else ("perturbed", 1)
        assert [point.y for point in chart.series[1].points] == [factor * e[key] for e in entries]
        assert [point.x for point in chart.series[1].points] == [e["epoch"] for e in entries]


def test_long_logs_are_thinned_out_to_their_end(tmp_path):
    lines = [json.dumps({"epoch": n, "loss": 1.0, "clean": 1 / n, "perturbed": 2 / n}) for n in range(1, 402)]
    (tmp_path / "g.log.jsonl").write_text("\n".join(lines))
    ((chart,),) = (section.charts for section in collect([tmp_path]))
    epochs = [point.x for point in chart.series[0].points]
    assert len(epochs) < 70
    assert (epochs[0], epochs[-1]) == (1, 401)


def test_figures_of_a_run_are_shown_with_their_rows(reproduced, tmp_path):
    folder = Path(shutil.copytree(reproduced, tmp_path / "run"))
    pixel = bytes.fromhex("89504e470d0a1a0a") + b"rest"
    (folder / "figure4.png").write_bytes(pixel)
    (folder / "figure4.csv").write_text("x,y\n1,2\n")
    (folder / "figure5.png").write_bytes(b"GIF89a")
    section = collect([folder], READERS)[0]
    assert section.pictures == (("Figure 4: accuracy against N, the perturbed models a step", pixel),)
    assert (section.tables[-1].columns, section.tables[-1].rows[0].cells) == (("x", "y"), ("1", "2"))
    assert section.notes == (f"{folder / 'figure5.png'} is no PNG picture",)


# ------------------------------------------------------------------------------------------------ one whole file


def test_the_page_is_one_small_file_that_refers_to_nothing(sweep, reproduced, report, tmp_path):
    done = report(sweep, reproduced, "--out", tmp_path / "page.html")
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith(f"written to {tmp_path / 'page.html'}: 3 sections, ")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert len(text) < 500_000
    for address in re.findall(r"(?:src|href)\s*=\s*\"([^\"]*)\"|url\(([^)]*)\)|@import", text):
        assert "".join(address).startswith(("#", "data:"))
    assert set(re.findall(r"https?://[^\"'\s<]+", text)) == {"http://www.w3.org/2000/svg"}
    ids = re.findall(r"\bid=\"([^\"]*)\"", text)
    assert len(ids) == len(set(ids))
    wanted = re.findall(r"href=\"#([^\"]*)\"|url\(#([^)]*)\)|aria-labelledby=\"([^\"]*)\"", text)
    assert {"".join(names) for names in wanted} <= set(ids)


def test_the_same_runs_give_the_same_bytes(sweep, report, tmp_path):
    for name in "ab":
        assert report(sweep, "--out", tmp_path / f"{name}.html").status == 0
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_runs_are_found_two_folders_deep_and_once(sweep, report, tmp_path):
    shutil.copytree(sweep, tmp_path / "a" / "b")
    shutil.copytree(sweep, tmp_path / "a" / "b" / "deep")
    assert [section.path for section in collect([tmp_path])] == [str(tmp_path / "a" / "b")]
    found = collect([tmp_path, tmp_path / "a"])
    assert [section.path for section in found] == [
        str(tmp_path / "a" / "b"),
        str(tmp_path / "a" / "b" / "deep"),
    ]
    assert report(tmp_path).status == 0
    assert (tmp_path / "report.html").exists()


# ---------------------------------------------------------------------------------------- unfinished, damaged, wrong


def test_an_unfinished_sweep_says_so(sweep, copy):
    (copy / "summary.csv").unlink()
    lines = (copy / "results.csv").read_text().splitlines(keepends=True)
    (copy / "results.csv").write_text(
        "".join(lines[: 1 + 3 * 4])
    )  # two points of two variants on three chips
    (section,) = collect([copy])
    assert "the sweep is not finished: 2 of 4 points are there" in section.notes
    whole = collect([sweep])[0]
    for table, of_whole in zip(section.tables, whole.tables, strict=True):
        assert len(table.rows) == 2
        for row, finished in zip(table.rows, of_whole.rows, strict=False):
            assert row.cells[0] == finished.cells[0]
            assert row.cells[4:] == finished.cells[4:]
    (copy / "results.csv").unlink()
    assert "the sweep has no results yet" in collect([copy])[0].notes
    assert "no results yet" in render_page(collect([copy]))


SPOILT = {
    "no JSON": ("sweep.json", "{", "cannot be read as a sweep's description"),
    "no configuration": ("sweep.json", "{}", "configuration is missing"),
    "a list": ("sweep.json", "[]", "cannot be read"),
    "no points": ("sweep.json", '{"configuration": {}}', "says nothing about its points"),
    "no column": ("summary.csv", "variant\nx\n", "is missing"),
    "a long row": ("summary.csv", "variant\nx,y\n", "another number of cells"),
    "no CSV": ("summary.csv", 'variant\n"x', "cannot be read"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_damaged_sweep_is_an_error_alone_and_a_note_beside_others(copy, sweep, report, name):
    file, content, complaint = SPOILT[name]
    (copy / file).write_text(content)
    done = report(copy)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("faultsim: error: ")
    assert complaint in done.err
    assert done.err.count("\n") == 1
    assert not (copy / "report.html").exists()
    shutil.copytree(sweep, copy / "good")
    damaged, _good = collect([copy])
    assert damaged.kind == "Damaged"
    assert complaint in damaged.notes[0]


@pytest.mark.parametrize("number", ["nan", "inf", "1.5", "-0.1", "x", "1e300", ""])
def test_numbers_that_are_no_accuracies_are_refused(copy, number):
    rows = summary(copy)
    rows[0]["mean"] = number
    with (copy / "summary.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(FaultsimError, match=r"summary\.csv is damaged"):
        collect([copy])


def test_damaged_results_and_logs_are_noted(reproduced, tmp_path):
    folder = Path(shutil.copytree(reproduced, tmp_path / "run"))
    files = sorted(folder.glob("result-*.json"))
    files[0].write_text("{}")
    found = json.loads(files[1].read_text())
    del found["configuration"]["base"]["recipe"]
    files[1].write_text(json.dumps(found))
    (folder / "bad.log.jsonl").write_text('{"epoch": "<b>"}\n')
    (folder / "stranger.json").write_text("[]")
    section, training = collect([folder], READERS)
    assert len(section.notes) == 3
    assert "is no result that faultsim wrote" in section.notes[0]
    assert section.notes[1] == f"{files[1]} doesn't say how its result was obtained"
    assert section.notes[2] == "no result is finished yet"
    assert "bad.log.jsonl is no training log" in training.notes[0]
    assert training.notes[1] == "not shown, for faultsim doesn't know what they are: stranger.json"
    assert "not shown" in render_page([section, training])


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("missing",), "missing is not there: give a run directory"),
        (("file",), "file is no directory"),
        (("empty",), "empty holds no run: give a directory that sweep-voltage"),
        (("empty", "empty"), "several directories? add --out FILE.html"),
        (("empty", "--out", "page.pdf"), "must end in .html"),
        ((), "Missing argument"),
    ],
)
def test_wrong_words_are_one_line(report, tmp_path, monkeypatch, arguments, complaint):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    done = report(*arguments)
    assert (done.status, done.out) == (2, "")
    assert complaint in done.err
    assert done.err.count("\n") == 1


def test_a_page_that_cannot_be_written_is_one_line(sweep, report, tmp_path):
    (tmp_path / "file").write_text("x")
    done = report(sweep, "--out", tmp_path / "file" / "page.html")
    assert done.status == 2
    assert done.err.startswith("faultsim: error: cannot write ")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["configuration", "points", "curve", "chips", "faults", "epoch"]), inner
        )
    ),
    max_leaves=8,
)


@given(what=JSON, rows=st.text(alphabet='variant,0.9"\n\0é', max_size=60), known=st.booleans())
@settings(max_examples=40)
def test_whatever_the_files_hold_there_is_a_page_or_a_clear_error(tmp_path_factory, sweep, what, rows, known):
    folder = tmp_path_factory.mktemp("any")
    shutil.copy(sweep / "summary.csv", folder)
    if not known:
        (folder / "summary.csv").write_text(rows, encoding="utf-8")
    (folder / "sweep.json").write_text(json.dumps(what, ensure_ascii=True))
    (folder / "reproduce.json").write_text(json.dumps(what))
    (folder / "x.log.jsonl").write_text(json.dumps(what))
    with contextlib.suppress(FaultsimError):  # anything else is a failure
        sections = collect([folder], READERS)
        render_page([Section(s.title, s.kind, s.path, facts=s.facts, notes=s.notes) for s in sections])


def test_what_comes_from_files_is_never_markup():
    hostile = "</script><script>alert(1)</script><img src=x onerror=alert(1)>$\\frac{\ud800\0]]>"
    points = (Point(1.0, 50.0, (hostile, hostile)),)
    chart = Chart(
        hostile, "x", "y", (Series(hostile, points), Series(hostile, points)), categories=(hostile,)
    )
    section = Section(
        hostile, hostile, hostile, facts=((hostile, hostile),), charts=(chart,), notes=(hostile,),
        tables=(Table(hostile, (hostile, hostile), (), notes=(hostile,)),), pictures=((hostile, b"x"),),
        configuration=hostile,
    )  # fmt: skip
    text = render_page([section, section])
    assert text.count("<script>") == text.count("</script>") == 1
    assert "<img src=x" not in text
    assert text.encode("utf-8")


# ------------------------------------------------------------------------------------------------- comparisons


def test_a_comparison_is_told_by_operating_point(tmp_path):
    """Every number is that of summary.csv; lower bounds are hollow, and the front is found with and without them."""
    subject = load_subject(images=20)
    labels = ["secded:zero", "secded:keep", "robust-bits:2", "robust-bits:4", "parity:word", "bit-masking"]
    given = {"secded:zero": 0.0, "robust-bits:4": 0.5}
    compare(subject, labels, 2, voltages=[0.86, 0.8], overheads=given, out=tmp_path / "run")
    (section,) = collect([tmp_path / "run"])
    rows = summary(tmp_path / "run")
    assert section.kind == "Comparison"
    assert [table.caption for table in section.tables] == [
        "voltage 0.86, bit error rate 0.2 %",
        "voltage 0.8, bit error rate 5.1 %",
    ]
    best: dict[bool, float] = {}
    for row in sorted(rows, key=lambda row: (float(row["energy_per_inference"]), -float(row["mean"]))):
        for partly in (False, True):
            if (partly or not row["uncounted"]) and float(row["mean"]) > best.get(partly, -1):
                best[partly] = float(row["mean"])
                row["front"] = ", ".join(filter(None, ["all" if partly else "counted", row.get("front")]))
    for table, voltage in zip(section.tables, ("0.86", "0.8"), strict=True):
        mine = {row["variant"]: row for row in rows if row["voltage"] == voltage}
        energies = [float(mine[shown.cells[0]]["energy_per_inference"]) for shown in table.rows]
        assert energies == sorted(energies)
        for shown in table.rows:
            row = mine[shown.cells[0]]
            energy = f"{100 * (1 - float(row['energy_saving'])):.1f} %"
            assert shown.cells[1] == (f"≥ {energy}" if row["uncounted"] else energy)
            assert shown.cells[2] == f"{100 * float(row['mean']):.2f}"
            assert shown.cells[5] == row.get("front", "")
        assert all(row["uncounted"] in table.notes[1] for row in mine.values())
    hollow = {series.name for series in section.charts[0].series if series.hollow}
    assert hollow == {row["variant"] for row in rows if row["uncounted"]}
    assert "secded:zero" not in hollow
    page = render_page([section])
    assert page.count('class="mark hollow"') >= len(hollow)


def test_colors_of_series_can_be_seen():
    """Of all themes of the page: at least 3 to 1 against the paper behind them (WCAG 1.4.11)."""

    def light(color: str) -> float:
        channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    css = (Path(page_module.__file__).parent / "page.css").read_text()
    themes = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    assert len(themes) == 3
    for theme in themes:
        names = dict(re.findall(r"--([\w-]+): (#[0-9a-f]+);", theme))
        card = names["card"] if len(names["card"]) == 7 else "#" + "".join(2 * c for c in names["card"][1:])
        for index in range(len(COLORS)):
            pair = sorted((light(names[f"series-{index}"]), light(card)))
            assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 3, (index, card)
