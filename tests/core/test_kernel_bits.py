"""Do the reference, every CPU path and CUDA give the same bits, whatever the shape, strides, threads and cut?"""

import shutil
import subprocess
from functools import lru_cache
from itertools import pairwise

import numpy as np
import pytest
import torch

from faultsim.faults import FaultKind, FaultModel
from faultsim.kernel import ops, reference
from faultsim.sram import SRAM, Placement

CALL = torch.ops.faultsim
SEEDS = [0, 12345, 2**32 + 7, 2**63, 2**64 - 1]
RATES = [0.0, 1e-4, 1e-3, 1e-2, 0.3]

# Fault model, and the reference's words for it: kind, probability of state 1, access.
KINDS = {
    "flip": (FaultModel(FaultKind.FLIP), "flip", 0.5, 0),
    "stuck_half": (FaultModel(FaultKind.STUCK_AT_RANDOM), "stuck", 0.5, 0),
    "stuck_fifth": (FaultModel(FaultKind.STUCK_AT_RANDOM, polarity=0.2), "stuck", 0.2, 0),
    "stuck_most": (FaultModel(FaultKind.STUCK_AT_RANDOM, polarity=0.987654321), "stuck", 0.987654321, 0),
    "stuck_at_0": (FaultModel(FaultKind.STUCK_AT_0), "stuck", 0.0, 0),
    "stuck_at_1": (FaultModel(FaultKind.STUCK_AT_1), "stuck", 1.0, 0),
    "transient_half": (FaultModel(FaultKind.TRANSIENT), "transient", 0.5, 0),
    "transient_rare": (FaultModel(FaultKind.TRANSIENT, read_error=0.03), "transient", 0.03, 5),
    "transient_always": (FaultModel(FaultKind.TRANSIENT, read_error=1.0), "transient", 1.0, 2**32 - 1),
    "transient_never": (FaultModel(FaultKind.TRANSIENT, read_error=0.0), "transient", 0.0, 1),
}
# Placement, capacity and base address, and the reference's words for them.
PLACES = {
    "unlimited": (Placement.UNLIMITED, 262144, 0, dict(blocks=0)),
    "unlimited_odd": (Placement.UNLIMITED, 262144, 4099, dict(blocks=0)),
    "tiled_one": (Placement.TILED, 4096, 0, dict(blocks=1)),
    "tiled_three_odd": (Placement.TILED, 3 * 4096, 20477, dict(blocks=3)),
    "tiled_large": (Placement.TILED, 262144, 262144 - 5000, dict(blocks=64)),
    "tiled_per_layer": (Placement.TILED_PER_LAYER, 2 * 4096, 0, dict(blocks=2)),
    "neuralfuse_2022": (Placement.NEURALFUSE_2022, 262144, 0, dict(blocks=32, word=16, repeat=16)),
    "neuralfuse_odd": (Placement.NEURALFUSE_2022, 262144, 2035709, dict(blocks=32, word=16, repeat=16)),
}
FLIP = KINDS["flip"]
NEAR = [0, 0, 1, 1]  # base 0, memory without end, no repetition


def weights_of(*shape: int) -> torch.Tensor:
    """Every byte value, in no order."""
    return torch.from_numpy(np.random.default_rng(1).integers(-128, 128, shape, np.int8))


@lru_cache(maxsize=4096)
def expected(size: int, seed: int, rate: float, kind: str, ones: float, access: int, offset: int, place):
    """The reference's masks; `place` are its keywords, sorted."""
    return reference.fault_mask(size, seed, rate, kind, ones, access, offset, **dict(place))


def by_reference(source: torch.Tensor, seeds: list[int], rate: float, case=FLIP, base=0, offset=0, **place):
    """What each chip reads, int8 [n_chips, *shape], by the reference alone."""
    _, kind, ones, access = case
    flat = source.contiguous().numpy().reshape(-1)
    where = tuple(sorted({"base": base, **place}.items()))
    rows = [
        reference.read_word(kind, flat, *expected(flat.size, seed, rate, kind, ones, access, offset, where))
        for seed in seeds
    ]
    return torch.from_numpy(np.stack(rows)).reshape(len(seeds), *source.shape)


def arguments(device: str, seeds: list[int], rate: float, model=FLIP[0], base=0, offset=0, access=0):
    """The operators' common arguments."""
    number = torch.tensor([offset, access], device=device)
    chips, table = ops.encode_chips(seeds, device), ops.encode_rate(rate, device)
    return chips, table, ops.encode_kind(model), ops.encode_addresses(model, base), number[:1], number[1:]


