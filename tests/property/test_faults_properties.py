"""Do the exact promises about faults hold for any chip, any rate, any shape?"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import poisson

from faultsim.errors import FaultsimError
from faultsim.faults import FaultKind, FaultModel
from faultsim.hit_table import CELLS, HITS_AT_ONE, build_hit_table
from faultsim.kernel import ops, reference
from faultsim.sram import SRAM, Placement
from faultsim.voltage import VoltageCurve

CALL = torch.ops.faultsim
SEED = st.integers(0, 2**64 - 1)
BASE = st.one_of(st.integers(0, 9000), st.integers(0, 2**40))
RATE = st.one_of(
    st.floats(-7, -0.3).map(lambda x: 10**x), st.sampled_from([0.0, 1e-4, 1e-3, 1e-2, 0.1, 0.5, 0.9, 0.999])
)
SIZE = st.one_of(st.integers(0, 70), st.integers(0, 13_000))
# Kind, polarity or read error (one number for both), and the reference's words for them.
KIND = st.one_of(
    st.just((FaultKind.FLIP, 0.5, "flip", 0.5)),
    st.floats(0, 1).map(lambda x: (FaultKind.STUCK_AT_RANDOM, x, "stuck", x)),
    st.just((FaultKind.STUCK_AT_RANDOM, 0.5, "stuck", 0.5)),
    st.just((FaultKind.STUCK_AT_0, 0.5, "stuck", 0.0)),
    st.just((FaultKind.STUCK_AT_1, 0.5, "stuck", 1.0)),
    st.floats(0, 1).map(lambda x: (FaultKind.TRANSIENT, x, "transient", x)),
)
MEMORY = st.one_of(
    st.just(SRAM()),
    st.builds(
        lambda blocks, placement: SRAM(placement, 4096 * blocks),
        st.integers(1, 5),
        st.sampled_from([Placement.TILED, Placement.TILED_PER_LAYER]),
    ),
    st.just(SRAM(Placement.NEURALFUSE_2022)),
)


def model_of(kind: tuple, memory: SRAM = SRAM()) -> FaultModel:  # noqa: B008 - frozen
    return FaultModel(kind[0], memory, polarity=kind[1], read_error=kind[1])


def arguments(seed: int, rate: float, model: FaultModel, base=0, access=0, offset=0, device="cpu"):
    """The operators' common arguments, for one chip."""
    number = torch.tensor([offset, access], device=device)
    chips, table = ops.encode_chips([seed], device), ops.encode_rate(rate, device)
    return chips, table, ops.encode_kind(model), ops.encode_addresses(model, base), number[:1], number[1:]


def mask(size: int, *where, **more) -> tuple[np.ndarray, np.ndarray]:
    """Failing bits and states of one chip, two uint8 [size]."""
    masks = CALL.fault_mask(torch.zeros(size, dtype=torch.int8), *arguments(*where, **more))
    return masks[0][0].numpy(), masks[1][0].numpy()


def weights_of(size: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(size).integers(-128, 128, size, np.int8))


LAYOUT = st.one_of(
    MEMORY.map(
        lambda memory: (memory.address_map.blocks, memory.address_map.word, memory.address_map.repeat)
    ),
    st.tuples(st.integers(0, 5), st.sampled_from([16, 32, 128, 1024, 4096]), st.integers(1, 40)),
)


