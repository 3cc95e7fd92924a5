"""The reference of the mitigations: one word at a time, bit by bit, in plain Python and NumPy.

The tests compare the kernel with it. It shares only the columns of the codes with it.
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


def list_weights(width: int = 8, cells: int = 8) -> list[range]:
    """Return the positions of the bits of each weight of a word, from the least significant one."""
    return [range(at, at + width) for at in range(0, 64 - cells + 1, cells)]


def zero_weights(word: np.ndarray, weights: Sequence[range]) -> np.ndarray:
    """Return a word with 0 in these weights."""
    bits = to_bits(word)
    for weight in weights:
        for position in weight:
            bits[position] = 0
    return to_word(bits)


def zero_wrong_parity(
    read: np.ndarray, checks: int, granularity: str, weights: Sequence[range] | None = None
) -> np.ndarray:
    """Zero each weight, or the word's weights, whose number of ones does not have the parity of its check bit."""
    bits, weights = to_bits(read), list_weights() if weights is None else weights
    ones = [sum(bits[position] for position in weight) for weight in weights]
    if granularity == "word":
        return zero_weights(read, weights) if (sum(ones) ^ checks) & 1 else read
    wrong = [weight for at, weight in enumerate(weights) if (ones[at] ^ checks >> at) & 1]
    return zero_weights(read, wrong)


def mask_words(
    read: np.ndarray, written: np.ndarray, granularity: str, weights: Sequence[range] | None = None
) -> np.ndarray:
    """Minerva's word masking: zero each weight with a wrong bit, or the word if a weight has one."""
    weights = list_weights() if weights is None else weights
    bits, right = to_bits(read), to_bits(written)
    wrong = [weight for weight in weights if any(bits[at] != right[at] for at in weight)]
    if granularity == "word":
        return np.zeros_like(read) if wrong else read
    return zero_weights(read, wrong)


def mask_bits(read: np.ndarray, written: np.ndarray, weights: Sequence[range] | None = None) -> np.ndarray:
    """Minerva's bit masking: the sign in the place of each wrong bit; zero a weight whose sign is wrong."""
    bits, right = to_bits(read), to_bits(written)
    for weight in list_weights() if weights is None else weights:
        sign, wrong_sign = bits[weight[-1]], bits[weight[-1]] != right[weight[-1]]
        for at in weight:
            if wrong_sign:
                bits[at] = 0
            elif bits[at] != right[at]:
                bits[at] = sign
    return to_word(bits)