def equal(got: torch.Tensor, want: torch.Tensor) -> bool:
    """Same dtype, shape and bits (-0 is not 0 here)."""
    bits = {1: torch.int8, 2: torch.int16, 4: torch.int32}[want.element_size()]
    same = got.dtype == want.dtype and got.shape == want.shape
    return same and torch.equal(got.cpu().contiguous().view(bits), want.contiguous().view(bits))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", KINDS)
def test_kinds_and_placements(engine, kind, place):
    """corrupt, corrupt_ and fault_mask of every kind in every placement."""
    kind_model, word, ones, access = case = KINDS[kind]
    placement, capacity, base, where = PLACES[place]
    model = FaultModel(kind_model.kind, SRAM(placement, capacity), kind_model.polarity, kind_model.read_error)
    source = weights_of(3 * 4096 + 1237)
    on = source.to(engine.device)
    for rate in RATES:
        seeds = SEEDS if rate == 1e-2 else SEEDS[1:2]
        common = arguments(engine.device, seeds, rate, model, base, access=access)
        assert equal(CALL.corrupt(on, *common), by_reference(source, seeds, rate, case, base, **where))
        failing, states = CALL.fault_mask(on, *common)
        keywords = tuple(sorted({"base": base, **where}.items()))
        pairs = [expected(source.numel(), seed, rate, word, ones, access, 0, keywords) for seed in seeds]
        assert equal(failing, torch.from_numpy(np.stack([pair[0] for pair in pairs])))
        assert equal(states, torch.from_numpy(np.stack([pair[1] for pair in pairs])))
        again = on.clone()
        CALL.corrupt_(again, *arguments(engine.device, seeds[:1], rate, model, base, access=access))
        assert equal(again, by_reference(source, seeds[:1], rate, case, base, **where)[0])
        assert equal(on, source)  # out of place means what it says


@pytest.mark.parametrize("dtype", ops.FLOATS, ids=str)
@pytest.mark.parametrize("place", PLACES)
def test_kinds_and_placements_dequantized(engine, place, dtype):
    """corrupt_dequantize and corrupt_dequantize.out of every kind in every placement to every dtype."""
    placement, capacity, base, where = PLACES[place]
    source = weights_of(3 * 4096 + 1237)
    on, scale = source.to(engine.device), torch.tensor([0.0123], device=engine.device)
    for kind_model, word, ones, access in KINDS.values():
        model = FaultModel(
            kind_model.kind, SRAM(placement, capacity), kind_model.polarity, kind_model.read_error
        )
        for rate, seeds in ((1e-3, SEEDS[1:2]), (1e-2, SEEDS[:2]), (0.3, SEEDS[1:2])):
            common = arguments(engine.device, seeds, rate, model, base, access=access)
            faulty = by_reference(source, seeds, rate, (model, word, ones, access), base, **where).numpy()
            wanted = reference.dequantize(faulty, np.float32(0.0123), None, str(dtype).removeprefix("torch."))
            want = torch.from_numpy(wanted).view(dtype)  # bfloat16 comes as its bits
            got = CALL.corrupt_dequantize(on, scale, -1, dtype, *common)
            assert equal(got, want)
            out = torch.empty_like(got)
            CALL.corrupt_dequantize.out(on, scale, -1, *common, out=out)
            assert equal(out, want)


@pytest.mark.parametrize("kind", ["flip", "stuck_half", "stuck_fifth", "transient_half"])
def test_every_cell_fails_at_one(engine, kind):
    """p = 1: all cells fail; two million hits decide the states."""
    model, *_, access = KINDS[kind]
    source = weights_of(4096)
    got = CALL.corrupt(source.to(engine.device), *arguments(engine.device, [7], 1.0, model, access=access))
    assert equal(got, by_reference(source, [7], 1.0, KINDS[kind]))


@pytest.mark.parametrize("base", [0, 1, 4095, 4096, 65535])
def test_sizes(engine, base):
    """Empty, tiny, odd, around a word, a vector and an array."""
    for size in [0, 1, 2, 7, 8, 9, 31, 63, 64, 65, 127, 255, 1000, 4095, 4096, 4097, 8191, 12301]:
        source = weights_of(size)
        for kind in ("flip", "stuck_half"):
            for rate in (1e-3, 1e-2):
                common = arguments(engine.device, [3, 4], rate, KINDS[kind][0], base)
                got = CALL.corrupt(source.to(engine.device), *common)
                assert equal(got, by_reference(source, [3, 4], rate, KINDS[kind], base))


