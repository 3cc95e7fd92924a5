"""Fault maps that tests share: of a few cells, and any that Hypothesis thinks of."""

import math

import numpy as np
from hypothesis import strategies as st

from faultsim.chips.fault_map import FaultMap
from faultsim.sram import ArrayGeometry
from faultsim.voltage import VoltageCurve

CURVE = VoltageCurve.default()
KINDS = ["flip", "stuck_at_random", "stuck_at_0", "stuck_at_1"]
REFERENCE = {
    "flip": ("flip", 0.5),
    "stuck_at_random": ("stuck", 0.5),
    "stuck_at_0": ("stuck", 0.0),
    "stuck_at_1": ("stuck", 1.0),
}


@st.composite
def fault_maps(draw) -> FaultMap:
    geometry = ArrayGeometry(draw(st.integers(1, 20)), 8 * draw(st.integers(1, 4)))
    arrays = draw(st.integers(1, 4))
    bits = draw(st.lists(st.integers(0, arrays * geometry.cells - 1), unique=True, max_size=40))
    array, row, column = geometry.locate(np.array(bits, np.int64))
    n = len(bits)
    stuck_at = draw(st.lists(st.sampled_from([-1, 0, 1]), min_size=n, max_size=n))
    volts = st.one_of(st.just(math.nan), st.floats(0, exclude_min=True, allow_infinity=False))
    voltage = draw(st.lists(volts, min_size=n, max_size=n))
    words = st.lists(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1), max_size=4)
    return FaultMap(
        array,
        row,
        column,
        np.array(stuck_at, int),
        np.array(voltage, float),
        arrays,
        geometry,
        " ".join(draw(words)),
    )


def of_cells(*cells: tuple, arrays: int = 4, **more) -> FaultMap:
    """From (voltage, array, row, column, stuck_at)."""
    voltage, array, row, column, stuck_at = zip(*cells, strict=True)
    whole = (np.array(values) for values in (array, row, column, stuck_at))
    return FaultMap(*whole, np.array(voltage, float), arrays, **more)


NAN = math.nan
SMALL = of_cells((NAN, 0, 0, 3, -1), (0.83, 0, 0, 4, 0), (0.9, 3, 511, 63, 1))
