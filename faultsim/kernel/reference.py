"""The reference: what the kernels must do, in plain NumPy, slow and readable.

The tests compare every kernel with it bit for bit. It shares only the table of thresholds and the names with them.

A *hit* is a 16-bit number of a block's stream: 15 bits name a cell, the 16th is its spare bit; the first K hits count.
csrc/fault.h says why this gives exactly independent, nested faults, and what `fail` and `value` mean.
"""

from collections.abc import Sequence

import numpy as np

from ..hit_table import CELLS, build_hit_table
from ..sram import BLOCK_BYTES

STREAM_HITS, STREAM_VALUES, STREAM_READS = 0, 1, 2


def philox4x32(key: int, counter: np.ndarray) -> np.ndarray:
    """Compute Philox4x32-10 (Salmon et al., SC 2011): counters uint32 [..., 4] to uint32 [..., 4]."""
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


def _words(seed: int, block: int, access: int, stream: int, calls: int) -> np.ndarray:
    """Return the first words of one stream of a block, uint32 [4 * calls]."""
    counter = np.zeros((calls, 4), np.uint32)
    counter[:, 0] = np.arange(calls)
    counter[:, 1:] = block & 0xFFFFFFFF, access, stream
    return philox4x32(seed & (2**64 - 1), counter).reshape(-1)


def draw_block(
    seed: int, block: int, bit_error_rate: float, kind: str, ones: float = 0.5, access: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the faults of one block.

    Parameters
    ----------
    seed
        Of the chip, 64 bits.
    block
        Index of the block, modulo 2**32.
    bit_error_rate
        A fraction from 0 to 1.
    kind
        "flip", "stuck" or "transient".
    ones
        Probability of value 1. stuck: that a failing cell is stuck at 1; transient: that a read of it is wrong.
    access
        Index of the read (transient).

    Returns
    -------
    fail, value : numpy.ndarray
        Two bool [32768]; cell = 64 * row + column in a 512x64 array.
    """
    table = build_hit_table(bit_error_rate)
    first = _words(seed, block, 0, STREAM_HITS, 1)
    uniform = int(first[0]) | int(first[1]) << 32
    count = int(table[0]) + int(np.searchsorted(table[2:], np.uint64(uniform), side="right"))
    halves = _words(seed, block, 0, STREAM_HITS, (4 + count + 7) // 8).astype("<u4").view("<u2")
    hits = halves[4 : 4 + count]
    cells, spare = hits & 0x7FFF, hits >> 15

    if kind == "flip":
        values = np.zeros(count, bool)
    elif kind == "stuck":
        draws = _words(seed, block, 0, STREAM_VALUES, (count + 3) // 4)[:count].astype(np.uint64)
        # A 33-bit uniform, the spare bit on top: the largest `ones` part of the range has value 1.
        values = (spare.astype(np.uint64) << np.uint64(32) | draws) >= np.uint64(2**33 - round(ones * 2**33))
    elif kind == "transient":
        draws = _words(seed, block, access, STREAM_READS, (count + 3) // 4)[:count].astype(np.uint64)
        values = draws < np.uint64(round(ones * 2**32))
    else:
        raise ValueError(kind)

    fail, value = np.zeros(CELLS, bool), np.zeros(CELLS, bool)
    for cell, of_hit in zip(cells.tolist(), values.tolist(), strict=True):
        if not fail[cell]:
            fail[cell], value[cell] = True, of_hit  # the first hit decides
    if table[1]:
        fail[:] = True
    return fail, value


def locate_weights(
    weights: int, base: int = 0, blocks: int = 0, word: int = 1, repeat: int = 1
) -> np.ndarray:
    """Compute the byte address of each weight, int64 [weights]; see sram.AddressMap."""
    at = base + np.arange(weights, dtype=np.int64)
    if repeat > 1:
        at = at // (word * repeat) * word + at % word
    return at % (blocks * BLOCK_BYTES) if blocks else at


def fault_mask(
    weights: int,
    seed: int,
    bit_error_rate: float,
    kind: str,
    ones: float = 0.5,
    access: int = 0,
    block_offset: int = 0,
    **addresses: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Compute fail and value of each weight's cells: two uint8 [weights], bit k for bit k of the weight.

    `block_offset` is added to every block index; `addresses` are base, blocks, word and repeat of locate_weights().
    """
    at = locate_weights(weights, **addresses)
    fail, value = np.zeros(weights, np.uint8), np.zeros(weights, np.uint8)
    for block in np.unique(at // BLOCK_BYTES):
        here = at // BLOCK_BYTES == block
        for out, cells in zip(
            (fail, value),
            draw_block(seed, int(block) + block_offset, bit_error_rate, kind, ones, access),
            strict=True,
        ):
            out[here] = np.packbits(cells, bitorder="little")[at[here] % BLOCK_BYTES]
    return fail, value


def read_word(kind: str, stored: np.ndarray, fail: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Compute what a read of int8 `stored` returns."""
    bits = stored.view(np.uint8)
    if kind == "flip":
        out = bits ^ fail
    elif kind == "stuck":
        out = (bits & ~fail) | value
    elif kind == "transient":
        out = bits ^ value
    else:
        raise ValueError(kind)
    return out.view(np.int8)


def corrupt(
    source: np.ndarray, seeds: Sequence[int], bit_error_rate: float, kind: str, **where
) -> np.ndarray:
    """Read int8 [...] as each chip does: int8 [len(seeds), ...]. Keywords as of fault_mask()."""
    flat = np.ascontiguousarray(source).reshape(-1)
    rows = [
        read_word(kind, flat, *fault_mask(flat.size, seed, bit_error_rate, kind, **where)) for seed in seeds
    ]
    return (
        np.stack(rows).reshape(len(seeds), *source.shape) if rows else np.empty((0, *source.shape), np.int8)
    )


def dequantize(values: np.ndarray, scale: np.ndarray, axis: int | None, dtype: str) -> np.ndarray:
    """Multiply int8 [...] by `scale` (one number, or one for each index of `axis`).

    The product is rounded to float32 and then to `dtype`: "float32", "float16", or "bfloat16" (returned as its bits,
    uint16).
    """
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
