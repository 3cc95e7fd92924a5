"""Images to measure on: handwritten digits, CIFAR-10, CIFAR-100 and GTSRB, all as uint8 [N, 3, 32, 32].

Further `load_folder` for a folder of pictures, and `OwnBatches` for batches of your own.

    from faultsim.data import iterate_batches, load

    test = load("cifar10", "test", data_dir="downloads").to("cuda")
    for images, labels in iterate_batches(test, 256, device="cuda"):    # images: float32 in [-1, 1]
        ...

Importing this package imports neither torch nor NumPy; everything else is loaded when it is first used.
"""

from importlib import import_module
from os import PathLike

from ..errors import FaultsimError

NAMES = ("digits", "cifar10", "cifar100", "gtsrb")
SPLITS = ("train", "test")

_HOME = {
    "Augmentation": "augment",
    "find_augmentation": "augment",
    "Dataset": "dataset",
    "Normalization": "dataset",
    "OwnBatches": "own",
    "load_folder": "folder",
    "normalize": "dataset",
    "iterate_batches": "loader",
    "draw_order": "loader",
    "split_validation": "splits",
}


def __getattr__(name: str):
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def load(
    name: str,
    split: str,
    data_dir: str | PathLike[str] | None = None,
    *,
    cache_dir: str | PathLike[str] | None = None,
):
    """Load one split of a dataset, on the CPU.

    Parameters
    ----------
    name
        One of `NAMES`.
    split
        "train" or "test": the official division; for the digits a fixed one, see digits.py.
    data_dir
        The dataset's official folder, the folder that holds it, or the folder that holds (or the path of) its official
        archive. Default: the archive is downloaded. The digits come with scikit-learn and take none.
    cache_dir
        Where a downloaded archive is kept. Default: the user's cache folder, under "faultsim".

    Returns
    -------
    Dataset

    Raises
    ------
    FaultsimError
        Naming the file, for anything that is not the dataset asked for.
    """
    if name not in NAMES:
        raise FaultsimError(f"unknown data set {name!r}; known: {', '.join(NAMES)}")
    if split not in SPLITS:
        raise FaultsimError(f"unknown split {split!r}; known: {', '.join(SPLITS)}")
    if name == "digits":
        if data_dir is not None:
            raise FaultsimError("the digits come with scikit-learn and take no data folder")
        return import_module("faultsim.data.digits").load_digits(split)
    try:
        if name == "gtsrb":
            return import_module("faultsim.data.gtsrb").load_gtsrb(split, data_dir, cache_dir)
        return import_module("faultsim.data.cifar").load_cifar(name, split, data_dir, cache_dir)
    except OSError as error:  # a folder that may not be read, a disk that fails
        raise FaultsimError(f"cannot read {error.filename or data_dir}: {error.strerror or error}") from None
