"""Black boxes: images in, class numbers out."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np

from faultsim.errors import FaultsimError


@runtime_checkable
class BlackBox(Protocol):
    """A classifier that only returns predictions."""

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Return the class of each image, int64 [B], for images float32 [B, C, H, W] in [-1, 1]."""


class PythonCallable:
    """A black box made of a function from images to class numbers: the driver of a device, the client of a service.

    Parameters
    ----------
    function
        Images float32 [B, C, H, W] in [-1, 1] (NumPy) to class numbers [B].
    name
        What errors call it.
    """

    def __init__(self, function: Callable[[np.ndarray], object], name: str = "the function") -> None:
        self._function, self._name = function, name

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Return the class of each image.

        Raises FaultsimError if the function fails or returns anything else than one class number per image.
        """
        images = check_images(images)
        try:
            answer = self._function(images)
        except Exception as error:  # the user's function may fail in any way
            raise FaultsimError(
                f"{self._name} fails on images {list(images.shape)}: {type(error).__name__}: {error}"
            ) from error
        return check_classes(answer, len(images), self._name)


def check_images(images: np.ndarray) -> np.ndarray:
    """Return the same images. Raises FaultsimError unless they are float32 [B, C, H, W] in [-1, 1] with B >= 1."""
    if images.dtype != np.float32 or images.ndim != 4:
        raise FaultsimError(f"images must be float32 [B, C, H, W], not {images.dtype} {list(images.shape)}")
    if not images.size:
        raise FaultsimError(f"images {list(images.shape)} are empty: give at least one")
    low, high = images.min(), images.max()
    if not (low >= -1.0 and high <= 1.0):  # so that NaN is refused too
        raise FaultsimError(f"images must lie within [-1, 1], not within [{low:g}, {high:g}]")
    return images


def check_classes(answer: object, count: int, who: str) -> np.ndarray:
    """Return an answer of `who` as int64 [count]. Raises FaultsimError unless it is one class number per image."""
    try:
        classes = np.asarray(answer)
    except ValueError:  # lists of unequal lengths
        classes = np.empty(0)
    if classes.shape != (count,) or classes.dtype.kind not in "iu":
        raise FaultsimError(
            f"{who} answers {classes.dtype} {list(classes.shape)} to {count} images: class numbers, integers "
            f"[{count}], are needed"
        )
    if classes.min() < 0:
        raise FaultsimError(f"{who} answers class {classes.min()}: classes count from 0")
    return classes.astype(np.int64, copy=False)
