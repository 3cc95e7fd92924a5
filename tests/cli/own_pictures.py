"""Folders of pictures for the tests of own data, and a small evaluation."""

from pathlib import Path

import numpy as np
from PIL import Image

from faultsim.data import load


def pictures(folder: Path, classes: dict[str, list[np.ndarray]], ending: str = "png") -> None:
    for name, arrays in classes.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number, array in enumerate(arrays):
            Image.fromarray(array).save(folder / name / f"{number:03d}.{ending}")


def digits_in(folder: Path, split: str, count: int) -> None:
    """Grey pictures of digits, 28 x 28."""
    digits = load("digits", split)
    for index in range(count):
        place = folder / str(int(digits.labels[index]))
        place.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(digits.images[index, 0].numpy()).resize((28, 28))
        picture.save(place / f"{index:04d}.png")


SMALL = ["--device", "cpu", "--chips", "3"]
