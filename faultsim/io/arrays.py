"""int8 weights in NumPy's .npy files, and how two arrays of them differ."""

from os import PathLike
from pathlib import Path

import numpy as np

from ..errors import FaultsimError
from .files import write_atomically


def read_int8(path: str | PathLike[str]) -> np.ndarray:
    """Read the int8 array of a .npy file, in row-major order.

    Raises
    ------
    FaultsimError
        For a file that cannot be read, is damaged or holds something else; it says what. Nothing is unpickled.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            if file.read(6) != b"\x93NUMPY":
                raise FaultsimError(f"{path}: this is not a .npy file (numpy.save writes one)")
        weights = np.load(path, mmap_mode="r", allow_pickle=False)
        if weights.dtype.kind == "f":
            raise FaultsimError(
                f"{path} holds {weights.dtype}, int8 is needed; quantize it: scale = abs(w).max() / 127, "
                "then numpy.rint(w / scale).astype(numpy.int8)"
            )
        if weights.dtype != np.int8:
            raise FaultsimError(f"{path} holds {weights.dtype}, int8 is needed")
        return np.array(weights, order="C")
    except FaultsimError:
        raise
    except OSError as error:
        raise FaultsimError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, EOFError, MemoryError, SyntaxError):
        raise FaultsimError(f"{path}: truncated, damaged, or an array of Python objects") from None


def write_array(path: str | PathLike[str], array: np.ndarray) -> None:
    """Write a .npy file atomically."""
    write_atomically(Path(path), lambda temporary: np.save(temporary, array, allow_pickle=False))


def count_differences(before: np.ndarray, after: np.ndarray) -> tuple[int, int]:
    """Count the bits and the weights that differ between two int8 arrays of one size.

    Returns
    -------
    bits, weights : int
    """
    ones = np.array([value.bit_count() for value in range(256)])
    bits = weights = 0
    before, after = before.reshape(-1).view(np.uint8), after.reshape(-1).view(np.uint8)
    for start in range(0, before.size, 1 << 20):  # bincount takes eight bytes a weight
        counts = np.bincount(
            before[start : start + (1 << 20)] ^ after[start : start + (1 << 20)], minlength=256
        )
        bits, weights = bits + int(counts @ ones), weights + int(counts[1:].sum())
    return bits, weights