def test_nothing_in_nothing_out(engine):
    source = weights_of(5, 0, 3).to(engine.device)
    common = arguments(engine.device, [1, 2], 1e-2)
    scale = torch.ones(3, device=engine.device)
    assert CALL.corrupt(source, *common).shape == (2, 5, 0, 3)
    assert CALL.corrupt_dequantize(source, scale, 2, torch.float16, *common).shape == (2, 5, 0, 3)
    assert CALL.corrupt_dequantize(source, scale[:0], 1, torch.float32, *common).shape == (2, 5, 0, 3)
    assert [mask.shape for mask in CALL.fault_mask(source, *common)] == [(2, 5, 0, 3)] * 2
    CALL.corrupt_(source, *arguments(engine.device, [1], 1e-2))
    assert CALL.corrupt(weights_of(9).to(engine.device), *arguments(engine.device, [], 1e-2)).shape == (0, 9)


@pytest.mark.parametrize("dtype", ops.FLOATS, ids=str)
@pytest.mark.parametrize("axis", [-1, 0, 1, 2, 3])
def test_dequantized(engine, dtype, axis):
    """Scales per tensor and along every axis; among them such that products vanish or overflow."""
    source = weights_of(24, 5, 11, 9)  # 11,880 weights: nearly three arrays
    generator = np.random.default_rng(axis + 2)
    count = 1 if axis < 0 else source.shape[axis]
    scales = [np.float32(0.0123), np.float32(1e-7), np.float32(700.0), np.float32(-3.3e-4), np.float32(1e-40)]
    for scale in scales:
        values = (scale * generator.uniform(0.5, 2, count)).astype(np.float32)
        for kind, base, rate in [("flip", 0, 1e-2), ("stuck_half", 4093, 1e-3), ("transient_half", 3, 1e-3)]:
            common = arguments(engine.device, [11, 12], rate, KINDS[kind][0], base)
            got = CALL.corrupt_dequantize(
                source.to(engine.device), torch.from_numpy(values).to(engine.device), axis, dtype, *common
            )
            faulty = by_reference(source, [11, 12], rate, KINDS[kind], base).numpy()
            name = str(dtype).removeprefix("torch.")
            along = axis if axis >= 0 else None
            want = torch.from_numpy(np.stack([reference.dequantize(q, values, along, name) for q in faulty]))
            want = want.view(dtype)  # bfloat16 comes as its bits
            assert equal(got, want)
            out = torch.empty_like(got)
            scale_on = torch.from_numpy(values).to(engine.device)
            CALL.corrupt_dequantize.out(source.to(engine.device), scale_on, axis, *common, out=out)
            assert equal(out, want)


@pytest.mark.parametrize("dtype", ops.FLOATS, ids=str)
def test_rounding_of_every_value(engine, dtype):
    """All 256 weights times 4,000 scales over the whole range of float16, against torch's own conversion."""
    generator = np.random.default_rng(3)
    scales = np.exp2(generator.uniform(-34, 20, 4000)).astype(np.float32)
    scales[:64] = np.exp2(np.arange(-32, 32, dtype=np.float32))  # exact ties among them
    source = torch.arange(-128, 128).to(torch.int8).repeat(scales.size, 1)
    got = CALL.corrupt_dequantize(
        source.to(engine.device),
        torch.from_numpy(scales).to(engine.device),
        0,
        dtype,
        *arguments(engine.device, [1], 0.0),
    )
    assert equal(got[0], (source.float() * torch.from_numpy(scales)[:, None]).to(dtype))


