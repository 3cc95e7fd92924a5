"""Maps of failing cells: the same faults as the kernel's, and what is read through them."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from faultsim.chips.chip_map import find_failing_cells, map_chip
from faultsim.chips.fault_map import FaultMap
from faultsim.chips.measured_chip import MeasuredChip
from faultsim.errors import FaultsimError
from faultsim.faults import Chip, FaultModel
from faultsim.kernel import ops, reference
from faultsim.sram import SRAM, ArrayGeometry, Placement
from faultsim.voltage import VoltageCurve
from tests.core.fault_maps import CURVE, KINDS, NAN, REFERENCE, SMALL, fault_maps, of_cells

# -- the map of a simulated chip -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_cells_are_those_of_the_reference(kind):
    found = find_failing_cells(Chip(2**64 - 3), 3, 0.01, FaultModel(kind))
    assert found.arrays == 3
    name, ones = REFERENCE[kind]
    for array in range(3):
        failing, states = reference.draw_block(2**64 - 3, array, 0.01, name, ones)
        here = found.in_array(array)
        cells = np.flatnonzero(failing)
        assert np.array_equal(here.row * 64 + here.column, cells)
        expected = np.full(len(cells), -1) if kind == "flip" else states[cells].astype(int)
        assert np.array_equal(here.stuck_at, expected)
        assert np.isnan(here.voltage).all()


def test_the_memory_decides_how_many_arrays_there_are():
    assert find_failing_cells(Chip(1), None, 0.001).arrays == 64
    assert find_failing_cells(Chip(1), None, 0.001, FaultModel.preset("neuralfuse_2022")).arrays == 32
    assert find_failing_cells(Chip(1), None, 0.001, FaultModel(memory=SRAM("tiled", 8192))).arrays == 2
    more = find_failing_cells(Chip(1), 300, 0.001)
    assert more.arrays == 300
    assert more.in_array(299).array.size > 0


def test_arrays_of_another_shape_are_the_same_bits():
    paper = find_failing_cells(Chip(5), 6, 0.01)
    other = find_failing_cells(
        Chip(5), 8, 0.01, FaultModel(memory=SRAM("tiled", 24576, ArrayGeometry(96, 256)))
    )
    assert paper.bytes == other.bytes
    assert all(np.array_equal(a, b) for a, b in zip(paper.masks(), other.masks(), strict=True))


@pytest.mark.parametrize(("rate", "cells"), [(0.0, 0), (1.0, 65536)])
def test_no_cell_and_every_cell(rate, cells):
    assert len(find_failing_cells(Chip(1), 2, rate, FaultModel("stuck_at_random"))) == cells


@pytest.mark.parametrize("kind", KINDS)
def test_each_cell_has_the_highest_voltage_at_which_it_fails(kind):
    voltages = [0.83, 0.95, 0.78, 0.88]
    whole = map_chip(Chip(7), voltages, CURVE, 8, FaultModel(kind))
    assert set(whole.voltage) == set(voltages)
    for voltage in voltages:
        expected = find_failing_cells(Chip(7), 8, CURVE.bit_error_rate(voltage), FaultModel(kind))
        found = whole.at(voltage)
        assert all(np.array_equal(a, b) for a, b in zip(found.masks(), expected.masks(), strict=True))


def test_one_voltage_above_all_errors_gives_an_empty_map():
    empty = map_chip(Chip(7), [1.0], arrays=2)
    assert (len(empty), empty.lowest_voltage) == (0, 1.0)


def test_chips_without_a_map():
    with pytest.raises(FaultsimError, match="transient faults differ from read to read"):
        find_failing_cells(Chip(1), 1, 0.1, FaultModel("transient"))
    with pytest.raises(FaultsimError, match="take fewer arrays"):
        find_failing_cells(Chip(1), 100_000, 0.1)
    with pytest.raises(FaultsimError, match="at least one array"):
        find_failing_cells(Chip(1), 0, 0.1)
    with pytest.raises(FaultsimError, match="at most 1 GiB"):
        find_failing_cells(Chip(1), 10**9, 0.0)
    with pytest.raises(FaultsimError, match="at least one voltage"):
        map_chip(Chip(1), [])


# -- what a map means ----------------------------------------------------------------------------------------


@given(fault_maps(), st.integers(0, 2**32))
def test_masks_read_each_bit_as_its_cell_says(fault_map, seed):
    stored = np.random.default_rng(seed).integers(0, 256, fault_map.bytes, np.uint8)
    bits = np.unpackbits(stored, bitorder="little").reshape(
        fault_map.arrays, fault_map.geometry.rows, fault_map.geometry.columns
    )
    for a, r, c, state in zip(
        fault_map.array, fault_map.row, fault_map.column, fault_map.stuck_at, strict=True
    ):
        bits[a, r, c] = 1 - bits[a, r, c] if state < 0 else state
    clear, ones, flip = fault_map.masks()
    assert np.array_equal(((stored & ~clear) | ones) ^ flip, np.packbits(bits.reshape(-1), bitorder="little"))


@given(fault_maps(), st.floats(0.1, 2), st.floats(0.1, 2))
def test_lower_voltages_only_add_cells(fault_map, a, b):
    a, b = (max(v, fault_map.lowest_voltage or v) for v in (a, b))
    low, high = fault_map.at(min(a, b)), fault_map.at(max(a, b))
    assert high == low.at(max(a, b))
    assert len(high) == sum(not v < max(a, b) for v in fault_map.voltage.tolist())


def test_cells_are_sorted_and_cannot_be_changed():
    shuffled = of_cells((0.9, 3, 511, 63, 1), (NAN, 0, 0, 3, -1), (0.83, 0, 0, 4, 0))
    assert shuffled == SMALL
    assert shuffled != replace(SMALL, source="elsewhere")
    assert SMALL.array.tolist() == [0, 0, 3]
    assert [getattr(SMALL, name).dtype.name for name in ("array", "row", "column", "stuck_at", "voltage")] == [
        "int32", "int32", "int32", "int8", "float64",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="read-only"):
        SMALL.row[0] = 1
    assert SMALL.bit_error_rate == 3 / (4 * 32768)


@pytest.mark.parametrize(
    ("cell", "complaint"),
    [
        ((NAN, 4, 0, 0, 0), "cell 1: array 4 is outside 0 to 3"),
        ((NAN, -1, 0, 0, 0), "cell 1: array -1 is outside"),
        ((NAN, 0, 512, 0, 0), "row 512 is outside 0 to 511"),
        ((NAN, 0, 0, 64, 0), "column 64 is outside 0 to 63"),
        ((NAN, 0, 0, 0, 2), "stuck_at 2 must be 0, 1"),
        ((0.0, 0, 0, 0, 0), "voltage 0.0 must be"),
        ((math.inf, 0, 0, 0, 0), "voltage inf must be"),
        ((0.9, 1, 1, 1, 0), "cell 1: array 1, row 1, column 1 was named before"),
        ((NAN, 2**31, 0, 0, 0), "is outside 0 to 3"),
    ],
)
def test_cells_that_cannot_be(cell, complaint):
    with pytest.raises(FaultsimError) as error:
        of_cells((0.8, 1, 1, 1, 1), cell)
    assert complaint in str(error.value)


def test_arrays_that_do_not_make_a_map():
    empty, one = np.empty(0, int), np.zeros(1, int)
    with pytest.raises(FaultsimError, match="of one length"):
        FaultMap(empty, one, one, one, one, 1)
    with pytest.raises(FaultsimError, match="row must be integers, not float64"):
        FaultMap(one, one.astype(float), one, one, one, 1)
    with pytest.raises(FaultsimError, match="voltage must be numbers"):
        FaultMap(one, one, one, one, np.array(["high"]), 1)
    with pytest.raises(FaultsimError, match="one line"):
        FaultMap(one, one, one, one, one + 1.0, 1, source="two\nlines")


def test_questions_that_a_map_cannot_answer():
    with pytest.raises(FaultsimError, match="say at which voltage"):
        SMALL.at(None)
    assert len(find_failing_cells(Chip(1), 1, 0.01).at(None)) > 0
    for voltage in (0.0, -1.0, NAN, math.inf):
        with pytest.raises(FaultsimError, match="finite number above 0"):
            SMALL.at(voltage)
    with pytest.raises(FaultsimError, match="arrays 0 to 3"):
        SMALL.in_array(4)


def test_below_the_lowest_measured_voltage_nothing_is_known():
    for voltage in (0.82, 0.83 * (1 - 1e-15)):
        with pytest.raises(FaultsimError, match=r"below 0\.83, the lowest that was measured"):
            SMALL.at(voltage)
    with pytest.raises(FaultsimError, match=r"below 0\.85, the lowest"):
        SMALL.at(0.85).at(0.83)  # what is left of a map knows no more than was asked of it
    assert SMALL.in_array(3).lowest_voltage == 0.83
    always = of_cells((NAN, 0, 0, 3, -1))
    assert always.at(0.1) == always


@pytest.mark.parametrize("ending", ["npz", "csv"])
def test_a_map_knows_the_lowest_voltage_where_no_cell_tells(tmp_path, ending):
    curve = VoltageCurve("plateau", (1.0, 0.9, 0.8), (0.0, 0.01, 0.01), (1.0, 0.9, 0.8))
    plain = map_chip(Chip(7), [0.9], curve, 2)
    whole = map_chip(Chip(7), [0.9, 0.8], curve, 2)  # the same cells at 0.8, each from 0.9 down
    assert (whole.lowest_voltage, set(whole.voltage)) == (0.8, {0.9})
    assert whole != plain
    path = tmp_path / f"a.{ending}"
    whole.save(path)
    assert FaultMap.load(path) == whole
    assert len(FaultMap.load(path).at(0.8)) == len(whole)
    plain.save(path)
    with pytest.raises(FaultsimError, match=r"below 0\.9, the lowest"):
        FaultMap.load(path).at(0.8)


# -- reading through a map -----------------------------------------------------------------------------------


@pytest.mark.parametrize("placement", ["unlimited", "tiled", "tiled_per_layer", "neuralfuse_2022"])
@pytest.mark.parametrize("kind", ["flip", "stuck_at_random"])
def test_a_measured_chip_reads_as_the_chip_it_was_measured_on(placement, kind):
    faults = FaultModel(kind, SRAM(placement, 32 * 4096))
    measured = MeasuredChip(map_chip(Chip(7), [0.80, 0.85], CURVE, 160, faults))
    weights = torch.arange(600_001, dtype=torch.int32).mul(37).to(torch.int8)
    for voltage, base in ((0.80, 0), (0.85, 40_008)):
        rate = CURVE.bit_error_rate(voltage)
        where = (
            ops.encode_chips([Chip(7)]),
            ops.encode_rate(rate),
            ops.encode_kind(faults),
            ops.encode_addresses(faults, base),
        )
        expected = torch.ops.faultsim.corrupt(weights, *where)[0]
        assert torch.equal(measured.read(weights, voltage, faults, base), expected)
        assert not torch.equal(expected, weights)


@pytest.mark.parametrize("dtype", ops.FLOATS)
@pytest.mark.parametrize("kind", ["flip", "stuck_at_random"])
def test_a_read_that_is_dequantized_is_that_of_the_chip_it_was_measured_on(device, kind, dtype):
    faults = FaultModel(kind, SRAM("tiled", 8 * 4096))
    measured = MeasuredChip(find_failing_cells(Chip(7), 8, 0.02, faults))
    weights = torch.arange(60_000, dtype=torch.int32).mul(37).to(torch.int8).view(6, 100, 100)
    for axis, scale in ((-1, torch.tensor(0.03)), (1, torch.linspace(0.01, 0.09, 100))):
        found = torch.empty(weights.shape, dtype=dtype, device=device)
        measured.read_dequantized(weights.to(device), scale.to(device), axis, found, None, faults, 40)
        spread = scale.reshape([-1, 1]) if axis >= 0 else scale
        expected = (measured.read(weights, None, faults, 40).float() * spread).to(dtype)
        assert torch.equal(found.cpu(), expected)
        place = ops.encode_kind(faults), ops.encode_addresses(faults, 40)
        drawn = torch.ops.faultsim.corrupt_dequantize(
            weights, scale, axis, dtype, ops.encode_chips([Chip(7)]), ops.encode_rate(0.02), *place
        )
        assert torch.equal(found.cpu(), drawn[0])


def test_each_device_reads_the_same(device):
    measured = MeasuredChip(map_chip(Chip(7), [0.80], CURVE, 32, FaultModel("stuck_at_random")))
    weights = torch.arange(300_001, dtype=torch.int32).to(torch.int8)
    faults = FaultModel.preset("neuralfuse_2022")
    expected = measured.read(weights, 0.80, faults)
    found = measured.read(weights.to(device), 0.80, faults)
    assert found.device.type == device
    assert torch.equal(found.cpu(), expected)


def test_strides_do_not_matter_and_weights_stay():
    measured = MeasuredChip(find_failing_cells(Chip(3), 64, 0.05))
    weights = torch.arange(-128, 127, dtype=torch.int8).repeat(8)[:2000].view(10, 4, 5, 10)
    before = weights.clone()
    expected = measured.read(weights, None)
    strided = weights.to(memory_format=torch.channels_last)
    assert torch.equal(measured.read(strided, None), expected)
    assert torch.equal(weights, before)
    assert measured.read(weights[:0], None).shape == (0, 4, 5, 10)


def test_weights_beyond_the_measured_memory():
    measured = MeasuredChip(find_failing_cells(Chip(3), 2, 0.05), "lab")
    weights = torch.zeros(8193, dtype=torch.int8)
    with pytest.raises(
        FaultsimError, match="'lab' covers 8,192 bytes of memory, the weights take 8,193: use tiled"
    ):
        measured.read(weights, None)
    with pytest.raises(FaultsimError, match="use tiled"):
        measured.read(weights[:1], None, base=8192)
    with pytest.raises(FaultsimError, match="use tiled"):  # 64 arrays of capacity, 2 of them measured
        measured.read(weights, None, FaultModel(memory=SRAM("tiled")))
    assert measured.read(weights, None, FaultModel(memory=SRAM("tiled", 8192))).shape == weights.shape
    assert measured.read(weights, None, FaultModel.preset("neuralfuse_2022")).shape == weights.shape
    with pytest.raises(TypeError, match="must be int8"):
        measured.read(weights.float(), None)


def test_voltages_do_not_mix():
    measured = MeasuredChip(SMALL)
    zeros = torch.zeros(4 * 4096, dtype=torch.int8)
    assert [int((measured.read(zeros, v) != 0).sum()) for v in (0.95, 0.9, 0.95, 0.83)] == [1, 2, 1, 2]
    ones = torch.full((4 * 4096,), -1, dtype=torch.int8)
    assert measured.read(ones, 0.83)[0] == -1 - 8 - 16  # bit 3 inverted, bit 4 stuck at 0


def test_labels(tmp_path):
    SMALL.save(tmp_path / "wafer 12.npz")
    assert MeasuredChip.load(tmp_path / "wafer 12.npz").label == "wafer 12"
    assert MeasuredChip(SMALL).label == "measured"
    assert MeasuredChip(replace(SMALL, source="lab")).label == "lab"


@pytest.mark.parametrize("place", [Placement.UNLIMITED, Placement.TILED, Placement.NEURALFUSE_2022])
@pytest.mark.parametrize("rows", [512, 96])  # arrays are blocks of the kernel, or a part of one
@pytest.mark.parametrize("base", [0, 5, 4099])
def test_the_kernel_reads_a_map_as_its_masks_say(engine, place, rows, base):
    """Cells that are stuck and cells that invert in one map, also where the tensor begins inside a word."""
    generator = np.random.default_rng(base)
    geometry = ArrayGeometry(rows, 64)
    bits = generator.choice(40 * geometry.cells, 40 * geometry.cells // 20, replace=False)
    states = generator.integers(-1, 2, bits.size)
    found = FaultMap(*geometry.locate(bits), states, np.full(bits.size, NAN), 40, geometry)
    memory = SRAM(place, 3 * 4096)
    layout = memory.address_map
    stored = generator.integers(-128, 128, 3 * 4096 if place is Placement.UNLIMITED else 250_001, np.int8)
    got = MeasuredChip(found).read(
        torch.from_numpy(stored).to(engine.device), None, FaultModel(memory=memory), base
    )
    at = reference.locate_weights(stored.size, base, layout.blocks, layout.word, layout.repeat)
    clear, ones, flip = (mask[at] for mask in found.masks())
    expected = ((stored.view(np.uint8) & ~clear) | ones) ^ flip
    assert np.array_equal(got.cpu().numpy().view(np.uint8), expected)
