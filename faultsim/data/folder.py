"""Pictures in folders, one folder a class."""

import os
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..errors import FaultsimError, summarize_error
from .dataset import SIDE, Dataset, Normalization

FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".bmp": "BMP",
    ".ppm": "PPM",
    ".pgm": "PPM",
    ".webp": "WEBP",
}
LARGEST_SIDE = 1 << 14  # of a picture, before it is resized
LARGEST_MEMORY = 1 << 36  # bytes of all pixels
_MODES = {1: "L", 3: "RGB"}


def load_folder(
    folder: str | PathLike[str],
    input_size: tuple[int, int, int] = (3, SIDE, SIDE),
    normalization: Normalization | None = None,
    images: int | None = None,
) -> Dataset:
    """Load pictures from folders, FOLDER/CLASS/PICTURE, on the CPU; classes in the order of their names.

    Files whose name begins with a dot, or has another suffix than a picture's, are passed over.

    Parameters
    ----------
    folder
        Contains a folder for each class.
    input_size
        (channels, height, width): pictures are made gray (1) or RGB (3) and resized, bilinear, as a whole.
    normalization
        Default: to [-1, 1].
    images
        The first so many only. The first picture of each class comes first, then the second of each, and so on, so that
        a part has all classes.

    Raises
    ------
    FaultsimError
        For a folder without classes, a class without pictures, a damaged picture, and sizes that cannot be.
    """
    channels, height, width = input_size
    if channels not in _MODES or not 1 <= min(height, width) <= max(height, width) <= LARGEST_SIDE:
        raise FaultsimError(
            f"pictures have 1 (grey) or 3 (RGB) channels and sides of 1 to {LARGEST_SIDE:,} pixels, not "
            f"{channels} x {height} x {width}"
        )
    names, listed = _listed(Path(folder))
    if images is not None:
        if not 1 <= images <= len(listed):
            raise FaultsimError(
                f"{images} images: {folder} has {len(listed):,} pictures, choose 1 to {len(listed)}"
            )
        listed = listed[:images]
    if len(listed) * channels * height * width > LARGEST_MEMORY:
        raise FaultsimError(
            f"{len(listed):,} pictures of {channels}x{height}x{width} are too many: use fewer images"
        )
    pixels = np.empty((len(listed), height, width, channels), np.uint8)
    for place, (path, _) in zip(pixels, listed, strict=True):
        place[...] = _decoded(path, channels, height, width)
    return Dataset(
        images=torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))),
        labels=torch.tensor([label for _, label in listed]),
        class_names=names,
        name=str(folder),
        split="all",
        normalization=normalization,
    )


def _listed(folder: Path) -> tuple[tuple[str, ...], list[tuple[Path, int]]]:
    """List the names of the classes, and (picture, class) in order."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
        found = []
        for label, name in enumerate(names):
            pictures = sorted(
                path
                for path in (folder / name).iterdir()
                if path.suffix.lower() in FORMATS and not path.name.startswith(".")
            )
            if not pictures:
                raise FaultsimError(f"{folder / name} holds no picture ({', '.join(FORMATS)})")
            found += [(index, label, path) for index, path in enumerate(pictures)]
    except OSError as error:
        raise FaultsimError(f"cannot read {error.filename or folder}: {error.strerror or error}") from None
    if not names:
        raise FaultsimError(f"{folder} holds no folders: one for each class is needed, with its pictures")
    return tuple(names), [(path, label) for _, label, path in sorted(found)]


def _decoded(path: Path, channels: int, height: int, width: int) -> np.ndarray:
    """Decode a picture as uint8 [height, width, channels]."""
    try:
        with Image.open(path, formats=(FORMATS[path.suffix.lower()],)) as file:
            if max(file.size) > LARGEST_SIDE:
                raise FaultsimError(f"{path} is larger than {LARGEST_SIDE:,} pixels a side")
            image: Image.Image = file.convert(_MODES[channels])
            if image.size != (width, height):
                image = image.resize((width, height), Image.Resampling.BILINEAR)
            return np.asarray(image).reshape(height, width, channels)
    except FaultsimError:
        raise
    except Exception as error:  # Pillow may fail in many ways on foreign bytes
        raise FaultsimError(f"{path} is not a whole picture: {summarize_error(error)}") from None
