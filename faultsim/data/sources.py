"""Test data by name: a dataset that faultsim knows, a folder of pictures, or a function of the user's own."""

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

import torch

from ..errors import FaultsimError
from . import NAMES, Augmentation, find_augmentation, load
from .dataset import SIDE, Dataset, Normalization
from .folder import load_folder
from .own import OwnBatches


@dataclass(frozen=True)
class OwnData:
    """Data of the user's own, not loaded yet."""

    source: str
    """Folder that contains a folder of pictures for each class, or package.module:function, which returns batches."""
    is_folder: bool
    input_size: tuple[int, int, int] | None = None
    """(channels, height, width) of the pictures; None: that of the model's training, else 3x32x32."""
    mean: tuple[float, ...] | None = None
    """With `std`: pixels become (x / 255 - mean) / std; one number, or one for each channel."""
    std: tuple[float, ...] | None = None
    is_text: bool = False
    """Whether `source` is a text file, which the model's own tokenizer divides."""
    context: int | None = None
    """Tokens in a window of a text; None: as load_text chooses."""


def load_test_images(
    dataset: object, data_dir: str | PathLike[str] | None = None, images: int | None = None
) -> Dataset:
    """Load the test images of a dataset that faultsim knows.

    Parameters
    ----------
    dataset : str
        One of faultsim.data.NAMES. Anything else, such as a wrong entry of a weight file, is an error.
    data_dir : path, optional
        Directory or archive of the dataset; downloaded if omitted.
    images : int, optional
        Only the first so many.

    Returns
    -------
    Dataset
        On the CPU.

    Raises
    ------
    FaultsimError
        For an unknown dataset, and for more images than it has.
    """
    if not isinstance(dataset, str):
        raise FaultsimError(
            "which images? add --dataset digits, cifar10, cifar100 or gtsrb, or your own with --data"
        )
    if dataset not in NAMES:
        raise FaultsimError(
            f"unknown dataset {dataset!r}; known: {', '.join(NAMES)}; give your own with --data"
        )
    test = load(dataset, "test", data_dir)
    if images is None:
        return test
    if not 1 <= images <= len(test):
        raise FaultsimError(
            f"--images {images}: {dataset} has {len(test)} test images, choose 1 to {len(test)}"
        )
    return test.subset(torch.arange(images))


def load_own(
    own: OwnData, images: int | None = None, trained: Mapping[str, Any] | None = None, model: str = ""
) -> Dataset | OwnBatches:
    """Load data of the user's own.

    Parameters
    ----------
    own : OwnData
        Where it is, and what its pictures become.
    images : int, optional
        Only the first so many samples.
    trained : mapping, optional
        Metadata of the model's weight file: size and normalization of pictures where `own` gives none.
    model : str
        Name of the model, whose tokenizer a text needs.

    Returns
    -------
    Dataset or OwnBatches
        On the CPU.

    Raises
    ------
    FaultsimError
        For a folder or function that cannot be used, and for too few samples.
    """
    if own.is_text:
        from .text import load_text

        return load_text(own.source, model, own.context, images)
    if not own.is_folder:
        return OwnBatches.load(own.source, images)
    size, known = own.input_size, trained or {}
    if size is None:
        size = _sizes(known.get("input_size")) or (3, SIDE, SIDE)
    facts = known.get("normalisation") if own.mean is None else {"mean": own.mean, "std": own.std}
    return load_folder(own.source, size, _normalization(facts, size[0]), images)


def load_training_data(
    dataset: str,
    data_dir: str | PathLike[str] | None = None,
    own: tuple[OwnData, OwnData] | None = None,
) -> tuple[Dataset, Dataset, Augmentation | None]:
    """Load what a classifier is trained with.

    Parameters
    ----------
    dataset : str
        One of faultsim.data.NAMES.
    data_dir : path, optional
        Directory or archive of the dataset; downloaded if omitted.
    own : pair of OwnData, optional
        The user's own training and test data instead, one input tensor and class numbers each.

    Returns
    -------
    training, test : Dataset
        On the CPU.
    augment : Augmentation or None
        How training images are augmented; None for own data, which stay as they are.

    Raises
    ------
    FaultsimError
        For data that cannot be loaded, or that a classifier cannot be trained with.
    """
    if own is None:
        return load(dataset, "train", data_dir), load(dataset, "test", data_dir), find_augmentation(dataset)
    found = [load_own(part) for part in own]
    training, test = (part.as_dataset("own") if isinstance(part, OwnBatches) else part for part in found)
    return training, test, None


def describe_pictures(dataset: Dataset | OwnBatches) -> dict[str, Any]:
    """Describe what the pictures of a folder became; empty for data to which nothing was done."""
    if isinstance(dataset, OwnBatches) or dataset.name in NAMES:
        return {}
    return {
        "input_size": list(dataset.input_shape),
        "normalisation": dataset.normalization and vars(dataset.normalization),
    }


def _sizes(value: Any) -> tuple[int, int, int] | None:
    """Return the size in a weight file's metadata, if it is one."""
    whole = isinstance(value, list) and len(value) == 3 and all(type(size) is int for size in value)
    return (value[0], value[1], value[2]) if whole else None


def _normalization(facts: Any, channels: int) -> Normalization | None:
    """Return the normalization in a weight file's metadata."""
    if facts is None:
        return None
    try:
        mean, std = (tuple(float(number) for number in facts[name]) for name in ("mean", "std"))
    except (KeyError, TypeError, ValueError):
        raise FaultsimError("the weight file's normalization cannot be read: give --mean and --std") from None
    return Normalization(*(part * channels if len(part) == 1 else part for part in (mean, std)))