@given(SEED, RATE, KIND, LAYOUT, BASE, SIZE, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
@settings(max_examples=100)
def test_kernel_is_the_reference(engine, seed, rate, kind, layout, base, size, access, offset):
    """Two chips; the masks, the weights read, and those in float16, in any layout that the kernel knows."""
    place = dict(base=base, **dict(zip(("blocks", "word", "repeat"), layout, strict=True)))
    _, table, rule, _, *numbers = arguments(
        seed, rate, model_of(kind), access=access, offset=offset, device=engine.device
    )
    seeds = [seed, seed ^ 1]
    common = (ops.encode_chips(seeds, engine.device), table, rule, [base, *layout], *numbers)
    source, scale = weights_of(size), torch.tensor([0.0123])
    on = source.to(engine.device)
    masks = CALL.fault_mask(on, *common)
    read = CALL.corrupt(on, *common)
    halves = CALL.corrupt_dequantize(on, scale.to(engine.device), -1, torch.float16, *common)
    for i, one in enumerate(seeds):
        want = reference.fault_mask(size, one, rate, kind[2], kind[3], access, offset, **place)
        for got, expected in zip(masks, want, strict=True):
            np.testing.assert_array_equal(got[i].cpu().numpy(), expected)
        faulty = reference.read_word(kind[2], source.numpy(), *want)
        np.testing.assert_array_equal(read[i].cpu().numpy(), faulty)
        dequantized = reference.dequantize(faulty, scale.numpy(), None, "float16")
        np.testing.assert_array_equal(halves[i].cpu().numpy(), dequantized)


@given(SEED, st.tuples(RATE, RATE).map(sorted), KIND, MEMORY, BASE)
def test_a_larger_rate_only_adds_failing_cells(seed, rates, kind, memory, base):
    """And the cells that failed before keep their state."""
    low, high = (mask(9000, seed, rate, model_of(kind, memory), base) for rate in rates)
    assert not (low[0] & ~high[0]).any()
    np.testing.assert_array_equal(low[1], high[1] & low[0])


@given(SEED, st.tuples(st.floats(0.5, 1.5), st.floats(0.5, 1.5)).map(sorted), KIND)
def test_a_lower_voltage_only_adds_failing_cells(seed, voltages, kind):
    curve = VoltageCurve.default()
    low, high = (mask(9000, seed, curve.bit_error_rate(v), model_of(kind)) for v in reversed(voltages))
    assert not (low[0] & ~high[0]).any()
    np.testing.assert_array_equal(low[1], high[1] & low[0])


@given(SEED, RATE, MEMORY, BASE, SIZE)
def test_flips_undo_themselves(seed, rate, memory, base, size):
    common = arguments(seed, rate, FaultModel(FaultKind.FLIP, memory), base)
    source = weights_of(size)
    once = CALL.corrupt(source, *common)[0]
    assert torch.equal(CALL.corrupt(once, *common)[0], source)
    CALL.corrupt_(once, *common)
    assert torch.equal(once, source)


@given(SEED, RATE, st.floats(0, 1), MEMORY, BASE, SIZE)
def test_stuck_cells_read_the_same_whatever_is_stored(seed, rate, polarity, memory, base, size):
    """Idempotent: writing back what was read and reading again changes nothing."""
    model = FaultModel(FaultKind.STUCK_AT_RANDOM, memory, polarity)
    source, common = weights_of(size), arguments(seed, rate, model, base)
    once = CALL.corrupt(source, *common)[0]
    assert torch.equal(CALL.corrupt(once, *common)[0], once)
    failing, states = mask(size, seed, rate, model, base)
    other = CALL.corrupt(~source, *common)[0]
    np.testing.assert_array_equal(once.numpy().view(np.uint8) & failing, states)
    np.testing.assert_array_equal(other.numpy().view(np.uint8) & failing, states)


@given(SEED, KIND, MEMORY, BASE, SIZE)
def test_nothing_fails_at_zero(seed, kind, memory, base, size):
    source = weights_of(size)
    assert torch.equal(CALL.corrupt(source, *arguments(seed, 0.0, model_of(kind, memory), base))[0], source)
    assert not any(part.any() for part in mask(size, seed, 0.0, model_of(kind, memory), base))


@given(SEED, MEMORY, BASE, SIZE)
def test_everything_flips_at_one(seed, memory, base, size):
    source = weights_of(size)
    common = arguments(seed, 1.0, FaultModel(memory=memory), base)
    assert torch.equal(CALL.corrupt(source, *common)[0], ~source)


@given(SEED, KIND.filter(lambda kind: kind[2] != "flip"), st.sampled_from([1e-3, 0.3, 0.9999, 1 - 2**-53]))
@settings(max_examples=8)
def test_states_at_one_are_those_of_smaller_rates(seed, kind, rate):
    failing, states = mask(300, seed, rate, model_of(kind))
    everywhere, all_states = mask(300, seed, 1.0, model_of(kind))
    assert (everywhere == 0xFF).all()
    np.testing.assert_array_equal(states, all_states & failing)


@given(SEED, RATE, KIND, st.integers(1, 3), st.integers(0, 30_000))
def test_a_tiled_memory_repeats(seed, rate, kind, blocks, base):
    """One bad cell hits every weight that passes through it."""
    capacity = 4096 * blocks
    model = model_of(kind, SRAM(Placement.TILED, capacity))
    failing, states = mask(2 * capacity + 4567, seed, rate, model, base)
    np.testing.assert_array_equal(failing[:-capacity], failing[capacity:])
    np.testing.assert_array_equal(states[:-capacity], states[capacity:])
    # The memory's own cells are those of a memory without end.
    endless = mask(capacity, seed, rate, model_of(kind))
    np.testing.assert_array_equal(mask(capacity, seed, rate, model)[0], endless[0])


@given(SEED, RATE, KIND, st.lists(st.integers(0, 9000), min_size=1, max_size=5))
def test_layers_restart_or_follow_each_other(seed, rate, kind, sizes):
    """Per layer: every layer sees the memory from address 0. Otherwise layers follow each other, on words."""
    restart, follow = SRAM(Placement.TILED_PER_LAYER, 8192), SRAM(Placement.TILED, 8192)
    longest = mask(max(sizes), seed, rate, model_of(kind, restart))[0]
    assert restart.bases(sizes) == SRAM(Placement.NEURALFUSE_2022).bases(sizes) == [0] * len(sizes)
    for size in sizes:
        layer = mask(size, seed, rate, model_of(kind, restart), 0)[0]
        np.testing.assert_array_equal(layer, longest[:size])
    bases = follow.bases(sizes)
    assert bases[0] == 0
    assert SRAM().bases(sizes) == bases
    assert all(base % 8 == 0 for base in bases)
    assert all(0 <= b - (a + size) < 8 for a, size, b in zip(bases, sizes, bases[1:], strict=False))
    whole = mask(bases[-1] + sizes[-1], seed, rate, model_of(kind, follow))[0]
    for size, base in zip(sizes, bases, strict=True):
        layer = mask(size, seed, rate, model_of(kind, follow), base)[0]
        np.testing.assert_array_equal(layer, whole[base : base + size])


@given(SEED, RATE, st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_transient_reads_repeat_only_with_their_access_index(seed, rate, read_error, access):
    model = FaultModel(FaultKind.TRANSIENT, read_error=read_error)
    failing, wrong = mask(9000, seed, rate, model, access=access)
    again = mask(9000, seed, rate, model, access=access)
    np.testing.assert_array_equal(wrong, again[1])
    other = mask(9000, seed, rate, model, access=access ^ 1)
    np.testing.assert_array_equal(failing, other[0])  # the weak cells are the chip's, the reads are not
    assert not (wrong & ~failing).any()
    np.testing.assert_array_equal(failing, mask(9000, seed, rate, FaultModel())[0])  # whatever the kind


@given(SEED, RATE, st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted))
def test_a_higher_polarity_only_turns_zeros_into_ones(seed, rate, polarities):
    low, high = (mask(5000, seed, rate, FaultModel("stuck_at_random", polarity=x)) for x in polarities)
    np.testing.assert_array_equal(low[0], high[0])
    assert not (low[1] & ~high[1]).any()


# -- the table of the number of hits ----------------------------------------------------------------------


def hits(table: np.ndarray, uniform: int) -> int:
    return int(table[0]) + int(np.searchsorted(table[2:], np.uint64(uniform), side="right"))


UNIFORM = st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([0, 1, 2**63, 2**64 - 2, 2**64 - 1]))


