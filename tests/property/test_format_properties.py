"""Do formats hold what they promise for any weight and any bits, as the reference reads them?"""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from faultsim import Chip, FaultModel, corrupt, quantize
from faultsim.faults import FaultKind
from faultsim.formats import FloatFormat, Format, Grid, IntegerFormat, reference
from faultsim.kernel import ops
from faultsim.kernel import reference as fault_reference

BOOL = st.booleans()
INTEGER = st.builds(
    lambda bits, offset, asymmetric, truncated, packed: IntegerFormat(
        bits, offset, asymmetric, truncated, packed or bits == 8
    ),
    st.integers(2, 8), BOOL, BOOL, BOOL, BOOL,
)  # fmt: skip
FLOAT = st.builds(
    lambda kind, scaled, policy: FloatFormat(kind, scaled and "8_" in kind, policy),
    st.sampled_from(list(reference.FLOATS)),
    BOOL,
    st.sampled_from(["keep", "zero", "clamp"]),
)
FORMAT = INTEGER | FLOAT
DTYPE = st.sampled_from(["float32", "bfloat16", "float16"])
SEED = st.integers(0, 2**32 - 1)
# the whole range of float32, subnormal numbers and zeros among them
NUMBERS = st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), max_size=60)


def bits_of(values: torch.Tensor) -> np.ndarray:
    """Of floating-point results, so that NaN and -0 compare too."""
    view = {2: torch.uint16, 4: torch.uint32}[values.dtype.itemsize]
    return values.contiguous().view(view).numpy()


def any_bits(stored: Format, weights: int, seed: int) -> np.ndarray:
    """An image with random bits, in unused cells too."""
    size = 8 * stored.words(weights)
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8)


@given(FORMAT)
def test_names_are_parsed_to_the_same_format(stored):
    assert Format.parse(stored.name) == stored


@given(FORMAT, st.integers(0, 300), SEED)
def test_any_image_survives_but_for_its_unused_cells(stored, weights, seed):
    image = any_bits(stored, weights, seed)
    codes = stored.unpack(torch.from_numpy(image), [weights])
    packed = stored.pack(codes).numpy()
    cells = stored.width if stored.packed else 8
    held = reference.weight_bits(image, weights, stored.width, cells)
    np.testing.assert_array_equal(reference.weight_bits(packed, weights, stored.width, cells), held)
    assert np.unpackbits(packed).sum() == held.sum()  # 0 everywhere else


@given(INTEGER, st.integers(1, 200), SEED, st.floats(1e-30, 1e30), st.floats(-1e30, 1e30), DTYPE)
def test_integers_are_decoded_as_the_reference_does(stored, weights, seed, scale, center, dtype):
    image = any_bits(stored, weights, seed)
    grid = Grid(torch.tensor(scale), torch.tensor(center) if stored.asymmetric else None)
    codes = stored.unpack(torch.from_numpy(image), [weights])
    held = reference.weight_bits(image, weights, stored.width, stored.width if stored.packed else 8)
    q = reference.integers(held, stored.offset, clamps=stored.offset or stored.asymmetric)
    center = None if grid.center is None else grid.center.numpy()
    want = reference.rounded(reference.numbers(q, grid.scale.numpy(), center), dtype)
    np.testing.assert_array_equal(bits_of(stored.decode(codes, grid, getattr(torch, dtype))), want)


@given(FLOAT, st.integers(1, 200), SEED, st.floats(1e-30, 1e30), DTYPE)
def test_floats_are_decoded_as_the_reference_does(stored, weights, seed, scale, dtype):
    image = any_bits(stored, weights, seed)
    grid = Grid(torch.tensor(scale if stored.scaled else 1.0))
    codes = stored.unpack(torch.from_numpy(image), [weights])
    exact = reference.floats(reference.weight_bits(image, weights, stored.width, stored.width), stored.kind)
    values = reference.numbers(exact, grid.scale.numpy() if stored.scaled else None, None)
    most = np.float32(stored.largest) * grid.scale.numpy()
    want = reference.rounded(values, dtype, stored.nonfinite, most)
    got = stored.decode(codes, grid, getattr(torch, dtype))
    np.testing.assert_array_equal(bits_of(got), want)
    assert stored.nonfinite == "keep" or bool(got.isfinite().all())


@given(NUMBERS, st.sampled_from([-1, 0]))
def test_int8_is_quantize(numbers, axis):
    weight = torch.tensor(numbers)
    codes, grid = Format.parse("int8").encode(weight, axis)
    values, scale = quantize(weight, axis)
    assert torch.equal(codes, values)
    assert torch.equal(grid.scale.reshape(-1), scale.reshape(-1))