@pytest.mark.parametrize("place", ["unlimited_odd", "tiled_three_odd", "neuralfuse_odd"])
@pytest.mark.parametrize("kind", ["flip", "stuck_fifth", "transient_half"])
def test_one_thread_is_many(engine, threads, kind, place):
    """Two million weights: enough for eight threads."""
    placement, capacity, base, _ = PLACES[place]
    model = FaultModel(KINDS[kind][0].kind, SRAM(placement, capacity), polarity=0.2)
    source = weights_of(2_000_003).to(engine.device)
    scale = torch.tensor([0.01], device=engine.device)
    results = []
    for count in (1, 2, 3, 8):
        threads(count)
        common = arguments(engine.device, [5], 1e-3, model, base)
        results.append(
            [
                CALL.corrupt(source, *common),
                CALL.corrupt_dequantize(source, scale, -1, torch.float32, *common),
                *CALL.fault_mask(source, *common),
            ]
        )
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("place", PLACES)
def test_any_cut_gives_the_same_faults(engine, place):
    """A tensor in pieces, each with its own base address, reads like the whole."""
    placement, capacity, base, where = PLACES[place]
    model = FaultModel(FaultKind.STUCK_AT_RANDOM, SRAM(placement, capacity))
    source = weights_of(150_001 if "neuralfuse" in place else 30_011)
    on = source.to(engine.device)
    whole = CALL.corrupt(on, *arguments(engine.device, [9], 1e-2, model, base))[0]
    assert equal(whole, by_reference(source, [9], 1e-2, KINDS["stuck_half"], base, **where)[0])
    generator = np.random.default_rng(4)
    for pieces in (2, 5, 40):
        cuts = [0, *sorted(generator.integers(0, source.numel() + 1, pieces - 1).tolist()), source.numel()]
        parts = [
            CALL.corrupt(on[a:b], *arguments(engine.device, [9], 1e-2, model, base + a))[0]
            for a, b in pairwise(cuts)
        ]
        assert torch.equal(torch.cat(parts), whole)


def views() -> dict[str, torch.Tensor]:
    """Tensors that are not contiguous, or start at odd addresses."""
    block = weights_of(6, 8, 12, 10)
    return {
        "channels_last": block.clone(memory_format=torch.channels_last),
        "transposed": block.transpose(0, 2),
        "permuted": block.permute(3, 1, 0, 2),
        "steps": block[::2, 1:, ::3, 3:9:2],
        "expanded": block[:1].expand(6, 8, 12, 10),
        "flat_at_1": weights_of(9001)[1:],
        "flat_at_3": weights_of(9001)[3:8200],
        "flat_at_13": weights_of(9001)[13:-7],
        "column": weights_of(5000, 3)[:, 1],
        "scalar": weights_of(1).reshape(()),
    }


@pytest.mark.parametrize("view", views())
def test_strides_do_not_matter(engine, view):
    """Cells follow the row-major logical order, whatever the strides and the address of the first byte."""
    source = views()[view]
    plain = source.clone(memory_format=torch.contiguous_format)
    storage = source.as_strided((source.untyped_storage().nbytes(),), (1,), 0)
    on = storage.to(engine.device).as_strided(source.shape, source.stride(), source.storage_offset())
    scale = torch.tensor([0.37], device=engine.device)
    for kind in ("flip", "stuck_half"):
        for rate in (1e-3, 1e-2):
            common = arguments(engine.device, [21, 22], rate, KINDS[kind][0], 5)
            want = by_reference(plain, [21, 22], rate, KINDS[kind], 5)
            got = CALL.corrupt(on, *common)
            assert equal(got, want)
            assert got.is_contiguous()
            assert equal(CALL.corrupt_dequantize(on, scale, -1, torch.float32, *common), want.float() * 0.37)
            masks, plain_masks = (CALL.fault_mask(x, *common) for x in (on, plain.to(engine.device)))
            assert all(torch.equal(a, b) for a, b in zip(masks, plain_masks, strict=True))


def test_in_place_stays_inside_its_view(engine):
    """A view's faults land in the view, and not one byte beside it changes."""
    buffer = weights_of(20_000)
    for begin, end, step in [(1, 9000, 1), (13, 13, 1), (4097, 4098, 1), (63, 19_999, 1), (5, 19_000, 3)]:
        for kind in ("flip", "stuck_fifth"):
            on = buffer.clone().to(engine.device)
            CALL.corrupt_(on[begin:end:step], *arguments(engine.device, [31], 1e-2, KINDS[kind][0], 7))
            want = buffer.clone()
            want[begin:end:step] = by_reference(buffer[begin:end:step], [31], 1e-2, KINDS[kind], 7)[0]
            assert equal(on, want)
    image = weights_of(4, 6, 9, 7).clone(memory_format=torch.channels_last)
    on = image.clone().to(engine.device)
    CALL.corrupt_(on, *arguments(engine.device, [31], 1e-2))
    assert equal(on, by_reference(image, [31], 1e-2)[0])