@given(st.tuples(RATE, RATE).map(sorted), UNIFORM)
def test_hits_grow_with_the_rate(rates, uniform):
    low, high = (hits(build_hit_table(rate), uniform) for rate in rates)
    assert low <= high < HITS_AT_ONE


@given(RATE, st.tuples(UNIFORM, UNIFORM).map(sorted))
def test_hits_grow_with_the_uniform(rate, uniforms):
    table = build_hit_table(rate)
    assert (np.diff(table[2:].astype(object)) >= 0).all()
    assert hits(table, uniforms[0]) <= hits(table, uniforms[1])


@pytest.mark.parametrize("rate", [1e-6, 1e-4, 1e-3, 1e-2, 0.1, 0.5])
def test_hits_are_poisson_distributed(rate):
    """Against SciPy's double precision; 2**64 - 1 and 0 give the extremes that a 64-bit uniform can reach."""
    table, mean = build_hit_table(rate), CELLS * -math.log1p(-rate)
    for k in range(int(table[0]), int(table[0]) + table.size - 2):
        at_most = int(table[2 + k - int(table[0])]) / 2**64  # P(K <= k)
        assert at_most == pytest.approx(poisson.cdf(k, mean), rel=1e-9, abs=1e-15)
    assert hits(table, 0) == poisson.ppf(2.0**-64, mean) == int(table[0]) + int((table[2:] == 0).sum())
    top = hits(table, 2**64 - 1)
    assert poisson.sf(top, mean) <= 2.0**-64 < poisson.sf(top - 1, mean)


@pytest.mark.parametrize("rate", [1e-4, 1e-2, 0.3])
def test_thresholds_are_exact_to_the_last_bit(rate):
    """Against 100 digits by another formula: P(K <= k) is the regularized gamma function Q(k + 1, mean)."""
    mpmath = pytest.importorskip("mpmath")
    table = build_hit_table(rate)
    with mpmath.workdps(100):
        mean = CELLS * -mpmath.log(1 - mpmath.mpf(rate))
        for i in np.unique(np.linspace(0, table.size - 3, 25).astype(int)):
            exact = mpmath.gammainc(int(table[0]) + int(i) + 1, mean, regularized=True)
            assert int(table[2 + i]) == int(mpmath.floor(exact * 2**64))


@pytest.mark.parametrize("rate", [1e-300, 5e-324, 1e-30, 1e-12, 1 - 2**-53])
def test_tables_of_extreme_rates(rate):
    table = build_hit_table(rate)
    assert hits(table, 0) <= hits(table, 2**64 - 1) < HITS_AT_ONE
    if rate <= 1e-30:
        assert hits(table, 2**64 - 1) <= 1


@pytest.mark.parametrize("rate", [-1e-9, 1.0000001, float("nan"), float("inf"), "a lot", None])
def test_a_rate_that_is_none_is_refused(rate):
    with pytest.raises(FaultsimError, match="bit error rate"):
        build_hit_table(rate)
