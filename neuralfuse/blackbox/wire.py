"""What client and server say to each other: a description, images, class numbers.

Arrays travel as the bytes of a .npy file (version 1.0 or 2.0 of NumPy's format, C order, little-endian) or as JSON.
Nothing that is read here can hold code: .npy headers are read as literals, arrays of objects are refused, and an array
must fill its body exactly before any memory is taken for it.
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
    """What a server takes in one request."""

    batch: int = 1024  #: images
    body: int = 16 << 20  #: bytes
    seconds: float = 30.0  #: from the first byte of the body to its last

    def __post_init__(self) -> None:
        if not 1 <= self.batch <= _MOST or not 1 <= self.body <= _MOST:
            raise FaultsimError(
                f"limits of {self.batch} images and {self.body} bytes: both must be from 1 to {_MOST}"
            )
        if not 0.0 < self.seconds < float("inf"):
            raise FaultsimError(f"a time limit of {self.seconds} s: it must be above 0 and finite")


@dataclass(frozen=True)
class Description:
    """What a black box tells about itself."""

    name: str
    input_shape: tuple[int, int, int]  #: channels, height, width of float32 images in [-1, 1]
    classes: int
    limits: Limits

    def as_json(self) -> dict[str, Any]:
        """As the server answers it to GET /."""
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
        """Raises FaultsimError for anything that as_json() doesn't write."""
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
        """Images of this shape that one request in .npy can carry; 0 where not even one fits."""
        channels, height, width = self.input_shape
        image = IMAGES.itemsize * channels * height * width
        return max(0, min(self.limits.batch, (self.limits.body - HEADER) // image))


def to_npy(array: np.ndarray) -> bytes:
    """The bytes of a .npy file; the array must be of IMAGES or CLASSES type."""
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(array, order="C"), allow_pickle=False)
    return file.getvalue()


def from_npy(body: bytes | bytearray, dtype: np.dtype) -> np.ndarray:
    """The array of a .npy file, a view of `body`; FaultsimError unless it is a whole one of `dtype` in C order."""
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
    """{"classes": [...]}"""
    return json.dumps({"classes": classes.tolist()}).encode()


def images_from_json(body: bytes | bytearray) -> np.ndarray:
    """float32 images of {"images": [...]}; FaultsimError for anything else. Their shape and range stay unchecked."""
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
