"""Do the kernel's reads of a protected memory give the bits of the two references together (which cells fail, and what
a word becomes), on every CPU path, and in the CUDA kernel's own text compiled for the CPU?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from faultsim import StoredWeights
from faultsim.formats import INT8, Format
from faultsim.kernel import ops
from faultsim.kernel import reference as cells
from faultsim.kernel.op_checks import Draw
from faultsim.mitigations import (
    SECDED,
    BitMasking,
    InPlaceCode,
    MemoryMitigation,
    Parity,
    WordMasking,
    codec,
    reference,
)
from faultsim.mitigations.codec import ALL_CELLS, Codec, ProtectedTensor, find_codec
from tests.core.test_cuda_logic_on_cpu import build_kernel

Parts = Sequence[tuple[np.uint8 | None, float]]
"""Masks of bits of each byte, None for all, and their bit error rates."""
CHECK_BASE = 1 << 42
SEEDS = (5, 2**63 + 1)
ACCESS = 3
WHOLE = {"flip": 0, "stuck": 2**33, "transient": 2**32}
KINDS = [("flip", 0), ("stuck", 0.5), ("stuck", 0.2), ("transient", 0.3)]
# The third array of weights begins the second one of check bits, in memories that are so large.
PLACES = {
    "unlimited": (8 * 4096 - 8 * 90, 0, 1, 1),
    "tiled": (8 * 4096 + 4096 - 8 * 90, 9, 1, 1),
    "small": (8, 1, 1, 1),
    "repeated": (48, 2, 32, 3),
    "neuralfuse_2022": (0, 32, 16, 16),
}


@dataclass(frozen=True)
class Case:
    """A mitigation, and what it makes of a word: (read, check bits as read, written) -> (word, read again)."""

    mitigation: MemoryMitigation
    expected: Callable[[np.ndarray, int, np.ndarray], tuple[np.ndarray, bool]]
    stored: Format = INT8


def decode_code(policy: str, columns: Sequence[int], in_place: bool):
    def expected(read: np.ndarray, checks: int, written: np.ndarray) -> tuple[np.ndarray, bool]:
        word, flagged = reference.decode_word(read, None if in_place else checks, columns)
        if in_place:
            word, written = reference.restore_signs(word), reference.restore_signs(written)
        return reference.settle_word(word, flagged, written, policy), flagged and policy == "reread"

    return expected


def list_cases() -> list[Case]:
    found = [Case(MemoryMitigation(), lambda read, *_: (read, False))]
    for policy in ("keep", "zero", "reread"):
        for one, in_place in ((SECDED(policy), False), (InPlaceCode(policy), True)):
            found.append(Case(one, decode_code(policy, one.code.columns, in_place)))
    for name in ("int8", "int4", "int3", "int5-unpacked", "bfloat16", "int2"):
        stored = Format.parse(name)
        found += list_masks(stored, reference.list_weights(stored.width, stored.cells))
    return found


def list_masks(stored: Format, weights: list[range]) -> list[Case]:
    found = []
    for granularity in ("weight", "word"):
        found += [
            Case(
                Parity(granularity),
                lambda read, checks, _, how=granularity: (
                    reference.zero_wrong_parity(read, checks, how, weights),
                    False,
                ),
                stored,
            ),
            Case(
                WordMasking(granularity),
                lambda read, _, written, how=granularity: (
                    reference.mask_words(read, written, how, weights),
                    False,
                ),
                stored,
            ),
        ]
    if stored.name.startswith("int"):
        masked = Case(
            BitMasking(), lambda read, _, right: (reference.mask_bits(read, right, weights), False), stored
        )
        found.append(masked)
    return found


CASES = list_cases()
INT8_CASES = [case for case in CASES if case.stored == INT8]


@cache
def make_words(count: int) -> torch.Tensor:
    """Words int8 [count, 8], of which few are different."""
    few = torch.randint(-128, 128, (12, 8), generator=torch.Generator().manual_seed(1)).to(torch.int8)
    return few[torch.arange(count) * 7 % 12]


@cache
def draw_cells(
    count: int, seed: int, rate: float, kind: str, ones: float, base: int
) -> tuple[np.ndarray, ...]:
    """Which cells of the bytes from an address on fail, and their values."""
    return cells.fault_mask(count, seed, rate, kind, ones, ACCESS, base=base)


def read_cells(
    data: np.ndarray,
    at: np.ndarray,
    base: int,
    parts: Sequence[tuple[np.ndarray | None, float]],
    kind: str,
    ones: float,
) -> list[np.ndarray]:
    """What each chip reads of bytes that lie at addresses `base + at`; `parts` are masks of bits and their rates."""
    found = []
    for seed in SEEDS:
        fail, value = np.zeros_like(data), np.zeros_like(data)
        for mask, rate in parts:
            own = draw_cells(int(at.max()) + 1, seed, rate, kind, ones, base)
            keep = np.uint8(255) if mask is None else mask
            fail, value = fail | (own[0][at] & keep), value | (own[1][at] & keep)
        found.append(cells.read_word(kind, data.view(np.int8), fail, value).view(np.uint8))
    return found


class Memory(NamedTuple):
    """How cells fail, where the words lie, the bits of a byte with their rates, and the rate of the check bits."""

    kind: str
    ones: float
    place: tuple[int, ...]
    parts: Parts
    check_rate: float


def expect(case: Case, words: torch.Tensor, memory: Memory) -> tuple[np.ndarray, np.ndarray]:
    """Words [chips, words, 8] and which are read again [chips, words], by the references."""
    written = find_codec(case.mitigation, case.stored).encode(words)
    kind, ones, place, parts, check_rate = memory
    base, blocks, word, repeat = place
    where = cells.locate_weights(8 * len(words), base, blocks=blocks, word=word, repeat=repeat)
    read = read_cells(written.weights.numpy().view(np.uint8).reshape(-1), where, 0, parts, kind, ones)
    if written.checks is None:
        checks = [np.zeros((len(words), 1), np.uint8)] * len(SEEDS)
    else:
        stored = written.checks.numpy().reshape(len(words), -1)
        of_word = stored.shape[1]
        at = (where[::8, None] // 8 * of_word + np.arange(of_word)).reshape(-1)
        rates = [(None, check_rate)]
        checks = [
            one.reshape(len(words), of_word)
            for one in read_cells(stored.reshape(-1), at, CHECK_BASE, rates, kind, ones)
        ]
    known: dict[bytes, tuple[np.ndarray, bool]] = {}
    out = []
    for chip_read, chip_checks in zip(read, checks, strict=True):
        for one, own, right in zip(
            chip_read.view(np.int8).reshape(-1, 8), chip_checks, written.weights.numpy(), strict=True
        ):
            key = one.tobytes() + own.tobytes() + right.tobytes()
            if key not in known:
                known[key] = case.expected(one, int.from_bytes(own.tobytes(), "little"), right)
            out.append(known[key])
    shape = (len(SEEDS), len(words))
    return np.array([word for word, _ in out]).reshape(*shape, 8), np.array([a for _, a in out]).reshape(
        shape
    )


def run(case: Case, words: torch.Tensor, memory: Memory) -> tuple[np.ndarray, np.ndarray]:
    """The same by the kernel."""
    kind, ones, place, parts, check_rate = memory
    known = find_codec(case.mitigation, case.stored)
    layer = StoredWeights.of(nn.Linear(1, 1)).layers[0]  # of no matter where bytes are read
    tensor = ProtectedTensor(known, layer, known.encode(words))
    rule = [list(WHOLE).index(kind), round(ones * WHOLE[kind])]
    draw = Draw(ops.encode_chips(SEEDS), ops.encode_rate(0.0), rule, place, None, torch.tensor([ACCESS]))
    out = torch.empty(len(SEEDS), *words.shape, dtype=torch.int8)
    again = torch.empty(len(SEEDS), len(words), dtype=torch.bool)
    own = [
        (ALL_CELLS if mask is None else int(mask) * (ALL_CELLS // 255), ops.encode_rate(rate))
        for mask, rate in parts
    ]
    tensor.read(draw, own, CHECK_BASE, ops.encode_rate(check_rate), out, again)
    return out.numpy(), again.numpy()


class CudaText:
    """The kernel module whose CPU launchers are the CUDA launchers, compiled for the CPU."""

    def __init__(self, kernel) -> None:
        self._kernel = kernel

    def __getattr__(self, name: str):
        return getattr(self._kernel, name)

    def cpu_paths(self) -> list[str]:
        return ["cuda"]

    def launch_protected_cpu(self, job, threads: int, path: str) -> None:
        self._kernel.launch_protected_cuda(job, 1, 0)

    def launch_decode_cpu(self, job, path: str) -> None:
        self._kernel.launch_decode_cuda(job, 1, 0)


@pytest.fixture
def cuda_text(monkeypatch):
    """What is launched within the test runs the CUDA text."""
    module = CudaText(build_kernel())
    for user in (codec, ops):
        monkeypatch.setattr(user, "_KERNEL", module)
    monkeypatch.setattr(codec, "_described", {})


def check(case: Case, count: int, memory: Memory) -> None:
    words = make_words(count)
    expected, again = expect(case, words, memory)
    for path in ops.list_cpu_paths():
        with ops.use_cpu_path(path):
            found, flagged = run(case, words, memory)
        assert np.array_equal(found, expected), (case.mitigation.label, path, memory)
        assert np.array_equal(flagged, again), (case.mitigation.label, path, memory)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("kind", "ones"), [("flip", 0), ("stuck", 0.5), ("transient", 0.3)])
def test_every_cpu_path(kind, ones, place):
    """Few faults, which are listed, and many; parts of three arrays."""
    for case in INT8_CASES:
        for rate in (1e-3, 0.03):
            check(case, 140, Memory(kind, ones, PLACES[place], [(None, rate)], rate))


@pytest.mark.parametrize("place", ["unlimited", "small", "repeated"])
def test_weights_of_any_width(place):
    """Parity bits of more than eight weights are several bytes a word, whose arrays end inside those of a block."""
    for case in CASES:
        if case.stored != INT8:
            for rate in (1e-3, 0.03):
                check(case, 150, Memory("stuck", 0.5, PLACES[place], [(None, rate)], rate))


@pytest.mark.parametrize(
    "parts",
    [
        [(np.uint8(63), 0.02)],
        [(np.uint8(63), 1e-3)],
        [(np.uint8(15), 0.03), (np.uint8(64), 1e-3)],
        [(np.uint8(1), 1e-3), (np.uint8(2), 2e-3), (np.uint8(128), 1e-3)],
        [(None, 0.0)],
        [(None, 0.5)],
    ],
    ids=["robust bits", "few", "two voltages", "three", "none", "half"],
)
def test_bits_with_rates_of_their_own(parts):
    """The check bits have another rate still."""
    for case in INT8_CASES:
        for kind, ones in (("flip", 0), ("stuck", 0.3)):
            check(case, 60, Memory(kind, ones, PLACES["unlimited"], parts, 0.01))


def test_many_threads_and_chips_agree():
    """Threads take runs of eight arrays, and draw the arrays of check bits again."""
    words = torch.randint(-128, 128, (20_000, 8), generator=torch.Generator().manual_seed(2)).to(torch.int8)
    known = find_codec(SECDED("reread"), INT8)
    layer = StoredWeights.of(nn.Linear(1, 1)).layers[0]
    tensor = ProtectedTensor(known, layer, known.encode(words))
    results = []
    before = torch.get_num_threads()
    for threads, path in ((1, "portable"), (3, ops.list_cpu_paths()[0])):
        chips = ops.encode_chips(range(7))
        out = torch.empty(7, *words.shape, dtype=torch.int8)
        draw = Draw(chips, ops.encode_rate(0.0), [0, 0], [4096 * 3 + 8, 0, 1, 1])
        torch.set_num_threads(threads)
        try:
            with ops.use_cpu_path(path):
                tensor.read(
                    draw, [(ALL_CELLS, ops.encode_rate(0.01))], CHECK_BASE, ops.encode_rate(0.01), out
                )
        finally:
            torch.set_num_threads(before)
        results.append(out)
    assert torch.equal(*results)


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("stored", ["int8", "int4", "float16", "uint8-asymmetric"])
def test_numbers_are_the_decoded_words(stored, name):
    """Read and decoded in one pass, also where the last word is not full."""
    layer = StoredWeights.of(
        nn.Linear(37, 23, bias=False), per_channel=stored != "float16", format=stored
    ).layers[0]
    known = Codec(layer.format) if stored == "int4" else find_codec(SECDED("zero"), layer.format)
    words = torch.zeros(-(-layer.image.numel() // 8) * 8, dtype=torch.int8)
    words[: layer.image.numel()] = layer.image.reshape(-1)
    tensor = ProtectedTensor(known, layer, known.encode(words.view(-1, 8)))
    seeds, rate = ops.encode_chips(SEEDS), ops.encode_rate(0.02)
    for place in ([8, 0, 1, 1], [0, 32, 16, 16]):
        draw = Draw(seeds, rate, [0, 0], place)
        floats = torch.empty(2, 23, 37, dtype=getattr(torch, name))
        tensor.read(draw, [(ALL_CELLS, rate)], CHECK_BASE, rate, floats)
        images = torch.empty(2, len(words) // 8, 8, dtype=torch.int8)
        tensor.read(draw, [(ALL_CELLS, rate)], CHECK_BASE, rate, images)
        for found, image in zip(floats, images, strict=True):
            used = image.reshape(-1)[: layer.image.numel()].reshape(layer.image.shape)
            expected = layer.with_image(used).decode().to(found.dtype)
            assert torch.equal(found.nan_to_num(1.5), expected.nan_to_num(1.5))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "ones"), KINDS)
def test_cuda_text(cuda_text, kind, ones):
    for case in CASES:
        place = PLACES["repeated" if case.mitigation.name == "parity" else "unlimited"]
        memory = Memory(kind, ones, place, [(np.uint8(127), 0.03), (np.uint8(128), 1e-3)], 0.02)
        words = make_words(100)
        for found, expected in zip(run(case, words, memory), expect(case, words, memory), strict=True):
            assert np.array_equal(found, expected), case.mitigation.label


@pytest.mark.slow
def test_cuda_text_decodes_words_that_were_read(cuda_text):
    for case in CASES:
        known = find_codec(case.mitigation, case.stored)
        words = make_words(150)
        written = known.encode(words)
        noise = torch.Generator().manual_seed(3)
        read = written.weights ^ (torch.randint(0, 4096, (2, 150, 8), generator=noise) & 129).to(torch.int8)
        checks = None if written.checks is None else written.checks.expand(2, *written.checks.shape)
        found = known.decode(read, checks, written)
        own = (
            [0] * 300
            if checks is None
            else [int.from_bytes(one.tobytes(), "little") for one in checks.reshape(300, -1).numpy()]
        )
        for i, word in enumerate(found.weights.reshape(-1, 8).numpy()):
            expected = case.expected(read.reshape(-1, 8)[i].numpy(), own[i], written.weights[i % 150].numpy())
            assert np.array_equal(word, expected[0])
            if found.flagged is not None:
                assert bool(found.flagged.reshape(-1)[i]) == expected[1]
