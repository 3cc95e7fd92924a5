"""Reads of a protected memory under the sanitizers: codes and masks of words, each result compared with the reference.
NumPy only; every buffer ends where the kernel was told."""

import itertools
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np

from faultsim.hit_table import build_hit_table
from faultsim.kernel import reference

# The package around it imports torch.
_spec = spec_from_file_location(
    "words", Path(__file__).resolve().parents[2] / "faultsim/mitigations/reference.py"
)
words = module_from_spec(_spec)
_spec.loader.exec_module(words)

CHECK_BASE = 1 << 42
SEEDS = [1, 2**63 + 5]
KINDS = {"flip": (0, 0), "stuck": (1, 2**32), "transient": (2, 2**31)}
PLACES = [(8 * 4096 - 8 * 20, 0, 1, 1), (16, 2, 1, 1), (48, 2, 32, 3)]  # base, blocks, word, repeat
SIZES = [1, 31, 33, 65, 530]  # words
ODD = [column for column in range(1, 256) if column.bit_count() % 2 and column.bit_count() > 1][:64]
PARITY = [1 << bit // 4 for bit in range(64)]  # of 16 weights of 4 bits: two check bytes


def make_codecs() -> dict[str, tuple[dict, list[int] | None]]:
    """Arguments of the kernel's Codec with arrays in place of addresses, and the columns of the check bits."""
    flip, kept = np.zeros(256, np.uint64), np.zeros(256, np.uint64)
    kept[[0, *ODD, *(1 << bit for bit in range(8))]] = 2**64 - 1
    for bit, column in enumerate(ODD):
        flip[column] = 1 << bit
    keep = np.full((2, 256), 2**64 - 1, np.uint64)
    for weight, value in itertools.product(range(16), range(256)):
        if value >> weight % 8 & 1:
            keep[weight // 8, value] &= np.uint64(2**64 - 1 - (15 << 4 * weight))
    return {
        "keep": ({"decode": 1, "flip": flip, "keep": None, "rereads": False}, ODD),
        "zero": ({"decode": 1, "flip": flip, "keep": kept, "rereads": False}, ODD),
        "reread": ({"decode": 1, "flip": flip, "keep": kept, "rereads": True}, ODD),
        "parity": ({"decode": 1, "flip": None, "keep": keep, "rereads": False}, PARITY),
        "mask_bits": ({"decode": 4, "flip": None, "keep": None, "rereads": False}, None),
    }


def expect(name: str, read: np.ndarray, checks: bytes, written: np.ndarray) -> np.ndarray:
    weights = words.list_weights(4, 4)
    if name == "mask_bits":
        return words.mask_bits(read, written, weights)
    number = int.from_bytes(checks, "little")
    if name == "parity":
        return words.zero_wrong_parity(read, number, "weight", weights)
    return words.settle_word(*words.decode_word(read, number, ODD), written, name)


def read_bytes(data: np.ndarray, at: np.ndarray, base: int, seed: int, rate: float, kind: str) -> np.ndarray:
    ones = {"flip": 0, "stuck": 0.5, "transient": 0.5}[kind]
    fail, value = reference.fault_mask(int(at.max()) + 1, seed, rate, kind, ones, 9, base=base)
    return reference.read_word(kind, data.view(np.int8), fail[at], value[at]).view(np.uint8)


def launch(
    native: ModuleType, path: str, own: dict, columns, source, checks, rate, kind, place
) -> np.ndarray:
    of_word = 0 if checks is None else checks.shape[1]
    table, seeds = build_hit_table(rate).copy(), np.array(SEEDS, np.uint64)
    output, again = (
        np.empty((len(SEEDS), source.size), np.int8),
        np.empty((len(SEEDS), source.size // 8), np.uint8),
    )
    access = np.array([9], np.int64)
    code, ones = KINDS[kind]
    read = native.Job(
        source=source.ctypes.data, output=output.ctypes.data, value=0, weights=source.size, chips=len(SEEDS),
        type=0, scales=0, scale_count=0, scale_run=1, table=table.ctypes.data, thresholds=table.size - 2,
        kind=code, ones=ones, base=place[0], blocks=place[1], word=place[2], repeat=place[3],
        seeds=seeds.ctypes.data, block_offset=0, access=access.ctypes.data,
    )  # fmt: skip
    rows = (
        [
            sum((column >> check & 1) << bit for bit, column in enumerate(columns))
            for check in range(8 * of_word)
        ]
        if columns
        else []
    )
    codec = native.Codec(
        decode=own["decode"], rows=rows, check_bytes=of_word, rereads=own["rereads"], borrowed=0,
        **{key: 0 if own[key] is None else own[key].ctypes.data for key in ("flip", "keep")},
        low=sum(1 << 4 * weight for weight in range(16)), bits=4,
    )  # fmt: skip
    job = native.ProtectedJob(
        read=read, codec=codec, checks=0 if checks is None else checks.ctypes.data, again=again.ctypes.data,
        check_base=CHECK_BASE, check_table=table.ctypes.data, check_thresholds=table.size - 2,
        parts=[(2**64 - 1, table.ctypes.data, table.size - 2)],
    )  # fmt: skip
    native.launch_protected_cpu(job, 2, path)
    if again.max(initial=0) > 1:
        raise SystemExit(f"no Boolean: {path}")
    return output


def check_protected(native: ModuleType) -> int:
    """All paths for each codec, kind, place and size; returns the number of calls."""
    calls = 0
    cases = itertools.product(make_codecs().items(), KINDS, PLACES, SIZES, (1e-3, 2e-2))
    for (name, (own, columns)), kind, place, size, rate in cases:
        source = np.random.default_rng(size).integers(-128, 128, 8 * size, np.int8)
        at = reference.locate_weights(
            8 * size, place[0], **dict(zip(("blocks", "word", "repeat"), place[1:], strict=True))
        )
        checks = None
        if columns:
            of_word = max(columns).bit_length() // 9 + 1
            numbers = [words.compute_checks(words.to_bits(word), columns) for word in source.reshape(-1, 8)]
            checks = np.array([list(number.to_bytes(of_word, "little")) for number in numbers], np.uint8)
            where = (at[::8, None] // 8 * of_word + np.arange(of_word)).reshape(-1)
        expected = np.empty((len(SEEDS), size, 8), np.int8)
        for chip, seed in enumerate(SEEDS):
            read = read_bytes(source.view(np.uint8), at, 0, seed, rate, kind).view(np.int8).reshape(-1, 8)
            seen = (
                np.zeros((size, 1), np.uint8)
                if checks is None
                else read_bytes(checks.reshape(-1), where, CHECK_BASE, seed, rate, kind).reshape(size, -1)
            )
            for i, word in enumerate(read):
                expected[chip, i] = expect(name, word, seen[i].tobytes(), source[8 * i : 8 * i + 8])
        for path in native.cpu_paths():
            found = launch(native, path, own, columns, source, checks, rate, kind, place)
            if found.tobytes() != expected.tobytes():
                raise SystemExit(f"wrong result: {(path, name, kind, place, size, rate)}")
            calls += 1
    return calls
