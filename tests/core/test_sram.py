"""Where a bit of a weight lies, written down a second time from the definition of the memory."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faultsim.errors import FaultsimError
from faultsim.kernel.reference import locate_weights
from faultsim.sram import SRAM, ArrayGeometry, Placement

PAPER = SRAM()
GEOMETRIES = st.builds(ArrayGeometry, st.integers(1, 1024), st.integers(1, 32).map(lambda n: 8 * n))


def placed(placement: str, weights: int, base: int = 0, **memory: int) -> np.ndarray:
    addresses = SRAM(placement, **memory).address_map
    return locate_weights(weights, base, addresses.blocks, addresses.word, addresses.repeat)


def test_the_papers_memory_is_64_arrays_of_512_rows_and_64_columns():
    assert (PAPER.array.rows, PAPER.array.columns) == (512, 64)
    assert (PAPER.array.cells, PAPER.array.bytes) == (32768, 4096)
    assert PAPER.capacity_bytes == 64 * PAPER.array.bytes


@given(st.integers(0, 2**32), st.integers(0, 7))
def test_a_bit_of_a_byte_in_the_papers_array(byte, bit):
    expected = (byte // 4096, byte % 4096 // 8, 8 * (byte % 8) + bit)
    assert PAPER.array.locate(8 * byte + bit) == expected


@given(GEOMETRIES, st.integers(0, 2**40))
def test_every_cell_holds_one_bit(geometry, address):
    array, row, column = geometry.locate(address)
    assert 0 <= row < geometry.rows
    assert 0 <= column < geometry.columns
    assert (array * geometry.rows + row) * geometry.columns + column == address


def test_whole_arrays_are_located_at_once():
    array, row, column = ArrayGeometry(4, 16).locate(np.arange(128))
    assert array.tolist() == [0] * 64 + [1] * 64
    assert row.tolist() == [r for _ in range(2) for r in range(4) for _ in range(16)]
    assert column.tolist() == list(range(16)) * 8


# -- placements ----------------------------------------------------------------------------------------------


@given(st.integers(0, 5000), st.integers(0, 1 << 20))
def test_in_an_unlimited_memory_every_weight_has_cells_of_its_own(weights, base):
    assert placed("unlimited", weights, base).tolist() == list(range(base, base + weights))


@pytest.mark.parametrize("placement", ["tiled", "tiled_per_layer"])
@given(st.integers(0, 1 << 20))
def test_tiles_repeat_after_the_capacity(placement, base):
    at = placed(placement, 10_000, base, capacity_bytes=8192)
    assert np.array_equal(at, (base + np.arange(10_000)) % 8192)


def test_the_published_layout_repeats_rows_of_16_weights_16_times():
    i = np.arange(2 * 8192 * 256 + 300)  # twice round the map and into the third time
    row, group = i // 256 % 8192, i % 16
    assert np.array_equal(placed("neuralfuse_2022", len(i)), row * 16 + group)


def test_the_published_map_has_a_size_of_its_own():
    small = SRAM(Placement.NEURALFUSE_2022, capacity_bytes=4096)
    assert small.address_map == SRAM(Placement.NEURALFUSE_2022).address_map
    assert small.address_map.blocks * 4096 == 8192 * 128 // 8


@pytest.mark.parametrize(
    ("placement", "bases"),
    [
        ("unlimited", [0, 16, 24, 24, 32]),
        ("tiled", [0, 16, 24, 24, 32]),
        ("tiled_per_layer", [0, 0, 0, 0, 0]),
        ("neuralfuse_2022", [0, 0, 0, 0, 0]),
    ],
)
def test_layers_begin_on_words_or_at_zero(placement, bases):
    assert SRAM(placement).bases([10, 8, 0, 3, 1]) == bases


@given(st.lists(st.integers(0, 10_000), max_size=20))
def test_layers_neither_overlap_nor_leave_more_than_a_word_between_them(sizes):
    bases = PAPER.bases(sizes)
    assert len(bases) == len(sizes)
    for base, size, following in zip(bases, sizes, bases[1:], strict=False):
        assert base % 8 == 0
        assert 0 <= following - (base + size) < 8


# -- bad input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "columns"), [(0, 64), (-1, 64), (512, 0), (512, 4), (512, 63)])
def test_arrays_that_cannot_be(rows, columns):
    with pytest.raises(FaultsimError, match="rows must be at least 1 and columns a multiple of 8"):
        ArrayGeometry(rows, columns)


@pytest.mark.parametrize(
    ("memory", "complaint"),
    [
        ({"placement": "tilted"}, "unlimited, tiled, tiled_per_layer, neuralfuse_2022"),
        ({"capacity_bytes": 0}, "multiple of 4096"),
        ({"capacity_bytes": -4096}, "multiple of 4096"),
        ({"capacity_bytes": 5000}, "multiple of 4096"),
        (
            {"capacity_bytes": 4096, "array": ArrayGeometry(512, 128)},
            "no whole number of arrays of 8192 bytes",
        ),
    ],
)
def test_memories_that_cannot_be(memory, complaint):
    with pytest.raises(FaultsimError, match=complaint):
        SRAM(**memory)
