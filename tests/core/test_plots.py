"""Pictures show the data that they were made of, and are the same bytes for the same data."""

import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread

from faultsim.chips.chip_map import find_failing_cells
from faultsim.errors import FaultsimError
from faultsim.faults import Chip, FaultModel
from faultsim.show import plots
from faultsim.sram import ArrayGeometry
from faultsim.voltage import VoltageCurve

CURVES = {
    "default": VoltageCurve.default(),
    "all faulty": VoltageCurve("f", (1.0, 0.9), (1e-3, 1e-2), (2.0, 1.0)),
    "all clean": VoltageCurve("c", (0.9, 0.7), (0.0, 0.0), (2.0, 1.0)),
    "one error": VoltageCurve("o", (0.9, 0.7), (0.0, 0.1), (1.0, 1.0)),
}


@pytest.mark.parametrize("name", CURVES)
def test_the_curves_shown_are_the_curve(name):
    curve = CURVES[name]
    rates, energies = plots.draw_curve(curve).axes
    for axes, question in ((rates, curve.bit_error_rate), (energies, curve.energy_per_access)):
        for line in axes.lines[:2]:  # the curve and its points
            x, y = line.get_data()
            assert [question(v) for v in x] == pytest.approx(list(y))
    if curve.bit_error_rates[-1] > 0:
        assert rates.get_yscale() == "log"
        assert max(rates.lines[0].get_ydata()) == curve.bit_error_rates[-1]
    for axes in (rates, energies):
        assert axes.get_title()
        assert "voltage" in axes.get_xlabel()
        assert axes.get_ylabel()


@pytest.mark.parametrize("kind", ["flip", "stuck_at_random"])
def test_the_cells_shown_are_the_failing_ones(kind):
    cells = find_failing_cells(Chip(7), 3, 0.01, FaultModel(kind))
    figure = plots.draw_chip(cells, [2, 0])
    for axes, index in zip(figure.axes, (2, 0), strict=True):
        image, here = np.asarray(axes.images[0].get_array()), cells.in_array(index)
        assert image.shape == (64, 512)
        assert np.count_nonzero(image) == len(here)
        for state, color in ((-1, 1), (0, 2), (1, 3)):
            chosen = here.stuck_at == state
            assert (image[here.column[chosen], here.row[chosen]] == color).all()
        assert axes.get_title(loc="left").startswith(f"array {index}: {len(here)} of 32,768")
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == (["inverted"] if kind == "flip" else ["stuck at 0", "stuck at 1"])


def test_the_same_data_are_the_same_bytes_whatever_the_users_style(tmp_path):
    plots.save(plots.draw_curve(CURVES["default"]), tmp_path / "a.png")
    with matplotlib.rc_context(
        {"font.size": 30, "axes.facecolor": "black", "savefig.dpi": 10, "lines.linewidth": 9}
    ):
        plots.save(plots.draw_curve(CURVES["default"]), tmp_path / "b.png")
    data = (tmp_path / "a.png").read_bytes()
    assert data == (tmp_path / "b.png").read_bytes()
    assert imread(tmp_path / "a.png").shape == (600, 1350, 4)
    assert b"tEXt" not in data  # no date, no version


def test_arrays_of_other_shapes_and_without_faults(tmp_path):
    from faultsim.sram import SRAM

    for rows, columns in ((64, 512), (1, 8), (4096, 8)):
        geometry = ArrayGeometry(rows, columns)
        cells = find_failing_cells(Chip(1), 2, 0.0, FaultModel(memory=SRAM("tiled", 65536, geometry)))
        plots.save(plots.draw_chip(cells, [1]), tmp_path / "a.png")
        assert imread(tmp_path / "a.png").shape[1] == 1650


def test_pictures_that_cannot_be(tmp_path):
    cells = find_failing_cells(Chip(1), 2, 0.01)
    with pytest.raises(FaultsimError, match="arrays 0 to 1"):
        plots.draw_chip(cells, [2])
    for arrays in ([], [0] * 17):
        with pytest.raises(FaultsimError, match="1 to 16"):
            plots.draw_chip(cells, arrays)
    with pytest.raises(FaultsimError, match=r"must end in \.png"):
        plots.save(plots.draw_chip(cells), tmp_path / "a.jpg")
    assert list(tmp_path.iterdir()) == []
