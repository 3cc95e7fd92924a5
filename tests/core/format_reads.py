"""What tests/vectors/format_reads.txt holds answers of: images of each format, read by one chip and decoded."""

import hashlib

import numpy as np

from faultsim.formats import FloatFormat, Format, IntegerFormat
from faultsim.formats import reference as formats_reference
from faultsim.kernel import reference

WEIGHTS, SEED, RATE = 1000, 7, 0.02
SCALE, CENTER = np.float32(0.37), np.float32(-2.5)
BITS = {"float32": np.uint32, "bfloat16": np.uint16, "float16": np.uint16}
OUTPUTS = tuple(BITS)


def list_formats() -> list[Format]:
    """Every number type, with each option that changes what a read means."""
    widths = range(2, 9)
    integers = [
        IntegerFormat(b, offset, asymmetric)
        for offset in (False, True)
        for asymmetric in (False, True)
        for b in widths
    ]
    alone = [IntegerFormat(b, packed=False) for b in widths if b < 8]
    floats = [
        FloatFormat(kind, nonfinite=policy)
        for kind in formats_reference.FLOATS
        for policy in ("keep", "zero", "clamp")
    ]
    return [*integers, *alone, *floats]


def make_image(stored: Format) -> np.ndarray:
    """uint8, whole words: byte i is (151 i + 7 (i // 8) + 3) mod 256. Floating-point codes that are not finite get the
    lowest bit of their exponent cleared, and each third code is a bit away from infinity: no fraction, and an exponent
    of ones but for one bit."""
    i = np.arange(stored.image_bytes(WEIGHTS))
    image = ((151 * i + 7 * (i // 8) + 3) % 256).astype(np.uint8)
    if isinstance(stored, FloatFormat):
        exponent, fraction, _ = formats_reference.FLOATS[stored.kind]
        codes = image.view(f"u{stored.width // 8}")
        top = ((1 << exponent) - 1) << fraction
        codes[codes & top == top] ^= 1 << fraction
        near = top ^ (1 << (fraction + np.arange(codes[::3].size) % exponent))
        codes[::3] = (codes[::3] & (1 << stored.width - 1)) | near.astype(codes.dtype)
    return image


def decode(stored: Format, read: np.ndarray, output: str) -> np.ndarray:
    """The bits of the numbers that an image stands for, by NumPy."""
    held = formats_reference.weight_bits(read, WEIGHTS, stored.width, stored.cells)
    if isinstance(stored, IntegerFormat):
        codes = formats_reference.integers(held, stored.offset, stored.clamps)
        values = formats_reference.numbers(codes, SCALE, CENTER if stored.asymmetric else None)
        return formats_reference.rounded(values, output)
    used = SCALE if stored.width == 8 else None
    values = formats_reference.numbers(formats_reference.floats(held, stored.kind), used, None)
    most = np.float32(stored.largest) * (SCALE if used else np.float32(1))
    return formats_reference.rounded(values, output, stored.nonfinite, most)


def answer(clean: np.ndarray, read: dict[str, np.ndarray]) -> list[str]:
    """Columns of the file: wrong weights, those that are not finite, and the digest of all outputs' bits."""
    numbers = read["float32"].view(np.float32)
    digest = hashlib.sha256(b"".join(read[output].tobytes() for output in OUTPUTS)).hexdigest()
    return [str(int((read["float32"] != clean).sum())), str(int((~np.isfinite(numbers)).sum())), digest]


def encode_grid(stored: Format) -> tuple[np.ndarray, np.ndarray | None]:
    """Scale and center."""
    centered = isinstance(stored, IntegerFormat) and stored.asymmetric
    return np.array([SCALE]), np.array([CENTER]) if centered else None


def answer_by_reference(stored: Format) -> list[str]:
    image = make_image(stored)
    read = reference.corrupt(image.view(np.int8), [SEED], RATE, "flip")[0].view(np.uint8)
    return answer(decode(stored, image, "float32"), {o: decode(stored, read, o) for o in OUTPUTS})
