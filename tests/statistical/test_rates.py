"""Are the faults distributed as promised: every cell with probability p, independently of all others?

Seeds are fixed, so a test passes always or never. ALARM is the probability with which a test would reject a
correct kernel if its seed were drawn anew: each test's verdict, all of its comparisons together, comes from an
exact or asymptotic distribution of SciPy at this level.
"""

import numpy as np
import pytest
import torch
from scipy import stats

from faultsim.faults import FaultKind, FaultModel
from faultsim.kernel import ops
from faultsim.sram import SRAM, Placement

CALL = torch.ops.faultsim
ALARM = 1e-6
CELLS = 32768
BITS_OF_BYTE = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(1, dtype=np.uint8)


def masks(weights: int, rate: float, model: FaultModel, seeds=(2024,), access: int = 0):
    """Failing bits and states, uint8 [n_chips, weights]."""
    failing, states = CALL.fault_mask(
        torch.zeros(weights, dtype=torch.int8),
        ops.encode_chips(seeds),
        ops.encode_rate(rate),
        ops.encode_kind(model),
        ops.encode_addresses(model),
        None,
        torch.tensor([access]),
    )
    return failing.numpy(), states.numpy()


def bits(mask: np.ndarray) -> np.ndarray:
    """Addresses of the set bits of a flat uint8 mask, ascending: cell = address % 32768, array = address // 32768."""
    at = np.flatnonzero(mask)
    where, bit = np.nonzero(np.unpackbits(mask[at][:, None], axis=1, bitorder="little"))
    return at[where] * 8 + bit


def bits_set(mask: np.ndarray, axis: int | None = None) -> np.ndarray:
    """Number of set bits along an axis, or in all of a uint8 mask."""
    return BITS_OF_BYTE[mask].sum(axis, dtype=np.int64)


def likely(count: int, n: int, p: float, tests: int = 1) -> bool:
    """Whether a Binomial(n, p) count is within its two-sided (1 - ALARM / tests) interval."""
    tail = min(stats.binom.cdf(count, n, p), stats.binom.sf(count - 1, n, p))
    return 2 * tail > ALARM / tests


def likely_counts(counts: np.ndarray, n: int, p: float) -> bool:
    """Whether independent Binomial(n, p) counts, all large, have a likely chi-square: neither large nor small."""
    chi = ((counts - n * p) ** 2 / (n * p * (1 - p))).sum()
    return ALARM / 2 < stats.chi2.cdf(chi, counts.size) < 1 - ALARM / 2


RATES = {1e-4: 1 << 26, 1e-2: 1 << 24, 0.3: 1 << 20}  # bit error rate -> weights


@pytest.fixture(scope="module", params=RATES, ids=lambda rate: f"p={rate}")
def sample(request) -> tuple[float, int, np.ndarray]:
    """A rate, the number of arrays of a large chip, and the addresses of its failing cells."""
    rate, weights = request.param, RATES[request.param]
    return rate, weights // 4096, bits(masks(weights, rate, FaultModel())[0][0])


def test_rate(sample):
    rate, arrays, cells = sample
    assert likely(cells.size, arrays * CELLS, rate)