@pytest.mark.parametrize("dtype", ops.FLOATS, ids=str)
def test_float_output_at_odd_addresses(engine, dtype):
    """`out` may begin at any element of a larger buffer; its neighbors stay as they were."""
    source = weights_of(8200)
    on, scale = source.to(engine.device), torch.tensor([0.5], device=engine.device)
    for shift in (0, 1, 3, 7):
        buffer = torch.full((8200 + 16,), 77.0, dtype=dtype, device=engine.device)
        out = buffer[shift : shift + 8200].view(1, 8200)
        CALL.corrupt_dequantize.out(on, scale, -1, *arguments(engine.device, [2], 1e-2, base=shift), out=out)
        want = torch.full((8200 + 16,), 77.0, dtype=dtype)
        want[shift : shift + 8200] = (by_reference(source, [2], 1e-2, base=shift)[0].float() * 0.5).to(dtype)
        assert equal(buffer, want)


@pytest.mark.parametrize("count", [1, 5, 6, 7, 14])
def test_a_batch_is_each_chip_alone(engine, count):
    source = weights_of(9000).to(engine.device)
    seeds = [2**63 + 17 * i for i in range(count)]
    scale = torch.rand(9000, generator=torch.Generator().manual_seed(0)).to(engine.device)
    for kind in ("flip", "stuck_fifth", "transient_half"):
        for place in ("unlimited_odd", "tiled_three_odd", "neuralfuse_2022"):
            placement, capacity, base, _ = PLACES[place]
            model = FaultModel(KINDS[kind][0].kind, SRAM(placement, capacity), polarity=0.2)
            for rate in (1e-3, 2e-2):  # with and without the short way for few faults
                together = arguments(engine.device, seeds, rate, model, base, access=3)
                whole = CALL.corrupt(source, *together), *CALL.fault_mask(source, *together)
                floats = CALL.corrupt_dequantize(source, scale, 0, torch.bfloat16, *together)
                for i, seed in enumerate(seeds):
                    alone = arguments(engine.device, [seed], rate, model, base, access=3)
                    single = CALL.corrupt(source, *alone), *CALL.fault_mask(source, *alone)
                    assert all(torch.equal(a[i], b[0]) for a, b in zip(whole, single, strict=True))
                    single_floats = CALL.corrupt_dequantize(source, scale, 0, torch.bfloat16, *alone)
                    assert torch.equal(floats[i], single_floats[0])


@pytest.mark.cuda
@pytest.mark.parametrize("kind", ["flip", "stuck_fifth", "transient_half"])
@pytest.mark.parametrize(("rows", "columns", "count"), [(9, 4096, 10), (500, 4099, 20), (4700, 4608, 3)])
def test_chips_in_any_number_of_blocks(kind, rows, columns, count):
    """A GPU draws few arrays of many chips in a block for each, and many arrays in blocks of several or all chips (on
    one of 132 processors: 1, 3 and 3 chips a block). A scale for each row; against the CPU."""
    source = weights_of(rows, columns)
    scale = torch.rand(rows, generator=torch.Generator().manual_seed(0))
    results = []
    for device in ("cpu", "cuda"):
        common = arguments(device, [2**63 + i for i in range(count)], 1e-2, KINDS[kind][0], access=3)
        on, scales = source.to(device), scale.to(device)
        results.append(
            [
                CALL.corrupt(on, *common),
                *(CALL.corrupt_dequantize(on, scales, 0, dtype, *common) for dtype in ops.FLOATS),
                *CALL.fault_mask(on, *common),
            ]
        )
    assert all(equal(got, want) for want, got in zip(*results, strict=True))


@pytest.mark.parametrize("place", [Placement.UNLIMITED, Placement.NEURALFUSE_2022])
@pytest.mark.parametrize("kind", [FaultKind.FLIP, FaultKind.STUCK_AT_RANDOM])
def test_few_faults_at_the_edges_of_a_piece(engine, kind, place):
    """With few faults the CPU copies the weights and repairs single words: so many chips that every byte of the
    first and last words has faults, against the masks, which are made another way."""
    model, seeds = FaultModel(kind, SRAM(place)), range(2000)
    source = weights_of(21).to(engine.device)
    for base in (*range(16), *range(4084, 4096), *range(65_528, 65_536)):
        common = arguments(engine.device, seeds, 1e-3, model, base)
        failing, states = CALL.fault_mask(source, *common)
        stored = source.view(torch.uint8).expand_as(failing)
        assert (failing != 0).any(0).all()
        want = stored ^ failing if kind == FaultKind.FLIP else stored & ~failing | states
        assert torch.equal(CALL.corrupt(source, *common).view(torch.uint8), want)


