"""The handwritten digits that come with scikit-learn, enlarged to 32x32x3."""

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


def load_digits(split: str) -> Dataset:
    """1,797 digits, a fixed stratified fifth of them as the test set; three equal color planes."""
    from sklearn.datasets import load_digits as sklearn_digits

    source = sklearn_digits()
    labels = source.target.astype(np.int64)
    in_test = draw_stratified_mask(labels, np.arange(len(labels)), TEST_FRACTION, SPLIT_SEED)
    kept = np.flatnonzero(in_test if split == "test" else ~in_test)
    planes = enlarge_digits(source.images[kept])
    return Dataset(
        images=torch.from_numpy(planes[:, None].repeat(3, axis=1)),
        labels=torch.from_numpy(labels[kept]),
        class_names=tuple("0123456789"),
        name="digits",
        split=split,
    )
