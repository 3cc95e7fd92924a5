"""The reference: what the kernels must do, in plain NumPy, slow and readable. The tests compare every kernel with it
bit for bit. It shares no code with them but the table of thresholds.

Words: a *hit* is a 16-bit number of an array's stream, 15 bits naming a cell and one spare bit; the first K hits
count. See csrc/fault.h for why this gives exactly independent, nested faults.
"""

from collections.abc import Sequence

import numpy as np

from .hit_table import CELLS, draw_table

ARRAY_BYTES = CELLS // 8
STREAM_HITS, STREAM_STATES, STREAM_READS = 0, 1, 2


def philox4x32(key: int, counter: np.ndarray) -> np.ndarray:
    """Philox4x32-10 (Salmon et al., SC 2011). counter: uint32 [..., 4] -> uint32 [..., 4]."""
    c = [np.asarray(counter, np.uint64)[..., i] for i in range(4)]
    k0, k1 = key & 0xFFFFFFFF, key >> 32 & 0xFFFFFFFF
    low = np.uint64(0xFFFFFFFF)
    for _ in range(10):
        p0, p1 = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [
            (p1 >> np.uint64(32)) ^ c[1] ^ np.uint64(k0),
            p1 & low,
            (p0 >> np.uint64(32)) ^ c[3] ^ np.uint64(k1),
            p0 & low,
        ]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack(c, -1).astype(np.uint32)


def _words(seed: int, array: int, access: int, stream: int, calls: int) -> np.ndarray:
    counter = np.zeros((calls, 4), np.uint32)
    counter[:, 0] = np.arange(calls)
    counter[:, 1:] = array & 0xFFFFFFFF, access, stream
    return philox4x32(seed & (2**64 - 1), counter).reshape(-1)


def array_faults(
    seed: int, array: int, bit_error_rate: float, kind: str, ones: float = 0.5, access: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Failing cells and their states: two bool [32768]; cell = 64 * row + column.

    kind: "flip" (states all False), "stuck" (state: the value the cell is stuck at, True with probability `ones`) or
    "transient" (state: whether this access reads it wrong, True with probability `ones`).
    """
    table = draw_table(bit_error_rate)
    first = _words(seed, array, 0, STREAM_HITS, 1)
    uniform = int(first[0]) | int(first[1]) << 32
    count = int(table[0]) + int(np.searchsorted(table[2:], np.uint64(uniform), side="right"))
    halves = _words(seed, array, 0, STREAM_HITS, (4 + count + 7) // 8).astype("<u4").view("<u2")
    hits = halves[4 : 4 + count]
    cells, spare = hits & 0x7FFF, hits >> 15

    if kind == "flip":
        wins = np.zeros(count, bool)
    elif kind == "stuck":
        draws = _words(seed, array, 0, STREAM_STATES, (count + 3) // 4)[:count].astype(np.uint64)
        # 33-bit uniform, spare bit on top: the largest `ones` part of the range is state 1.
        wins = (spare.astype(np.uint64) << np.uint64(32) | draws) >= np.uint64(2**33 - round(ones * 2**33))
    elif kind == "transient":
        draws = _words(seed, array, access, STREAM_READS, (count + 3) // 4)[:count].astype(np.uint64)
        wins = draws < np.uint64(round(ones * 2**32))
    else:
        raise ValueError(kind)

    failing, states = np.zeros(CELLS, bool), np.zeros(CELLS, bool)
    for cell, state in zip(cells.tolist(), wins.tolist(), strict=True):
        if not failing[cell]:
            failing[cell], states[cell] = True, state  # the first hit decides
    if table[1]:
        failing[:] = True
    return failing, states


def addresses(weights: int, base: int = 0, arrays: int = 0, word: int = 1, repeat: int = 1) -> np.ndarray:
    """Byte address in memory of each weight, int64 [weights]. arrays = 0: memory without end."""
    at = base + np.arange(weights, dtype=np.int64)
    if repeat > 1:
        at = at // (word * repeat) * word + at % word
    return at % (arrays * ARRAY_BYTES) if arrays else at


def fault_mask(
    weights: int,
    seed: int,
    bit_error_rate: float,
    kind: str,
    ones: float = 0.5,
    access: int = 0,
    array_offset: int = 0,
    **placement: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Failing bits and their states for each weight: two uint8 [weights], bit k = bit k of the weight."""
    at = addresses(weights, **placement)
    failing, states = np.zeros(weights, np.uint8), np.zeros(weights, np.uint8)
    for array in np.unique(at // ARRAY_BYTES):
        here = at // ARRAY_BYTES == array
        for out, cells in zip(
            (failing, states),
            array_faults(seed, int(array) + array_offset, bit_error_rate, kind, ones, access),
            strict=True,
        ):
            out[here] = np.packbits(cells, bitorder="little")[at[here] % ARRAY_BYTES]
    return failing, states


def read(stored: np.ndarray, failing: np.ndarray, states: np.ndarray, kind: str) -> np.ndarray:
    """What the memory returns for int8 `stored`."""
    bits = stored.view(np.uint8)
    if kind == "flip":
        out = bits ^ failing
    elif kind == "stuck":
        out = (bits & ~failing) | (states & failing)
    elif kind == "transient":
        out = bits ^ (states & failing)
    else:
        raise ValueError(kind)
    return out.view(np.int8)


def corrupt(
    source: np.ndarray, seeds: Sequence[int], bit_error_rate: float, kind: str, **where
) -> np.ndarray:
    """int8 [...] -> int8 [len(seeds), ...]: the weights as each chip reads them. Keywords as in fault_mask()."""
    flat = np.ascontiguousarray(source).reshape(-1)
    rows = [read(flat, *fault_mask(flat.size, seed, bit_error_rate, kind, **where), kind) for seed in seeds]
    return (
        np.stack(rows).reshape(len(seeds), *source.shape) if rows else np.empty((0, *source.shape), np.int8)
    )


def dequantize(values: np.ndarray, scale: np.ndarray, axis: int | None, dtype: str) -> np.ndarray:
    """int8 [...] times scale (one number, or one for each index of `axis`), one rounding to float32 and one more to
    `dtype`: "float32", "float16", or "bfloat16" (returned as its bits, uint16)."""
    scale = np.asarray(scale, np.float32)
    if axis is not None:
        scale = scale.reshape([-1 if d == axis else 1 for d in range(values.ndim)])
    product = values.astype(np.float32) * scale
    if dtype == "float32":
        return product
    if dtype == "float16":
        with np.errstate(over="ignore"):
            return product.astype(np.float16)
    if dtype == "bfloat16":
        bits = product.view(np.uint32).astype(np.uint64)
        return ((bits + 0x7FFF + (bits >> np.uint64(16) & np.uint64(1))) >> np.uint64(16)).astype(np.uint16)
    raise ValueError(dtype)
