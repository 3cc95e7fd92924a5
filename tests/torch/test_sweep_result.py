"""Does a sweep from Python give records that pandas reads, the cheapest voltage, pictures, and tables that print?"""

import csv
import math
from html.parser import HTMLParser

import pytest
import torch
from torch import nn

from faultsim import Chip, FaultMap, FaultsimError, MeasuredChip, StoredWeights, VoltageCurve
from faultsim.data import OwnBatches
from faultsim.studies.subject import Subject
from faultsim.studies.sweep_result import OperatingPoint, Variant
from faultsim.studies.voltage_sweep import VOLTAGES, plan_points, sweep, sweep_subject

AT = (1.0, 0.83, 0.8)


@pytest.fixture(scope="module")
def linear():
    """A linear classifier of its own answers: without bit errors every answer is right."""
    torch.manual_seed(0)
    model = nn.Linear(64, 10)
    inputs = torch.randn(200, 64)
    from faultsim import perturbed

    with torch.no_grad(), perturbed(model, Chip(0), bit_error_rate=0.0):
        labels = model(inputs).argmax(1)
    return model, [(inputs[:150], labels[:150]), (inputs[150:], labels[150:])]


@pytest.fixture(scope="module")
def result(linear):
    return sweep(*linear, range(5), voltages=AT, variants=[Variant(), Variant("twice", nn.Identity(), 100)])


def test_a_data_frame_in_one_line(result):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(result.rows())
    assert list(frame["variant"]) == ["unprotected", "twice"] * 3
    assert frame["mean"].iloc[0] == 1.0
    assert set(frame["placement"]) == {"unlimited"}


def test_rows_are_flat_and_say_what_was_measured(result):
    rows = result.rows()
    assert len(rows) == len(result) == 6
    assert all(isinstance(value, str | int | float | None) for row in rows for value in row.values())
    for row, record in zip(rows, result, strict=True):
        values = record.evaluation.values
        assert row["mean"] == pytest.approx(sum(values) / 5)
        assert (row["worst"], row["best"]) == (min(values), max(values))
        assert row["voltage"] == record.point.voltage
    chips = result.chip_rows()
    assert [row["correct"] for row in chips] == [n for record in result for n in record.evaluation.correct]
    assert [row["chip"] for row in chips[:5]] == ["0", "1", "2", "3", "4"]


def test_energy_is_counted_by_itself_and_can_be_left_out(linear, result):
    # 640 weights of a 64x10 layer: the paper's accelerator reads whole words, so at least as many weights
    assert result.accesses > 0
    assert result[0].energy_saving == 0.0
    assert result[1].energy_saving == pytest.approx(-100 / result.accesses)
    assert all(row["energy_saving"] is None for row in sweep(*linear, [1], voltages=AT, accesses=None).rows())


def test_cheapest_is_the_least_energy_of_those_that_are_accurate(result):
    for floor in (0.01, 0.9, 1.0):
        enough = [row for row in result if row.evaluation.mean >= floor]
        best = result.cheapest(floor)
        assert best is max(enough, key=lambda row: row.energy_saving)
        assert result.cheapest(floor, "twice").variant == "twice"
    assert result.cheapest(0.01).point.voltage == 0.8


def test_cheapest_refuses_what_it_cannot_know(linear, result):
    with pytest.raises(FaultsimError, match="above 0 and at most 1"):
        result.cheapest(90)
    with pytest.raises(FaultsimError, match="were not counted"):
        sweep(*linear, [1], voltages=AT, accesses=None).cheapest(0.5)
    with pytest.raises(FaultsimError, match="cross entropy"):
        sweep(*linear, [1], voltages=AT, metric="cross_entropy").cheapest(0.5)


