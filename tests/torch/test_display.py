"""How public objects look in a terminal and in a notebook."""

import xml.etree.ElementTree as ElementTree

import pytest
from torch import nn

from faultsim import Chip, MeasuredChip, StoredWeights, VoltageCurve, find_failing_cells
from faultsim.support.text_table import align_columns, format_html

MODEL = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 2))


def cells(html: str) -> list[list[list[str]]]:
    """The texts of each row of each table; the HTML must be well formed."""
    root = ElementTree.fromstring(f"<body>{html}</body>")
    return [
        [["".join(cell.itertext()) for cell in row] for row in table.iter("tr")]
        for table in root.iter("table")
    ]


def test_stored_weights_say_what_they_are():
    stored = StoredWeights.of(MODEL)
    assert len(stored) == 2
    assert repr(stored) == "StoredWeights(2 tensors; 140 of 140 weights lie in the faulty memory)"
    inside, outside = cells(stored._repr_html_())
    assert inside[0] == ["weight", "shape", "bytes", "arrays", "address"]
    assert inside[1:] == [["0.weight", "4x3x3x3", "108", "0", "0"], ["2.weight", "2x16", "32", "0", "112"]]
    assert outside[1:] == [["2 tensors", "6 in all", "a bias"]]


def test_curves_say_what_they_are():
    curve = VoltageCurve("lab <3>", [1.0, 0.9, 0.8], [0.0, 1e-4, 1e-2], [3.0, 2.5, 2.0], picojoules=True)
    assert repr(curve) == "VoltageCurve('lab <3>', 3 points from 0.8 to 1, v_min 1, picojoules)"
    (table,) = cells(curve._repr_html_())
    assert table[0][-1] == "energy per access, pJ"
    assert table[1:] == [["1", "0", "3"], ["0.9", "0.0001", "2.5"], ["0.8", "0.01", "2"]]
    many = VoltageCurve("many", [2000 - i for i in range(1000)], [0.0] * 1000, [1.0] * 1000)
    assert len(cells(many._repr_html_())[0]) <= 21


def test_lists_given_to_a_curve_become_tuples():
    lists = VoltageCurve("a", [1.0, 0.8], [0.0, 0.01], [1.0, 0.7])
    assert lists == VoltageCurve("a", (1.0, 0.8), (0.0, 0.01), (1.0, 0.7))
    assert len({lists, VoltageCurve(**lists.describe())}) == 1  # hashable


def test_maps_and_chips_say_what_they_are():
    found = find_failing_cells(Chip(7), 2, 0.001)
    assert repr(found) == (
        f"FaultMap({len(found)} failing cells in 2 arrays of 512x64, "
        "source 'chip 7, flip, bit error rate 0.001')"
    )
    assert repr(MeasuredChip(found, "lab")) == f"MeasuredChip('lab', {len(found)} cells in 2 arrays)"


@pytest.mark.parametrize("right", [(), (1,)])
def test_tables_cut_nothing_and_escape_text(right):
    rows = [("a & b", "1"), ("<i>", "1,000")]
    lines = align_columns(("name", "size"), rows, right)
    assert lines[1] == ("a & b      1" if right else "a & b  1")
    assert cells(format_html(("name", "size"), rows, right, 'say "hi"'))[0] == [
        ["name", "size"],
        *map(list, rows),
    ]
