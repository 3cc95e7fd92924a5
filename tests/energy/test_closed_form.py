"""The closed forms against counts made by hand: numbers worked out on paper, and folds walked one by one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from energy import ENGINES, Accelerator, EnergyError, Layer
from energy import count as count_by_engine
from energy.closed_form import count, count_layer
from energy.counts import LayerCounts


def layer(**sizes: int) -> Layer:
    defaults = {"input_height": 1, "input_width": 1, "kernel_height": 1, "kernel_width": 1}
    return Layer("layer", **{**defaults, "channels": 1, "filters": 1, **sizes})


def walked(one: Layer, accelerator: Accelerator) -> LayerCounts:
    """The counts of a layer, fold by fold: what a person would write down who follows the array."""
    rows, columns = accelerator.rows, accelerator.columns
    windows = []  # how many addresses each output pixel's window really has
    for y in range(one.output_height):
        for x in range(one.output_width):
            high = sum(y * one.stride_height + i < one.input_height for i in range(one.kernel_height))
            wide = sum(x * one.stride_width + j < one.input_width for j in range(one.kernel_width))
            windows.append(high * wide * one.channels)

    def pieces(total: int, size: int) -> list[int]:
        return [min(size, total - start) for start in range(0, total, size)]

    filter_reads = input_reads = inside = writes = real_writes = cycles = 0
    match accelerator.dataflow:
        case "os":
            for filters in pieces(one.filters, columns):
                inside += sum(windows)
                for pixels in pieces(one.output_pixels, rows):
                    filter_reads += one.window * filters
                    input_reads += one.window * pixels
                    real_writes += pixels * filters
                    writes += pixels * filters + rows + columns
                    cycles += one.window + rows - 1 + columns - 1
        case "ws":
            for filters in pieces(one.filters, columns):
                inside += sum(windows)
                for part in pieces(one.window, rows):
                    filter_reads += part * filters
                    input_reads += part * one.output_pixels
                    real_writes += one.output_pixels * filters
                    cycles += rows + one.output_pixels + rows - 1 + columns - 1
            writes = real_writes
        case "is":
            inside = sum(windows)
            for pixels in pieces(one.output_pixels, columns):
                for part in pieces(one.window, rows):
                    filter_reads += part * one.filters
                    input_reads += part * pixels
                    real_writes += pixels * one.filters
                    cycles += rows + one.filters + rows - 1 + columns - 1
            writes = real_writes
    return LayerCounts(
        filter_reads, input_reads, writes, cycles - 1, input_reads - inside, writes - real_writes
    )


sizes = st.integers(1, 12)


@st.composite
def layers(draw: st.DrawFn) -> Layer:
    kernel_height, kernel_width = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    return Layer(
        "layer",
        kernel_height + draw(st.integers(0, 8)),
        kernel_width + draw(st.integers(0, 8)),
        kernel_height,
        kernel_width,
        draw(sizes),
        draw(sizes),
        draw(st.integers(1, 6)),
        draw(st.integers(1, 6)),
    )


@given(layers(), st.integers(1, 9), st.integers(1, 9), st.sampled_from(["os", "ws", "is"]))
def test_closed_form_is_what_walking_the_folds_gives(one: Layer, rows: int, columns: int, flow: str) -> None:
    accelerator = Accelerator(rows, columns, flow)
    assert count_layer(one, accelerator) == walked(one, accelerator)


def test_first_layer_of_vgg_by_hand() -> None:
    # 3x3x3 windows over a 34x34 padded map: 1,024 pixels, K = 27, F = 64, on 32x32, output-stationary.
    # 32 folds of pixels, 2 of filters. Each weight is read once per fold of pixels: 27 * 64 * 32 = 55,296.
    # Each window is read once per fold of filters: 1,024 * 27 * 2 = 55,296. A fold takes 27 + 31 + 31 cycles.
    first = layer(input_height=34, input_width=34, kernel_height=3, kernel_width=3, channels=3, filters=64)
    counts = count_layer(first)
    assert (counts.filter_reads, counts.input_reads) == (55_296, 55_296)
    assert counts.cycles == 64 * 89 - 1
    assert counts.output_writes - counts.output_overcount == 65_536
    assert counts.output_overcount == 64 * (32 + 32)
    assert counts.input_overcount == 0


def test_fully_connected_layer_by_hand() -> None:
    # one pixel, 512 inputs, 10 outputs: every weight is read once, in one fold
    counts = count_layer(layer(channels=512, filters=10))
    assert (counts.filter_reads, counts.input_reads) == (5_120, 512)
    assert counts.cycles == 512 + 31 + 31 - 1


def test_input_stationary_writes_by_hand() -> None:
    # 6 pixels, window 8, 3 filters on 4x4: the window takes 2 folds, the pixels 4 + 2. Every fold writes a
    # partial sum of each of its pixels for each filter: 2 * (4 * 3 + 2 * 3) = 36. (SCALE-Sim without the fix
    # of its issue 43 reports the last fold alone: 2 * 3 = 6.)
    one = layer(input_height=6, channels=8, filters=3)
    assert count_layer(one, Accelerator(4, 4, "is")).output_writes == 36


def test_rounded_up_output_reads_beyond_the_map_by_hand() -> None:
    # A 1x1 kernel with stride 2 over 4x4: frameworks give 2x2 outputs, SCALE-Sim ceil((4 - 1) / 2) + 1 = 3.
    # The third row and column start at position 4, outside: 9 windows, of which 4 have an address.
    one = layer(input_height=4, input_width=4, stride_height=2, stride_width=2)
    counts = count_layer(one)
    assert one.output_pixels == 9
    assert (counts.input_reads, counts.input_overcount) == (9, 5)


def test_repeats_multiply_every_count() -> None:
    once = layer(input_height=9, input_width=9, kernel_height=3, kernel_width=3, stride_height=2)
    five = Layer(**{**once.__dict__, "repeats": 5})
    assert count_layer(five) == count_layer(once).times(5)
    assert five.macs == 5 * once.macs


def test_total_and_words() -> None:
    counts = count([layer(channels=3, filters=3), layer(channels=2)])
    assert counts.total.filter_reads == 11
    assert counts.weight_memory_accesses == 2  # 11 bytes lie in two 64-bit words
    assert count([]).weight_memory_accesses == 0


@pytest.mark.parametrize(
    "name", ["input_height", "kernel_width", "channels", "filters", "stride_width", "repeats"]
)
@pytest.mark.parametrize("value", [0, -1, 1.5, True])
def test_sizes_have_to_be_positive_integers(name: str, value: object) -> None:
    with pytest.raises(EnergyError, match=f"layer 'layer': {name.replace('_', ' ')} has to be a positive"):
        layer(**{name: value})


def test_kernel_has_to_fit() -> None:
    with pytest.raises(EnergyError, match="3x3 kernel is larger than its padded input of 2x5"):
        layer(input_height=2, input_width=5, kernel_height=3, kernel_width=3)


def test_input_accesses_are_those_of_the_demand_that_has_an_address() -> None:
    """By hand: a 4x4 map of 2 channels and 3x3 windows at stride 2 are 2x2 output pixels (sizes are rounded up). Of the
    windows 9, 6, 6 and 4 elements a channel lie on the map. 5 filters on 4 columns are two passes over all of them."""
    one = layer(
        input_height=4, input_width=4, kernel_height=3, kernel_width=3, channels=2, filters=5,
        stride_height=2, stride_width=2,
    )  # fmt: skip
    reads = 2 * 2 * (9 + 6 + 6 + 4)
    accelerator = Accelerator(4, 4)
    for engine in ENGINES:
        counts = count_by_engine([one], accelerator, engine)
        assert counts.total.input_reads == 2 * 4 * 18
        assert [counts.count_input_accesses(bits) for bits in (8, 4, 5)] == [
            -(-reads // 8), -(-reads // 16), -(-reads // 12)
        ]  # fmt: skip
    with pytest.raises(EnergyError, match="can't hold an activation of 65 bits"):
        counts.count_input_accesses(65)
