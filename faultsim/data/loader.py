"""Batches of a data set that stays on one device."""

from collections.abc import Iterator

import torch

from ..errors import FaultsimError
from .augment import Augmentation
from .dataset import Dataset, normalize
from .splits import create_random

_ORDER, _AUGMENT = 0, 1  # independent random streams of one (seed, epoch)


def draw_order(count: int, seed: int, epoch: int) -> torch.Tensor:
    """Return a permutation of 0..count-1 (int64 [count], on the CPU): a pure function of its arguments."""
    return torch.from_numpy(create_random(seed, epoch, _ORDER).permutation(count))


def iterate_batches(
    dataset: Dataset,
    batch_size: int,
    *,
    shuffle_seed: int | None = None,
    epoch: int = 0,
    device: torch.device | str = "cpu",
    augment: Augmentation | None = None,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield one epoch of batches, (images float32 [B, channels, height, width], labels int64 [B]).

    Every image comes exactly once; the last batch may be smaller. Images are normalized as the dataset says; inputs
    that are no pixels stay as they are.

    Parameters
    ----------
    dataset
        Brought to `device` before the first batch: pass `dataset.to(device)` where there is more than one epoch.
    batch_size
        At least 1.
    shuffle_seed
        Default: the dataset's own order. With it, order and augmentation depend on (shuffle_seed, epoch) only, and the
        order is the same on every device.
    epoch
        Its number.
    device
        Where the batches are.
    augment
        Needs `shuffle_seed`.

    Raises
    ------
    FaultsimError
        For a batch size below 1, a negative seed or epoch, and `augment` without a seed.
    """
    if batch_size < 1:
        raise FaultsimError(f"the batch size must be at least 1, got {batch_size}")
    if augment is not None and shuffle_seed is None:
        raise FaultsimError("augmentation draws at random and needs shuffle_seed")
    indices = None if shuffle_seed is None else draw_order(len(dataset), shuffle_seed, epoch).to(device)
    generator = None
    if augment is not None and shuffle_seed is not None:
        generator = torch.Generator(device)
        generator.manual_seed(int(create_random(shuffle_seed, epoch, _AUGMENT).randint(2**31)))
    return _batches(dataset.to(device), batch_size, indices, augment, generator)


def _batches(dataset, batch_size, indices, augment, generator):
    for start in range(0, len(dataset), batch_size):
        part = slice(start, start + batch_size)
        if indices is not None:
            part = indices[part]
        images, labels = dataset.images[part], dataset.labels[part]
        if augment is not None:
            images = augment(images, generator)
        yield normalize(images, dataset.normalization), labels
