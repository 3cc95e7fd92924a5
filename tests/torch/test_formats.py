"""Formats of stored weights: bits by hand, the memory image, and lines for bad input."""

import math

import pytest
import torch

from faultsim import Chip, FaultsimError, corrupt, quantize
from faultsim.formats import FloatFormat, Format, Grid, IntegerFormat

INTEGERS = [f"{sign}int{bits}" for sign in ("", "u") for bits in range(2, 9)]
FLOATS = ["float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"]
UNPACKED = [f"{name}-unpacked" for name in INTEGERS if name[-1] != "8"]
ONE = Grid(torch.tensor(1.0))


def bytes_of(tensor: torch.Tensor) -> list[int]:
    return tensor.reshape(-1).contiguous().view(torch.uint8).tolist()


def flipped(name: str, number: float, bit: int) -> float:
    """What a weight reads as when one of its bits is wrong, by way of the image."""
    stored = Format.parse(name)
    codes = torch.tensor([number]).to(stored.dtype)
    image = stored.pack(codes)
    image[bit // 8] ^= 1 << bit % 8
    return stored.decode(stored.unpack(image, [1]), ONE).item()


# -- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [*INTEGERS, *UNPACKED, *FLOATS, "uint8-asymmetric", "int3-asymmetric-truncated-unpacked", "bfloat16-zero",
     "float16-clamp", "float8_e5m2-scaled", "float8_e4m3fn-scaled-clamp"],
)  # fmt: skip
def test_a_name_names_its_format(name):
    stored = Format.parse(name)
    assert stored.name == str(stored) == name
    assert stored == Format.parse(f" {name.upper()} ")
    assert stored.describe().startswith(f"{name}: ")
    assert "\n" not in stored.describe()


def test_options_come_in_any_order():
    assert Format.parse("int4-unpacked-truncated") == IntegerFormat(4, truncated=True, packed=False)
    assert Format.parse("float8_e5m2-zero-scaled") == FloatFormat("float8_e5m2", True, "zero")
    assert Format.parse("float16-keep") == FloatFormat("float16")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("int9", "int2 to int8"),
        ("int1", "int2 to int8"),
        ("int16", "int2 to int8"),
        ("float64", "float8_e4m3fn"),
        ("", "unknown format ''"),
        ("int4-", "no option ''"),
        ("int4-scaled", "asymmetric, truncated, unpacked"),
        ("int8-unpacked", "fill their bytes"),
        ("int4-unpacked-unpacked", "twice"),
        ("float32-unpacked", "keep, zero, clamp"),
        ("bfloat16-scaled", "no option 'scaled'"),
        ("float16-zero-clamp", "zero cannot be combined with clamp"),
    ],
)
def test_what_names_no_format_is_one_line(name, words):
    with pytest.raises(FaultsimError, match=words) as caught:
        Format.parse(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: IntegerFormat(9), "from 2 to 8"),
        (lambda: IntegerFormat(True), "must be an integer"),
        (lambda: IntegerFormat(8, packed=False), "2 to 7"),
        (lambda: FloatFormat("float64"), "unknown floating-point format"),
        (lambda: FloatFormat("float16", scaled=True), "8 bits"),
        (lambda: FloatFormat(nonfinite="saturate"), "keep, zero, clamp"),
    ],
)
def test_bad_fields(make, words):
    with pytest.raises(FaultsimError, match=words):
        make()


def test_how_many_weights_lie_in_a_word():
    held = {
        b: (Format.parse(f"int{b}").weights_per_word, Format.parse(f"int{b}").unused_cells)
        for b in range(2, 9)
    }
    assert held == {2: (32, 0), 3: (21, 1), 4: (16, 0), 5: (12, 4), 6: (10, 4), 7: (9, 1), 8: (8, 0)}
    assert [Format.parse(name).weights_per_word for name in FLOATS] == [2, 4, 4, 8, 8]
    assert Format.parse("int5-unpacked").weights_per_word == 8
    assert Format.parse("int5-unpacked").unused_cells == 24
    assert [Format.parse("int5").words(n) for n in (0, 1, 12, 13)] == [0, 1, 1, 2]


# -- images --------------------------------------------------------------------------------------------------------


def test_images_are_the_known_ones(vectors):
    rows = vectors("formats.txt")
    assert len(rows) == 16
    for name, codes, image in rows:
        stored = Format.parse(name)
        held = torch.tensor([float(code) for code in codes.split(",")]).to(stored.dtype)
        packed = stored.pack(held)
        assert packed.dtype == torch.uint8
        assert bytes(packed.tolist()).hex() == image, name
        assert torch.equal(stored.unpack(packed, held.shape), held), name
        assert torch.equal(stored.unpack(packed.view(torch.int8), held.shape), held), name