@given(INTEGER, NUMBERS)
def test_integers_are_within_a_step(stored, numbers):
    """Half a step to nearest, one towards zero; and what a float32 rounds off at the ends of the range."""
    weight = torch.tensor(numbers)
    codes, grid = stored.encode(weight)
    back = stored.decode(stored.unpack(stored.pack(codes), weight.shape), grid)
    q = codes.long() - (stored.zero if stored.offset else 0)
    assert bool((q.abs() <= stored.largest).all())
    if not numbers:
        return
    weight, back = weight.double(), back.double()
    rest = 1e-6 * weight.abs().max() + 2.0**-147  # digits of float32, and of its smallest numbers
    if stored.asymmetric:
        assert weight.min() - rest <= back.min()
        assert back.max() <= weight.max() + rest
    if grid.scale != 1:
        steps = (1 if stored.truncated else 0.5) + 1e-4
        assert bool(((back - weight).abs() <= steps * grid.scale.double() + rest).all())


@given(FLOAT, NUMBERS)
def test_floats_are_the_nearest_of_the_format(stored, numbers):
    """No neighbor is nearer, and of two at the same distance it is the even one."""
    weight = torch.tensor(numbers)
    if not stored.scaled:
        weight = weight[weight.abs() <= stored.largest]
    codes, grid = stored.encode(weight)
    target = (weight / grid.scale).clamp(-stored.largest, stored.largest) if stored.scaled else weight
    held = reference.weight_bits(stored.pack(codes).numpy(), weight.numel(), stored.width, stored.width)
    code = (held[:, :-1] * 2.0 ** np.arange(stored.width - 1)).sum(1).astype(np.int64)
    want = np.abs(target.numpy().astype(np.float64))

    def magnitudes(codes: np.ndarray) -> np.ndarray:
        bits = codes[:, None] >> np.arange(stored.width) & 1
        return reference.floats(bits.astype(bool), stored.kind)

    distance = np.abs(magnitudes(code) - want)
    for other, exists in ((code - 1, code > 0), (code + 1, np.abs(magnitudes(code)) < stored.largest)):
        there = np.abs(magnitudes(np.where(exists, other, code)) - want)
        assert (exists <= ((distance < there) | ((distance == there) & (code % 2 == 0)))).all()
    np.testing.assert_array_equal(held[:, -1], np.signbit(target.numpy()))


@given(FORMAT, SEED, st.tuples(st.floats(0, 0.5), st.floats(0, 0.5)).map(sorted), st.integers(1, 5000))
def test_a_larger_rate_only_adds_wrong_bits(stored, seed, rates, weights):
    image = torch.from_numpy(any_bits(stored, weights, seed).view(np.int8))
    low, high = (corrupt(image, Chip(seed), bit_error_rate=rate) ^ image for rate in rates)
    assert not (low & ~high).any()


@settings(max_examples=20)
@given(
    FORMAT, st.integers(1, 3000), SEED, st.floats(-5, -0.5).map(lambda x: 10**x),
    st.sampled_from([("flip", FaultKind.FLIP), ("stuck", FaultKind.STUCK_AT_RANDOM)]), st.integers(0, 2000), DTYPE,
)  # fmt: skip
def test_one_pass_is_the_reference(engine, stored, weights, seed, rate, kind, word, dtype):
    """Faults, image and numbers, all by NumPy."""
    image = any_bits(stored, weights, seed)
    finite = stored.unpack(torch.from_numpy(image), [weights])
    if isinstance(stored, FloatFormat):  # what a memory holds before faults
        finite = torch.where(finite.float().isfinite(), finite.float(), 1.0).to(stored.dtype)
    image = stored.pack(finite).numpy()
    scale = np.float32(0.37)
    center = np.float32(-2.5) if isinstance(stored, IntegerFormat) and stored.asymmetric else None
    faults = FaultModel(kind[1])
    got = torch.ops.faultsim.corrupt_decode(
        torch.from_numpy(image).to(engine.device),
        stored.name,
        [weights],
        getattr(torch, dtype),
        torch.tensor(scale, device=engine.device),
        None if center is None else torch.tensor(center, device=engine.device),
        -1,
        ops.encode_chips([seed], engine.device),
        ops.encode_rate(rate, engine.device),
        ops.encode_kind(faults),
        ops.encode_addresses(faults, 8 * word),
    )[0]
    read = fault_reference.corrupt(image.view(np.int8), [seed], rate, kind[0], base=8 * word)[0].view(
        np.uint8
    )
    held = reference.weight_bits(read, weights, stored.width, stored.cells)
    if isinstance(stored, IntegerFormat):
        codes = reference.integers(held, stored.offset, stored.clamps)
        want = reference.rounded(reference.numbers(codes, scale, center), dtype)
    else:
        used = scale if stored.width == 8 else None
        codes = reference.numbers(reference.floats(held, stored.kind), used, None)
        want = reference.rounded(codes, dtype, stored.nonfinite, np.float32(stored.largest) * (used or 1))
    np.testing.assert_array_equal(bits_of(got.cpu()), want)
