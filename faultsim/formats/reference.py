"""The reference for formats: what an image stands for, bit by bit from the definitions, in plain NumPy.

It shares no code with the formats, and the tests compare them with it.

Arguments are numbers, not formats: `bits` of a weight, `cells` from one weight to the next (8 where it has a byte of
its own), `exponent` and `fraction` bits of a floating-point number.
"""

import numpy as np

# Exponent and fraction bits; whether the largest exponent means infinity and NaN as in IEEE 754. In e4m3fn it does not:
# there only the pattern of ones is NaN.
FLOATS = {
    "float32": (8, 23, True),
    "float16": (5, 10, True),
    "bfloat16": (8, 7, True),
    "float8_e5m2": (5, 2, True),
    "float8_e4m3fn": (4, 3, False),
}


def weight_bits(image: np.ndarray, weights: int, bits: int, cells: int) -> np.ndarray:
    """uint8 image of whole words -> bool [weights, bits], least significant first."""
    words = np.unpackbits(image, bitorder="little").reshape(-1, 64)
    per_word = 64 // cells
    found = np.zeros((weights, bits), bool)
    for i in range(weights):
        word, first = i // per_word, i % per_word * cells
        found[i] = words[word, first : first + bits]
    return found


def integers(held: np.ndarray, offset: bool = False, clamps: bool = False) -> np.ndarray:
    """Bits [weights, b] -> q, int64 [weights]."""
    b = held.shape[1]
    worth = [2**k for k in range(b)]
    if not offset:
        worth[-1] = -worth[-1]  # two's complement
    q: np.ndarray = held.astype(np.int64) @ np.array(worth) - (2 ** (b - 1) if offset else 0)
    if clamps:
        q = np.maximum(q, 1 - 2 ** (b - 1))
    return q


def floats(held: np.ndarray, kind: str) -> np.ndarray:
    """Bits [weights, b] -> the numbers, float64, which holds those of all formats exactly."""
    exponent_bits, fraction_bits, ieee = FLOATS[kind]
    bias = 2 ** (exponent_bits - 1) - 1
    numbers = []
    for row in held.astype(int).tolist():
        fraction = sum(bit << k for k, bit in enumerate(row[:fraction_bits]))
        exponent = sum(bit << k for k, bit in enumerate(row[fraction_bits:-1]))
        if ieee and exponent == 2**exponent_bits - 1:
            magnitude = np.nan if fraction else np.inf
        elif not ieee and all(row[:-1]):
            magnitude = np.nan
        elif exponent == 0:
            magnitude = fraction * 2.0 ** (1 - bias - fraction_bits)
        else:
            magnitude = (2**fraction_bits + fraction) * 2.0 ** (exponent - bias - fraction_bits)
        numbers.append(-magnitude if row[-1] else magnitude)
    return np.array(numbers, np.float64).reshape(len(held))


def numbers(codes: np.ndarray, scale: np.ndarray | None, center: np.ndarray | None) -> np.ndarray:
    """Codes (shape of the weight) times scale plus center, rounded to float32 after each."""
    with np.errstate(over="ignore"):
        values = codes.astype(np.float32)
        if scale is not None:
            values = values * scale.astype(np.float32)
        return values if center is None else values + center.astype(np.float32)


def rounded(
    values: np.ndarray, dtype: str, policy: str = "keep", most: np.ndarray | float = np.inf
) -> np.ndarray:
    """float32 -> the bits of "float32", "float16" or "bfloat16".

    `policy` ("keep", "zero", "clamp") is for results that are not finite, `most` the format's largest number, scaled.
    """
    exponent_bits, fraction_bits, _ = FLOATS[dtype]
    largest = float((2 - 2.0**-fraction_bits) * 2.0 ** (2 ** (exponent_bits - 1) - 1))
    if policy == "clamp":
        bound = np.minimum(np.float32(most), np.float32(largest))
        values = np.clip(np.where(np.isnan(values), np.float32(0), values), -bound, bound)
    if dtype == "bfloat16":
        wide = values.astype(np.float32).view(np.uint32).astype(np.uint64)
        bits = ((wide + 0x7FFF + (wide >> np.uint64(16) & np.uint64(1))) >> np.uint64(16)).astype(np.uint16)
        finite = (bits & 0x7F80) != 0x7F80
    else:
        with np.errstate(over="ignore", invalid="ignore"):
            result = values.astype(dtype)
        bits, finite = result.view(f"u{result.itemsize}"), np.isfinite(result)
    if policy == "zero":
        return np.where(finite & ~np.isnan(values), bits, 0).astype(bits.dtype)
    quiet = ((2 ** (exponent_bits + 1)) - 1) << (fraction_bits - 1)
    return np.where(np.isnan(values), bits.dtype.type(quiet), bits)