def test_int8_is_today_s_memory():
    """The same codes and scales as quantize(), and an image that is the tensor itself."""
    torch.manual_seed(0)
    weight = torch.randn(6, 5, 3)
    int8 = Format.parse("int8")
    for axis in (-1, 0, 1, 2):
        codes, grid = int8.encode(weight, axis)
        values, scale = quantize(weight, axis)
        assert torch.equal(codes, values)
        assert codes.dtype == torch.int8
        assert torch.equal(grid.scale.reshape(-1), scale.reshape(-1))
        assert grid.axis == axis
        assert grid.center is None
    assert bytes_of(int8.pack(codes))[: codes.numel()] == bytes_of(codes)
    read = corrupt(int8.pack(codes).view(torch.int8), Chip(7), bit_error_rate=0.05)
    assert torch.equal(int8.unpack(read, weight.shape), corrupt(codes, Chip(7), bit_error_rate=0.05))


@pytest.mark.parametrize("name", [*INTEGERS, *UNPACKED, *FLOATS])
def test_row_major_order_counts_not_strides(name):
    torch.manual_seed(1)
    stored = Format.parse(name)
    codes, _ = stored.encode(torch.randn(4, 6))
    across = codes.t()
    assert bytes_of(stored.pack(across)) == bytes_of(stored.pack(across.contiguous()))


@pytest.mark.parametrize(
    "name", ["int3", "int4-unpacked", "int8", "uint5-asymmetric", "bfloat16", "float8_e5m2-scaled"]
)
def test_images_of_several_chips(name):
    torch.manual_seed(2)
    stored = Format.parse(name)
    weight = torch.randn(3, 7)
    codes, grid = stored.encode(weight, 1 if stored.width <= 8 else -1)
    image = stored.pack(codes)
    chips = torch.stack([corrupt(image.view(torch.int8), Chip(i), bit_error_rate=0.1) for i in range(4)])
    read = stored.unpack(chips, weight.shape)
    values = stored.decode(read, grid)
    assert values.shape == (4, 3, 7)
    for i in range(4):
        alone = stored.unpack(chips[i], weight.shape)
        assert bytes_of(read[i]) == bytes_of(alone)
        assert bytes_of(values[i]) == bytes_of(stored.decode(alone, grid))


@pytest.mark.parametrize("name", ["int3", "int8", "float16"])
def test_an_image_may_lie_anywhere(name):
    """At an odd address, and with gaps between the chips' images."""
    torch.manual_seed(6)
    stored = Format.parse(name)
    codes, _ = stored.encode(torch.randn(50))
    image = stored.pack(codes)
    behind = torch.cat([image[:3], image])[3:]
    assert torch.equal(stored.unpack(behind, [50]), codes)
    apart = torch.stack([image, image], 1).t()
    assert torch.equal(stored.unpack(apart, [50]), torch.stack([codes, codes]))


@pytest.mark.parametrize("name", ["int3", "uint8", "int5-unpacked", "float32", "bfloat16"])
@pytest.mark.parametrize("shape", [[0], [0, 3], [], [1]])
def test_small_tensors(name, shape):
    stored = Format.parse(name)
    weight = torch.full(shape, -0.5)
    codes, grid = stored.encode(weight)
    image = stored.pack(codes)
    assert image.shape == (8 * weight.numel(),)
    read = stored.unpack(image, shape)
    assert read.shape == weight.shape
    assert torch.equal(stored.decode(read, grid), weight)


@pytest.mark.parametrize("name", ["int3", "int5", "uint6", "int7", "int2-unpacked", "int7-unpacked"])
def test_faults_of_unused_cells_change_nothing(name):
    torch.manual_seed(3)
    stored = Format.parse(name)
    codes, _ = stored.encode(torch.randn(40))
    image = stored.pack(codes)
    used = stored.pack(
        torch.full([40], -1, dtype=torch.int8).to(stored.dtype)
    )  # ones in every cell of a weight
    assert torch.equal(stored.unpack(image ^ ~used, [40]), codes)
    assert not torch.equal(stored.unpack(~image, [40]), codes)


