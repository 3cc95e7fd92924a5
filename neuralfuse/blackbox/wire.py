"""Messages between client and server: a description, images, class numbers.

Arrays travel as the bytes of a .npy file (version 1.0 or 2.0 of NumPy's format, C order, little-endian) or as JSON.
No message can contain code: .npy headers are parsed as literals, arrays of objects are refused, and an array must fill
its body exactly before memory is allocated for it.
"""

import io
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from faultsim.errors import FaultsimError
from faultsim.io.bounds import parse_json, read_npy_header

NPY, JSON = "application/x-npy", "application/json"

IMAGES, CLASSES = np.dtype("<f4"), np.dtype("<i8")
HEADER = 256  # bytes of a .npy header at most, as this module writes it
_MOST = 2**31 - 1
_DEPTH = 8  # of lists in one another: images take four


@dataclass(frozen=True)
class Limits:
    """Limits of one request."""

    batch: int = 1024
    """Images."""
    body: int = 16 << 20
    """Bytes."""
    seconds: float = 30.0
    """From the first byte of the body to its last."""

    def __post_init__(self) -> None:
        if not 1 <= self.batch <= _MOST or not 1 <= self.body <= _MOST:
            raise FaultsimError(
                f"limits of {self.batch} images and {self.body} bytes: both must be from 1 to {_MOST}"
            )
        if not 0.0 < self.seconds < float("inf"):
            raise FaultsimError(f"a time limit of {self.seconds} s: it must be above 0 and finite")


@dataclass(frozen=True)
class Description:
    """What a black box publishes about itself."""

    name: str
    input_shape: tuple[int, int, int]
    """Channels, height, width of float32 images in [-1, 1]."""
    classes: int
    limits: Limits

    def as_json(self) -> dict[str, Any]:
        """Return the answer to GET /."""
        return {
            "name": self.name,
            "input": {"shape": list(self.input_shape), "dtype": "float32", "range": [-1, 1]},
            "classes": self.classes,
            "limits": vars(self.limits),
            "predict": {
                NPY: "POST /predict: images float32 [B, *shape]; answer: int64 [B]",
                JSON: 'POST /predict: {"images": [...]}; answer: {"classes": [...]}',
            },
        }

    @classmethod
    def from_json(cls, found: Any) -> "Description":
        """Parse what as_json() returned. Raises FaultsimError for anything else."""
        try:
            shape, limits = tuple(found["input"]["shape"]), found["limits"]
            seconds = limits["seconds"]
            numbers = [*shape, found["classes"], limits["batch"], limits["body"]]
            fits = (
                len(shape) == 3
                and isinstance(found["name"], str)
                and all(type(n) is int and 1 <= n <= _MOST for n in numbers)
                and type(seconds) in (int, float)
            )
            if fits:
                return cls(
                    found["name"], shape, found["classes"], Limits(limits["batch"], limits["body"], seconds)
                )
        except (KeyError, TypeError):
            pass
        raise FaultsimError("it doesn't describe itself as faultsim serve-model does")

    @property
    def images_at_once(self) -> int:
        """How many images fit into one request in .npy format."""
        channels, height, width = self.input_shape
        image = IMAGES.itemsize * channels * height * width
        return max(0, min(self.limits.batch, (self.limits.body - HEADER) // image))


def to_npy(array: np.ndarray) -> bytes:
    """Return the bytes of a .npy file. The array must have dtype IMAGES or CLASSES."""
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(array, order="C"), allow_pickle=False)
    return file.getvalue()


def from_npy(body: bytes | bytearray, dtype: np.dtype) -> np.ndarray:
    """Parse a .npy file to a view of `body`. Raises FaultsimError unless it is complete, of `dtype`, in C order."""
    file = io.BytesIO(body)
    try:
        kind, shape, by_columns = read_npy_header(file)
    except ValueError as error:
        raise FaultsimError("the body is no .npy file of format 1.0 or 2.0") from error
    if kind != dtype.str or by_columns:
        raise FaultsimError(
            f"the .npy file holds {kind}{' in Fortran order' if by_columns else ''}: {dtype.str} in C order is needed"
        )
    count = 1
    for length in shape:  # as Python integers: nothing overflows
        count *= length
    data = memoryview(body)[file.tell() :]
    if len(data) != count * dtype.itemsize:
        raise FaultsimError(f"the .npy file says shape {list(shape)}, but holds {len(data):,} bytes of data")
    return np.frombuffer(data, dtype).reshape(shape)


def to_json(classes: np.ndarray) -> bytes:
    """Return the JSON {"classes": [...]}."""
    return json.dumps({"classes": classes.tolist()}).encode()


def images_from_json(body: bytes | bytearray) -> np.ndarray:
    """Parse {"images": [...]} to float32; shape and range stay unchecked. Raises FaultsimError for anything else."""
    try:
        content = parse_json(body, _MOST, _DEPTH)
    except ValueError as error:
        raise FaultsimError(f"the body is no JSON that is read here: {error}") from error
    # one string is its only key: NumPy would make all elements of a list as long as the longest text among them
    if not isinstance(content, dict) or content.keys() != {"images"} or body.count(b'"') != 2:
        raise FaultsimError('the JSON must be {"images": [...]} with numbers, and nothing else')
    try:
        images = np.asarray(content["images"])
    except (ValueError, OverflowError) as error:
        raise FaultsimError("images must be nested lists of equal lengths, [B, C, H, W]") from error
    if images.dtype.kind not in "if":
        raise FaultsimError("images must be nested lists of numbers, [B, C, H, W]")
    with np.errstate(over="ignore"):  # what overflows becomes infinite and is out of range
        return images.astype(np.float32)