@pytest.mark.parametrize("offset", [1, 1000, 2**31, 2**32 - 1, 2**32 + 2, -1])
def test_block_offset(engine, offset):
    """Added to the block index, modulo 2**32: the block number is one word of the counter."""
    source = weights_of(9000)
    for kind in ("flip", "stuck_fifth", "transient_rare"):
        model, *_, access = KINDS[kind]
        common = arguments(engine.device, [8], 1e-2, model, 3, offset, access)
        got = CALL.corrupt(source.to(engine.device), *common)
        assert equal(got, by_reference(source, [8], 1e-2, KINDS[kind], 3, offset=offset % 2**32))
    if 0 < offset <= 1000:
        common = arguments(engine.device, [8], 1e-2, base=4096 * offset)
        shifted = CALL.corrupt(source.to(engine.device), *common)
        assert equal(shifted, by_reference(source, [8], 1e-2, offset=offset))


def test_without_offset_and_access_they_are_zero(engine):
    source = weights_of(5000).to(engine.device)
    model = KINDS["transient_half"][0]
    common = arguments(engine.device, [8], 1e-2, model)
    assert torch.equal(CALL.corrupt(source, *common[:4]), CALL.corrupt(source, *common))


def last_level_cache() -> int:
    """Bytes, as sysconf() tells the kernel; 0 where it doesn't (Python's own sysconf() lacks the name)."""
    getconf = shutil.which("getconf")
    if getconf is None:
        return 0
    answer = subprocess.run([getconf, "LEVEL3_CACHE_SIZE"], capture_output=True, text=True, check=False)
    return int(answer.stdout) if answer.stdout.strip().isdigit() else 0


@pytest.mark.parametrize("kind", ["flip", "stuck_half"])
def test_outputs_larger_than_the_cache(engine, kind):
    """Such outputs are written past the cache by other instructions: 5,003 weights for very many chips, so
    that each chip's row begins at another alignment."""
    if engine.device == "cuda":
        pytest.skip("a matter of the CPU paths")
    cache = last_level_cache()
    needed = (cache or 48 << 20) * 3 // 4
    if needed > 1 << 30:
        pytest.skip(f"a cache of {cache >> 20} MiB here: an output beyond it is too large for a test")
    source = weights_of(5003)
    count = needed // source.numel() + 2
    seeds = [3 * i + 1 for i in range(count)]
    common = arguments("cpu", seeds, 2e-4, KINDS[kind][0], 4093)
    got = CALL.corrupt(source, *common)
    for i in [*range(0, 70), count // 2, count - 2, count - 1]:
        assert equal(got[i : i + 1], by_reference(source, seeds[i : i + 1], 2e-4, KINDS[kind], 4093)), i
    for i in range(70, count, count // 500):
        assert torch.equal(got[i], CALL.corrupt(source, common[0][i : i + 1], *common[1:])[0]), i


def test_number_of_hits_at_every_table_size(engine):
    """The kernels' search of the table, with thresholds made around the uniform that the seed draws."""
    seed, source = 99, weights_of(4096).to(engine.device)
    words = reference.philox4x32(seed, np.array([[c, 0, 0, 0] for c in range(16)], np.uint32)).reshape(-1)
    uniform, hits = int(words[0]) | int(words[1]) << 32, words.astype("<u4").view("<u2")[4:]
    for first in (0, 5):
        for size in range(0, 24):
            for below in range(size + 1):  # thresholds at or below the uniform
                low = [max(uniform - (below - 1 - i), 1) for i in range(below)]  # the last of them equals it
                high = [uniform + 1 + i for i in range(size - below)]
                table = torch.from_numpy(np.array([first, 0, *low, *high], np.uint64).view(np.int64))
                chips, _, *rest = arguments(engine.device, [seed], 0.5)
                failing, _ = CALL.fault_mask(source, chips, table.to(engine.device), *rest)
                want = np.zeros(32768, bool)
                want[hits[: first + below] & 0x7FFF] = True
                assert np.array_equal(failing[0].cpu().numpy(), np.packbits(want, bitorder="little"))