def test_codes_of_4_and_8_bits_at_one_address_read_the_same_faults():
    """Faults belong to cells: two int4 weights of a byte read wrong in the bits in which an int8 weight does."""
    torch.manual_seed(4)
    int8, int4 = Format.parse("int8"), Format.parse("int4")
    bytes_ = torch.randint(-128, 128, [5000]).to(torch.int8)
    nibbles = int4.unpack(bytes_, [10_000])
    for rate in (0.001, 0.02, 0.2):
        read = corrupt(int8.pack(bytes_).view(torch.int8), Chip(5), bit_error_rate=rate)
        halves = int4.unpack(
            corrupt(int4.pack(nibbles).view(torch.int8), Chip(5), bit_error_rate=rate), [10_000]
        )
        assert not torch.equal(halves, nibbles)
        assert torch.equal(int4.unpack(read, [10_000]), halves)
    # one weight a byte: the low halves are at the same addresses as those of int8
    alone = Format.parse("int4-unpacked")
    low = nibbles[::2].contiguous()
    read = corrupt(alone.pack(low).view(torch.int8), Chip(5), bit_error_rate=0.02)
    both = corrupt(bytes_, Chip(5), bit_error_rate=0.02)
    assert torch.equal(alone.unpack(read, [5000]), int4.unpack(both, [10_000])[::2])


# -- every bit of every format, by hand ----------------------------------------------------------------------------


def test_each_bit_of_integers():
    """5 = 00000101 in two's complement; offset codes hold 5 + 2**(b-1), whose highest bit is set."""
    assert [flipped("int8", 5, k) for k in range(8)] == [4, 7, 1, 13, 21, 37, 69, -123]
    assert [flipped("uint8", 128 + 5, k) for k in range(8)] == [4, 7, 1, 13, 21, 37, 69, -123]
    assert [flipped("int7", 5, k) for k in range(7)] == [4, 7, 1, 13, 21, 37, -59]
    assert [flipped("int6", 5, k) for k in range(6)] == [4, 7, 1, 13, 21, -27]
    assert [flipped("int5", 5, k) for k in range(5)] == [4, 7, 1, 13, -11]
    assert [flipped("int4", 5, k) for k in range(4)] == [4, 7, 1, -3]
    assert [flipped("int3", 1, k) for k in range(3)] == [0, 3, -3]
    assert [flipped("int2", 1, k) for k in range(2)] == [0, -1]
    assert [flipped("uint4", 8 - 3, k) for k in range(4)] == [-4, -1, -7, 5]
    assert [flipped("uint2", 2 + 1, k) for k in range(2)] == [0, -1]


def test_one_step_beyond_the_range():
    """Two's complement can read -2**(b-1); offset codes and asymmetric ranges clamp it."""
    assert flipped("int8", 0, 7) == -128
    assert flipped("int4", 0, 3) == -8
    assert flipped("int2", 0, 1) == -2
    assert flipped("uint8", 128, 7) == -127
    assert flipped("uint4", 8, 3) == -7
    assert flipped("uint2", 2, 1) == -1
    asymmetric = Format.parse("int4-asymmetric")
    assert (
        asymmetric.decode(torch.tensor([-8], dtype=torch.int8), Grid(torch.tensor(0.5), torch.tensor(2.0)))
        == -1.5
    )


def test_each_bit_of_1_in_bfloat16():
    """1.0 = 0 01111111 0000000: fraction bits add 2**-7 .. 2**-1; exponent bits 0 to 6 halve 1 by 2**(2**k); its
    highest makes the exponent 255, infinity."""
    fractions = [1 + 2.0 ** (k - 7) for k in range(7)]
    exponents = [2.0 ** -(2**k) for k in range(7)]
    assert [flipped("bfloat16", 1.0, k) for k in range(16)] == [*fractions, *exponents, math.inf, -1]
    # 0.5 has the exponent 126: its highest bit makes it 254, 2**127
    assert flipped("bfloat16", 0.5, 14) == 2.0**127
    assert math.isnan(flipped("bfloat16", 1.5, 14))


def test_each_bit_of_1_in_float32():
    fractions = [1 + 2.0 ** (k - 23) for k in range(23)]
    exponents = [2.0 ** -(2**k) for k in range(7)]
    assert [flipped("float32", 1.0, k) for k in range(32)] == [*fractions, *exponents, math.inf, -1]
    assert flipped("float32", 0.5, 30) == 2.0**127


def test_each_bit_of_1_in_float16():
    """1.0 = 0 01111 0000000000, bias 15."""
    fractions = [1 + 2.0 ** (k - 10) for k in range(10)]
    exponents = [2.0 ** -(2**k) for k in range(4)]
    assert [flipped("float16", 1.0, k) for k in range(16)] == [*fractions, *exponents, math.inf, -1]
    assert flipped("float16", 0.5, 14) == 2.0**15