class Cells(HTMLParser):
    """The texts of a page's table cells; every element is closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.cells = [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.cells.append(data)


def test_it_prints_in_a_terminal_and_in_a_notebook(result):
    text, cells = repr(result), Cells(result._repr_html_()).cells
    assert max(map(len, text.splitlines())) <= 80
    for row in result:
        number = f"{100 * row.evaluation.mean:.2f} ±{100 * row.evaluation.std:.2f}"
        assert number in text
        assert number in cells
    assert "gain" in cells
    assert "faults: flip, unlimited placement, curve '14nm'" in text


def test_markup_in_a_name_is_text(linear):
    found = sweep(*linear, [1], voltages=[1.0], title="<b>me</b>")
    assert "&lt;b&gt;me&lt;/b&gt;" in found._repr_html_()


def test_an_evaluation_prints_and_gives_rows(result):
    evaluation = result[-1].evaluation
    assert f"accuracy {100 * evaluation.mean:.2f} %" in repr(evaluation)
    assert "5 chips, 200 samples" in repr(evaluation)
    assert [row["accuracy"] for row in evaluation.rows()] == list(evaluation.values)
    assert f"{100 * evaluation.worst:.2f}" in Cells(evaluation._repr_html_()).cells


def test_pictures(result, tmp_path):
    figure = result.plot(tmp_path / "sweep.svg")
    assert (tmp_path / "sweep.svg").read_text(encoding="utf-8").startswith("<?xml")
    assert len(figure.axes) >= 2
    with pytest.raises(FaultsimError, match="must end in"):
        result.plot(tmp_path / "sweep.txt")


def test_a_subject_from_python_keeps_its_results_and_goes_on(linear, tmp_path):
    model, batches = linear
    subject = Subject("mine", model, StoredWeights.of(model), OwnBatches(batches, "my data"))
    calls = []
    found = sweep_subject(subject, 3, voltages=AT, out=tmp_path / "run", progress=calls.append)
    with (tmp_path / "run" / "summary.csv").open(encoding="utf-8", newline="") as file:
        written = list(csv.DictReader(file))
    assert [float(row["mean"]) for row in written] == [row["mean"] for row in found.rows()]
    assert (tmp_path / "run" / "sweep.png").exists()
    assert calls
    calls.clear()
    again = sweep_subject(subject, 3, voltages=AT, out=tmp_path / "run", progress=calls.append)
    assert again.records == found.records
    assert not calls, "nothing was computed again"
    with pytest.raises(FaultsimError, match="another configuration"):
        sweep_subject(subject, 3, voltages=AT, seed=1, out=tmp_path / "run")
    assert found.as_dict()["configuration"]["model"] == "mine"


def test_data_that_can_be_read_only_once_is_refused(linear):
    model, batches = linear
    with pytest.raises(FaultsimError, match="not an iterator"):
        sweep(model, iter(batches), [1], voltages=AT)
    with pytest.raises(FaultsimError, match="no images"):
        sweep(model, [], [1], voltages=AT)


def test_plans():
    curve = VoltageCurve.default()
    assert [point.voltage for point in plan_points()] == sorted(VOLTAGES, reverse=True)
    assert plan_points(voltages=[0.83]) == [OperatingPoint(0.83, 0.01, curve.energy_per_access(0.83))]
    lost = plan_points(bit_error_rates=[0.9])[0]
    assert (lost.voltage, str(lost)) == (None, "BER 90 %")
    assert str(plan_points(bit_error_rates=[0.01])[0]) == "V = 0.83"
    for bad in ({"voltages": [0.8], "bit_error_rates": [0.1]}, {"voltages": []}, {"bit_error_rates": [2.0]}):
        with pytest.raises(FaultsimError):
            plan_points(**bad)


def test_plans_of_measured_chips_end_where_the_measurement_did():
    cells = FaultMap([0, 0], [1, 2], [3, 4], [-1, -1], [0.9, 0.86], arrays=1, lowest_voltage=0.84)
    chips = [MeasuredChip(cells, "a")]
    plan = plan_points(chips=chips)
    assert [point.voltage for point in plan] == [1.0, 0.95, 0.9, 0.86, 0.84]
    assert [round(point.bit_error_rate * 512 * 64) for point in plan] == [0, 0, 1, 2, 2]
    with pytest.raises(FaultsimError, match="not bit error rates"):
        plan_points(bit_error_rates=[0.1], chips=chips)


def test_one_chip_has_no_interval(linear):
    row = sweep(*linear, [7], voltages=[0.83]).rows()[0]
    assert math.isnan(row["ci95_low"])
