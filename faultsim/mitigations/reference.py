"""The reference of the mitigations: one word at a time, bit by bit, in plain Python and NumPy.

The tests compare the vectorized mitigations with it. It shares only the columns of the codes with them.
"""

from collections.abc import Sequence

import numpy as np


def to_bits(word: np.ndarray) -> list[int]:
    """Return the 64 bits of int8 [8], by position 8 * weight + bit."""
    return [int(weight) >> bit & 1 for weight in word.view(np.uint8) for bit in range(8)]


def to_word(bits: Sequence[int]) -> np.ndarray:
    """Return int8 [8] of 64 bits."""
    values = [sum(bits[8 * weight + bit] << bit for bit in range(8)) for weight in range(8)]
    return np.array(values, np.uint8).view(np.int8)


def compute_checks(bits: Sequence[int], columns: Sequence[int]) -> int:
    """Return the check bits: the sum modulo 2 of the columns of all bits that are 1."""
    checks = 0
    for bit, column in zip(bits, columns, strict=True):
        if bit:
            checks ^= column
    return checks


def decode_word(word: np.ndarray, checks: int | None, columns: Sequence[int]) -> tuple[np.ndarray, bool]:
    """Correct a single error of int8 [8]; `checks` are the check bits as read, None where the word holds them.

    Returns
    -------
    numpy.ndarray, bool
        The word, and whether an error was detected that cannot be corrected.
    """
    bits = to_bits(word)
    syndrome = compute_checks(bits, columns) ^ (checks or 0)
    if syndrome == 0:
        return word, False
    if syndrome in columns:
        bits[columns.index(syndrome)] ^= 1
        return to_word(bits), False
    return word, syndrome.bit_count() != 1 or checks is None


def settle_word(read: np.ndarray, flagged: bool, written: np.ndarray, policy: str) -> np.ndarray:
    """Do what the policy keep, zero or reread says to a word."""
    if not flagged or policy == "keep":
        return read
    return np.zeros_like(read) if policy == "zero" else written


def encode_in_place(word: np.ndarray, columns: Sequence[int]) -> np.ndarray:
    """Clamp the first seven weights to [-64, 63] and put check bit j into bit 6 of weight j."""
    clamped = np.array([*np.clip(word[:7], -64, 63), word[7]], np.int8)
    bits = to_bits(clamped)
    for weight in range(7):
        bits[8 * weight + 6] = 0
    checks = compute_checks(bits, columns)
    for weight in range(7):
        bits[8 * weight + 6] = checks >> weight & 1
    return to_word(bits)


def restore_signs(word: np.ndarray) -> np.ndarray:
    """Put the sign of each of the first seven weights into its bit 6."""
    bits = to_bits(word)
    for weight in range(7):
        bits[8 * weight + 6] = bits[8 * weight + 7]
    return to_word(bits)


def zero_wrong_parity(read: np.ndarray, checks: int, granularity: str) -> np.ndarray:
    """Zero each weight, or the word, whose number of ones does not have the parity of its check bit."""
    ones = [int(weight).bit_count() for weight in read.view(np.uint8)]
    if granularity == "word":
        return np.zeros_like(read) if (sum(ones) ^ checks) & 1 else read
    keep = [(count ^ checks >> weight) & 1 == 0 for weight, count in enumerate(ones)]
    return np.where(keep, read, 0).astype(np.int8)


def mask_weight(read: int, written: int) -> int:
    """Minerva's bit masking of one int8: the sign in the place of each wrong bit, 0 for a wrong sign."""
    bits, right = read & 255, written & 255
    sign = bits >> 7
    if sign != right >> 7:
        return 0
    out = sum((sign if (bits ^ right) >> bit & 1 else bits >> bit & 1) << bit for bit in range(8))
    return out - 256 if out > 127 else out