def test_rate_per_bit_position(sample):
    rate, arrays, cells = sample
    assert likely_counts(np.bincount(cells % 8, minlength=8), arrays * CELLS // 8, rate)


def test_rate_per_row(sample):
    rate, arrays, cells = sample
    assert likely_counts(np.bincount(cells % CELLS // 64, minlength=512), arrays * 64, rate)


def test_rate_per_column(sample):
    rate, arrays, cells = sample
    assert likely_counts(np.bincount(cells % 64, minlength=64), arrays * 512, rate)


def test_counts_per_array_are_binomial(sample):
    """Chi-square over all values of the count, those expected fewer than 20 times put together."""
    rate, arrays, cells = sample
    counts = np.bincount(cells // CELLS, minlength=arrays)
    edges, expected, low = [], [], 0.0
    for k in range(int(stats.binom.ppf(1e-12, CELLS, rate)), int(stats.binom.isf(1e-12, CELLS, rate))):
        high = stats.binom.cdf(k, CELLS, rate)
        if (high - low) * arrays >= 20 and (1 - high) * arrays >= 20:
            edges.append(k + 1)
            expected.append((high - low) * arrays)
            low = high
    expected.append((1 - low) * arrays)
    observed = np.bincount(np.searchsorted(edges, counts, side="right"), minlength=len(expected))
    assert len(expected) >= 10
    assert stats.chisquare(observed, expected).pvalue > ALARM


def test_variance_of_the_count_is_binomial(sample):
    """Not that of the hits, which is larger. The variance of m counts has relative variance
    2 / (m - 1) + kurtosis / m."""
    rate, arrays, cells = sample
    counts = np.bincount(cells // CELLS, minlength=arrays)
    spread = np.sqrt(2 / (arrays - 1) + (1 - 6 * rate * (1 - rate)) / (CELLS * rate * (1 - rate)) / arrays)
    z = (counts.var(ddof=1) / (CELLS * rate * (1 - rate)) - 1) / spread
    assert abs(z) < stats.norm.isf(ALARM / 2)


@pytest.mark.parametrize("rate", [1e-2, 0.3])
def test_neighboring_cells_are_independent(rate):
    """Pairs of failing cells at every distance up to two rows, and at multiples of a row, within an array. The
    number of such pairs has mean n p^2 and variance n p^2 (1 - p^2) + 2 (n - lag) (p^3 - p^4) or a little less:
    pairs share cells."""
    arrays = 2048 if rate < 0.1 else 256
    failing = np.unpackbits(masks(arrays * 4096, rate, FaultModel())[0][0], bitorder="little")
    failing = failing.reshape(arrays, CELLS).view(bool)
    lags = [*range(1, 129), *range(192, 1024, 64), 4096, 16384]
    for lag in lags:
        n = arrays * (CELLS - lag)
        pairs = np.count_nonzero(failing[:, lag:] & failing[:, :-lag])
        spread = np.sqrt(n * rate**2 * (1 - rate**2) + 2 * n * (rate**3 - rate**4))
        assert abs(pairs - n * rate**2) / spread < stats.norm.isf(ALARM / len(lags) / 2), lag


def coincidences(a: np.ndarray, b: np.ndarray) -> int:
    return int(bits_set(a & b))


@pytest.mark.parametrize("rate", [1e-2, 0.3])
def test_arrays_are_independent(rate):
    """The same cell of array a and of array a + lag: disjoint pairs of arrays, so the count is binomial."""
    arrays = 4096 if rate < 0.1 else 512
    failing = masks(arrays * 4096, rate, FaultModel())[0].reshape(arrays, 4096)
    lags = [1, 2, 4, 16, 256]
    for lag in lags:
        blocks = failing.reshape(-1, 2, lag, 4096)
        n = arrays // 2 * CELLS
        assert likely(coincidences(blocks[:, 0], blocks[:, 1]), n, rate**2, len(lags)), lag


@pytest.mark.parametrize("rate", [1e-2, 0.3])
def test_chips_are_independent(rate):
    """Consecutive seeds, seeds that differ in one bit of either half, a seed and its swapped halves; also chip
    s + 1's array a against chip s's array a + 1."""
    seed = 0x0123456789ABCDEF
    others = [seed + 1, seed ^ 1 << 31, seed ^ 1 << 32, seed ^ 1 << 63, 0x89ABCDEF01234567]
    arrays = 1024 if rate < 0.1 else 256
    failing = masks(arrays * 4096, rate, FaultModel(), [seed, *others])[0]
    for other in failing[1:]:
        assert likely(coincidences(failing[0], other), arrays * CELLS, rate**2, len(others) + 1)
    diagonal = coincidences(failing[0, 4096:], failing[1, :-4096])
    assert likely(diagonal, (arrays - 1) * CELLS, rate**2, len(others) + 1)


@pytest.mark.parametrize("what", ["arrays", "chips"])
def test_counts_are_uncorrelated(what):
    """The number of failing cells of neighbors: Pearson's correlation of 4,000 pairs."""
    if what == "arrays":
        counts = bits_set(masks(8000 * 4096, 1e-2, FaultModel())[0].reshape(-1, 2, 4096), -1)
    else:
        counts = bits_set(masks(4096, 1e-2, FaultModel(), range(8000))[0], -1).reshape(-1, 2)
    assert stats.pearsonr(counts[:, 0], counts[:, 1]).pvalue > ALARM


# -- what failing cells do --------------------------------------------------------------------------------------


def read(model: FaultModel, rate: float, weights: int, access: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random weights and what the memory returns for them, as bits."""
    stored = np.random.default_rng(5).integers(-128, 128, weights, np.int8)
    got = CALL.corrupt(
        torch.from_numpy(stored),
        ops.encode_chips([77]),
        ops.encode_rate(rate),
        ops.encode_kind(model),
        ops.encode_addresses(model),
        None,
        torch.tensor([access]),
    )
    return tuple(np.unpackbits(x.view(np.uint8)).view(bool) for x in (stored, got[0].numpy()))


@pytest.mark.parametrize("rate", [1e-3, 0.3])
@pytest.mark.parametrize(
    ("model", "zero_wrong", "one_wrong"),
    [
        (FaultModel(FaultKind.FLIP), 1.0, 1.0),
        (FaultModel(FaultKind.STUCK_AT_RANDOM), 0.5, 0.5),
        (FaultModel(FaultKind.STUCK_AT_RANDOM, polarity=0.2), 0.2, 0.8),
        (FaultModel(FaultKind.STUCK_AT_0), 0.0, 1.0),
        (FaultModel(FaultKind.STUCK_AT_1), 1.0, 0.0),
        (FaultModel(FaultKind.TRANSIENT, read_error=0.3), 0.3, 0.3),
    ],
    ids=["flip", "stuck_half", "stuck_fifth", "stuck_at_0", "stuck_at_1", "transient"],
)
def test_zeros_read_as_ones_and_ones_as_zeros(model, zero_wrong, one_wrong, rate):
    """Each at its own rate: stored zeros read 1, stored ones read 0, and the sum is the visible rate."""
    stored, got = read(model, rate, 1 << 22 if rate < 0.1 else 1 << 19)
    assert likely(np.count_nonzero(got & ~stored), np.count_nonzero(~stored), rate * zero_wrong, 3)
    assert likely(np.count_nonzero(stored & ~got), np.count_nonzero(stored), rate * one_wrong, 3)
    assert likely(np.count_nonzero(stored != got), stored.size, rate * model.visible_rate, 3)


@pytest.mark.parametrize("rate", [1e-2, 0.7])
@pytest.mark.parametrize("polarity", [0.5, 0.2, 0.999])
def test_polarity(rate, polarity):
    """Given the failing cells, the share stuck at 1 is the polarity, also where many cells are hit twice; in every
    column alike, and independently of the neighbor's."""
    model = FaultModel(FaultKind.STUCK_AT_RANDOM, polarity=polarity)
    failing, states = (bits(mask[0]) for mask in masks(1 << 21 if rate < 0.1 else 1 << 18, rate, model))
    assert likely(states.size, failing.size, polarity, 66)
    for column in range(64):
        ones, cells = (np.count_nonzero(x % 64 == column) for x in (states, failing))
        assert likely(ones, cells, polarity, 66)
    state = np.isin(failing, states)
    both = np.count_nonzero(state[0 : state.size // 2 * 2 : 2] & state[1::2])
    assert likely(both, state.size // 2, polarity**2, 66)


@pytest.mark.parametrize("rate", [1e-2, 0.7])
@pytest.mark.parametrize("read_error", [0.5, 0.1])
def test_transient_reads(rate, read_error):
    """Each read of a failing cell is wrong with probability q, independently of the reads before."""
    model = FaultModel(FaultKind.TRANSIENT, read_error=read_error)
    weights = 1 << 21 if rate < 0.1 else 1 << 18
    reads = [masks(weights, rate, model, access=access) for access in (0, 1, 2, 1000)]
    failing = int(bits_set(reads[0][0]))
    wrong = [states for _, states in reads]
    for states in wrong:
        assert likely(int(bits_set(states)), failing, read_error, 10)
    for i in range(4):
        for j in range(i):
            assert likely(coincidences(wrong[i], wrong[j]), failing, read_error**2, 10)


# -- the layout of the published code ---------------------------------------------------------------------------

NEURALFUSE = FaultModel.preset("neuralfuse_2022")


def test_neuralfuse_repetition():
    """Weight i reads row (i // 256) mod 8192 and column group i mod 16 of one map of 8,192 x 128 cells."""
    weights = 8192 * 256 + 300_000  # once around the map, and on
    failing, states = (mask[0] for mask in masks(weights, 1e-2, NEURALFUSE))
    i = np.arange(weights)
    first_use = (np.arange(8192) * 256)[:, None] + np.arange(
        16
    )  # row r, group k: weight 256 r + k is its first
    for mask in (failing, states):
        np.testing.assert_array_equal(mask, mask[first_use][i // 256 % 8192, i % 16])
    cells = np.unpackbits(failing[first_use], axis=1, bitorder="little")
    assert cells.shape == (8192, 128)
    assert likely(int(cells.sum(dtype=int)), cells.size, 1e-2)
    assert likely_counts(cells.sum(0, dtype=int), 8192, 1e-2)


def test_neuralfuse_visible_rate_is_half():
    """Half of the failing bits read wrong: given them, the number of wrong ones is Binomial(failing, 1/2), as
    the stored bits are random."""
    stored, got = read(NEURALFUSE, 1e-2, 8192 * 256)
    failing = int(bits_set(masks(8192 * 256, 1e-2, NEURALFUSE, [77])[0]))
    assert likely(failing // 16, 8192 * 128, 1e-2, 2)
    assert failing % 16 == 0
    assert likely(np.count_nonzero(stored != got), failing, 0.5, 2)


def test_neuralfuse_spreads_more_than_iid():
    """Failing bits of one layer come in sixteens: their number has 16 times the binomial variance, over 300 chips."""
    weights, rate, chips = 256 * 512, 1e-2, 300
    n = weights * 8
    for memory, factor in ((SRAM(Placement.NEURALFUSE_2022), 16), (SRAM(), 1)):
        model = FaultModel(FaultKind.STUCK_AT_RANDOM, memory)
        counts = bits_set(masks(weights, rate, model, range(chips))[0], -1)
        chi = (chips - 1) * counts.var(ddof=1) / (factor * n * rate * (1 - rate))
        assert ALARM / 4 < stats.chi2.cdf(chi, chips - 1) < 1 - ALARM / 4
