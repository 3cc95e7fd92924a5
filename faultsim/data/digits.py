"""The handwritten digits that come with scikit-learn, enlarged to 32x32x3."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from .dataset import Dataset
from .splits import draw_stratified_mask

TEST_FRACTION = 0.2
SPLIT_SEED = 0


def enlarge_digits(digits: np.ndarray) -> np.ndarray:
    """Integers 0..16 [N, 8, 8] -> uint8 [N, 32, 32]: bilinear, then 16 becomes 255, rounded half up.

    An output pixel's center lies at an odd eighth between two input centers (edges are repeated), so the
    weights are exact in eighths, and the result is the same on every machine.
    """
    weights = np.zeros((32, 8), np.int64)
    for row in range(32):
        eighths = 2 * row - 3  # (row + 1/2) / 4 - 1/2, in eighths
        below, part = divmod(eighths, 8)
        weights[row, max(below, 0)] += 8 - part
        weights[row, min(below + 1, 7)] += part
    sums = weights @ digits.astype(np.int64) @ weights.T  # 64 x the value
    return ((255 * sums + 512) // 1024).astype(np.uint8)


def read_digits() -> tuple[np.ndarray, np.ndarray]:
    """Read the images, integers 0..16 [N, 8, 8], and labels [N], int64, of scikit-learn's file.

    Not by its own reader, which takes a second to import, unless the file is not where it should be.
    """
    spec = find_spec("sklearn")
    for place in spec.submodule_search_locations or () if spec else ():
        file = Path(place, "datasets", "data", "digits.csv.gz")
        if file.is_file():
            rows = np.loadtxt(file, delimiter=",", dtype=np.int64)
            return rows[:, :-1].reshape(-1, 8, 8), rows[:, -1]
    from sklearn.datasets import load_digits as read

    found = read()
    return found.images, found.target.astype(np.int64)


def load_digits(split: str) -> Dataset:
    """1,797 digits, a fixed stratified fifth of them as the test set; three equal color planes."""
    digits, labels = read_digits()
    in_test = draw_stratified_mask(labels, np.arange(len(labels)), TEST_FRACTION, SPLIT_SEED)
    kept = np.flatnonzero(in_test if split == "test" else ~in_test)
    planes = enlarge_digits(digits[kept])
    return Dataset(
        images=torch.from_numpy(planes[:, None].repeat(3, axis=1)),
        labels=torch.from_numpy(labels[kept]),
        class_names=tuple("0123456789"),
        name="digits",
        split=split,
    )