def test_each_bit_of_1_in_float8():
    """e5m2: 0 01111 00, bias 15. e4m3fn: 0 0111 000, bias 7; the exponent 15 is an ordinary one, so its highest bit
    makes 2**8 of 1, and NaN (all ones) of 1.875 only."""
    e5m2 = [1.25, 1.5, 0.5, 0.25, 2.0**-4, 2.0**-8, math.inf, -1]
    assert [flipped("float8_e5m2", 1.0, k) for k in range(8)] == e5m2
    e4m3 = [1.125, 1.25, 1.5, 0.5, 0.25, 2.0**-4, 256, -1]
    assert [flipped("float8_e4m3fn", 1.0, k) for k in range(8)] == e4m3
    assert flipped("float8_e4m3fn", 1.75, 6) == 448
    assert math.isnan(flipped("float8_e4m3fn", 1.875, 6))
    # the exponent 0: fractions count in steps of 2**-9 and 2**-16
    assert flipped("float8_e4m3fn", 2.0**-6, 3) == 0
    assert flipped("float8_e4m3fn", 0.0, 0) == 2.0**-9
    assert flipped("float8_e5m2", 0.0, 1) == 2.0**-15


# -- what is not finite ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FLOATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_policies(kind, dtype):
    """Infinity where the format has it, NaN of either sign, and 1 in between."""
    infinite = kind != "float8_e4m3fn"
    numbers = [math.nan, -math.nan, 1.0, *([math.inf, -math.inf] if infinite else [])]
    stored = Format.parse(kind)
    codes = torch.tensor(numbers).to(stored.dtype)
    most = min(stored.largest, torch.finfo(dtype).max)
    assert torch.tensor(stored.largest).to(stored.dtype).float() == stored.largest
    kept = stored.decode(codes, ONE, dtype)
    assert kept.dtype == dtype
    assert kept[0].isnan()
    assert kept[2:].tolist() == numbers[2:]
    assert bytes_of(kept[0]) == bytes_of(kept[1]) == bytes_of(torch.tensor(math.nan).to(dtype))
    assert Format.parse(f"{kind}-zero").decode(codes, ONE, dtype).tolist() == [0, 0, 1, 0, 0][: len(numbers)]
    clamped = Format.parse(f"{kind}-clamp").decode(codes, ONE, dtype)
    expected = torch.tensor([0, 0, 1, most, -most])[: len(numbers)].to(dtype)
    assert torch.equal(clamped, expected)
    assert clamped.isfinite().all()


def test_policies_see_the_type_of_the_result():
    """2**100 is finite in bfloat16, and infinite in float16."""
    codes = torch.tensor([2.0**100, -(2.0**100)]).bfloat16()
    assert Format.parse("bfloat16").decode(codes, ONE, torch.float16).tolist() == [math.inf, -math.inf]
    assert Format.parse("bfloat16-zero").decode(codes, ONE, torch.float16).tolist() == [0, 0]
    assert Format.parse("bfloat16-clamp").decode(codes, ONE, torch.float16).tolist() == [65504, -65504]
    assert Format.parse("bfloat16-zero").decode(codes, ONE).tolist() == [2.0**100, -(2.0**100)]


def test_clamping_a_scaled_format_stays_in_its_range():
    stored = Format.parse("float8_e5m2-scaled-clamp")
    weight = torch.tensor([[0.5, -2.0], [8.0, 1.0]])
    codes, grid = stored.encode(weight, 0)
    assert torch.equal(stored.decode(codes, grid), weight)
    infinite = torch.tensor([[math.inf, -math.inf]] * 2).to(stored.dtype)
    assert stored.decode(infinite, grid).tolist() == [[2, -2], [8, -8]]


# -- encoding ------------------------------------------------------------------------------------------------------


def test_hand_computed_codes():
    weight = torch.tensor([-0.7, 0.34, 0.149, 0.151, 0.0, 0.7])
    codes, grid = Format.parse("int4").encode(weight)
    assert grid.scale.item() == pytest.approx(0.1)
    assert codes.tolist() == [-7, 3, 1, 2, 0, 7]
    assert Format.parse("uint4").encode(weight)[0].tolist() == [1, 11, 9, 10, 8, 15]
    assert Format.parse("int4-truncated").encode(weight)[0].tolist() == [-7, 3, 1, 1, 0, 7]
    # ties go to even: 0.5 to 0, 1.5 and 2.5 to 2
    assert Format.parse("int3").encode(torch.tensor([0.5, 1.5, 2.5, 3.0, -0.5]))[0].tolist() == [
        0,
        2,
        2,
        3,
        0,
    ]
    assert Format.parse("int2").encode(torch.tensor([0.4, -0.6, 1.0]))[0].tolist() == [0, -1, 1]


def test_asymmetric_range():
    """[-1, 13] in 4 bits: center 6, scale 1, q in [-7, 7]."""
    weight = torch.tensor([[-1.0, 0.0, 6.0, 12.6, 13.0]])
    for name, zero in (("int4-asymmetric", 0), ("uint4-asymmetric", 8)):
        stored = Format.parse(name)
        codes, grid = stored.encode(weight)
        assert (grid.scale.item(), grid.center.item()) == (1, 6)
        assert codes.tolist() == [[zero + q for q in (-7, -6, 0, 7, 7)]]
        assert stored.decode(codes, grid).tolist() == [[-1, 0, 6, 13, 13]]
    constant = torch.full((2, 3), 0.3)
    codes, grid = Format.parse("uint8-asymmetric").encode(constant)
    assert (codes == 128).all()
    assert torch.equal(Format.parse("uint8-asymmetric").decode(codes, grid), constant)


@pytest.mark.parametrize("name", ["int4", "uint8-asymmetric", "float8_e4m3fn-scaled"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_channels_have_scales_of_their_own(name, axis):
    torch.manual_seed(5)
    stored = Format.parse(name)
    weight = torch.randn(3, 4, 5)
    codes, grid = stored.encode(weight, axis)
    values = stored.decode(codes, grid)
    assert grid.axis == axis
    assert grid.scale.numel() == weight.shape[axis]
    for i in range(weight.shape[axis]):
        one, its_grid = stored.encode(weight.select(axis, i))
        assert bytes_of(codes.select(axis, i)) == bytes_of(one)
        assert torch.equal(values.select(axis, i), stored.decode(one, its_grid))


@pytest.mark.parametrize(
    ("name", "weight", "axis", "words"),
    [
        ("int4", torch.tensor([1.0, math.nan]), -1, "NaN or infinity"),
        ("bfloat16", torch.tensor([math.inf]), -1, "NaN or infinity"),
        ("int4", torch.tensor([1]), -1, "floating point"),
        ("int4", torch.ones(2, 2), 2, "axis 2 of a weight with 2 dimensions"),
        ("int4", torch.ones(2, 2), -2, "axis -2"),
        ("bfloat16", torch.ones(2, 2), 0, "no scale for each channel"),
        ("float16", torch.tensor([7e4]), -1, "70000 is beyond the largest number of float16, 65504"),
        ("float8_e4m3fn", torch.tensor([-449.0]), -1, "449 is beyond"),
    ],
)
def test_weights_that_cannot_be_stored(name, weight, axis, words):
    with pytest.raises(FaultsimError, match=words) as caught:
        Format.parse(name).encode(weight, axis)
    assert "\n" not in str(caught.value)


def test_tensors_of_another_type_or_size_are_refused():
    int4 = Format.parse("int4")
    with pytest.raises(
        FaultsimError, match=r"codes of int4 are torch.int8, not torch.float32: use encode\(\)"
    ):
        int4.pack(torch.ones(3))
    with pytest.raises(FaultsimError, match="codes of uint4"):
        Format.parse("uint4").decode(torch.ones(3, dtype=torch.int8), ONE)
    with pytest.raises(
        FaultsimError, match=r"image of 17 weights is uint8 \[..., 16\], not torch.uint8 \[8\]"
    ):
        int4.unpack(torch.zeros(8, dtype=torch.uint8), [17])
    with pytest.raises(FaultsimError, match=r"not torch\.int64"):
        int4.unpack(torch.zeros(8, dtype=torch.int64), [16])
    for name in ("int4", "bfloat16"):
        stored = Format.parse(name)
        with pytest.raises(FaultsimError, match=r"float32, bfloat16 or float16, not torch\.float64"):
            stored.decode(torch.ones(3).to(stored.dtype), ONE, torch.float64)


@pytest.mark.parametrize("name", ["int3", "uint8-asymmetric", "float8_e4m3fn-scaled", "float8_e5m2-scaled"])
def test_tiny_weights_are_zeros_of_scale_one(name):
    stored = Format.parse(name)
    codes, grid = stored.encode(torch.tensor([1e-39, 0.0, -3e-39]))
    assert grid.scale == 1
    assert stored.decode(codes, grid).abs().max() <= 3e-39
