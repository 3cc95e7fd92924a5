"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009), from the official folders or archives, pickled or binary."""

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import torch

from ..errors import FaultsimError
from .dataset import SIDE, Dataset
from .fetch import CIFAR10, CIFAR100, fetch
from .files import explain_missing, read_folder, read_tar
from .unpickle import unpickle

PIXELS = 3 * SIDE * SIDE  # bytes of an image: the red plane, then green, then blue


@dataclass(frozen=True)
class Edition:
    """One of the official editions of a dataset: pickled or binary.

    train, test  the files of each split, in order
    meta         the file with the class names
    labels_key   pickled form: the dictionary entry with the labels; meta's names are under `names_key`
    label_bytes  binary form: bytes in front of the pixels of each record; the last of them is the class
    """

    folder: str
    archive: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    meta: str
    labels_key: str = ""
    names_key: str = ""
    label_bytes: int = 0

    @property
    def files(self) -> tuple[str, ...]:
        """All files of the edition."""
        return (*self.train, *self.test, self.meta)


_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))

EDITIONS = {
    "cifar10": (
        Edition(
            folder="cifar-10-batches-py",
            archive="cifar-10-python.tar.gz",
            train=_BATCHES,
            test=("test_batch",),
            meta="batches.meta",
            labels_key="labels",
            names_key="label_names",
        ),
        Edition(
            folder="cifar-10-batches-bin",
            archive="cifar-10-binary.tar.gz",
            train=tuple(f"{name}.bin" for name in _BATCHES),
            test=("test_batch.bin",),
            meta="batches.meta.txt",
            label_bytes=1,
        ),
    ),
    "cifar100": (
        Edition(
            folder="cifar-100-python",
            archive="cifar-100-python.tar.gz",
            train=("train",),
            test=("test",),
            meta="meta",
            labels_key="fine_labels",
            names_key="fine_label_names",
        ),
        Edition(
            folder="cifar-100-binary",
            archive="cifar-100-binary.tar.gz",
            train=("train.bin",),
            test=("test.bin",),
            meta="fine_label_names.txt",
            label_bytes=2,
        ),
    ),
}
CLASSES = {"cifar10": 10, "cifar100": 100}
OFFICIAL = {"cifar10": CIFAR10, "cifar100": CIFAR100}


def load_cifar(
    name: str, split: str, data_dir: str | PathLike[str] | None, cache_dir: str | PathLike[str] | None = None
) -> Dataset:
    """Load "cifar10" or "cifar100" (with the 100 fine classes); arguments and errors as for `faultsim.data.load`.

    Where `data_dir` holds several editions, folders go before archives and pickled before binary.
    """
    root = fetch(OFFICIAL[name], cache_dir) if data_dir is None else Path(data_dir)
    edition, source = _locate(name, root)
    wanted = (*getattr(edition, split), edition.meta)
    if source.is_dir():
        sizes, contents = read_folder(source, edition.files, wanted)
        where = {file: str(source / file) for file in edition.files}
    else:
        sizes, contents = read_tar(source, edition.folder, edition.files, wanted)
        where = {file: f"{source}: {edition.folder}/{file}" for file in edition.files}

    meta = contents.pop(edition.meta)
    if edition.label_bytes:
        names = _names_from_text(meta, where[edition.meta])
        parts = [_binary(content, edition, where[file]) for file, content in contents.items()]
        _check_sizes(edition, sizes, where)
    else:
        described = unpickle(meta, where[edition.meta])
        names = _names_from_pickle(described, edition, where[edition.meta])
        parts = [_pickled(content, edition, where[file]) for file, content in contents.items()]
        _check_counts(described, parts, contents, where)
    if len(names) != CLASSES[name]:
        raise FaultsimError(
            f"{where[edition.meta]} names {len(names)} classes, {CLASSES[name]} expected for {name}"
        )
    for file, (_, labels) in zip(contents, parts, strict=True):
        if labels.size and not 0 <= labels.min() <= labels.max() < CLASSES[name]:
            raise FaultsimError(
                f"{where[file]} holds labels from {labels.min()} to {labels.max()}, "
                f"0 to {CLASSES[name] - 1} expected for {name}"
            )
    pixels = np.concatenate([pixels for pixels, _ in parts])
    return Dataset(
        images=torch.from_numpy(pixels.reshape(-1, 3, SIDE, SIDE)),
        labels=torch.from_numpy(np.concatenate([labels for _, labels in parts])),
        class_names=names,
        name=name,
        split=split,
    )


def _locate(name: str, root: Path) -> tuple[Edition, Path]:
    editions = EDITIONS[name]
    for edition in editions:
        for folder in (root, root / edition.folder):
            if any((folder / file).is_file() for file in edition.files):
                return edition, folder
    for edition in editions:
        for archive in (root, root / edition.archive):
            if archive.name == edition.archive and archive.is_file():
                return edition, archive
    expected = [edition.folder for edition in editions] + [edition.archive for edition in editions]
    raise explain_missing(name, root, f"{', '.join(expected[:-1])} or {expected[-1]}")


def _binary(content: bytes, edition: Edition, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Parse records of `label_bytes` labels and 3,072 pixels into (uint8 [n, 3072], int64 [n])."""
    length = edition.label_bytes + PIXELS
    if not content or len(content) % length:
        raise FaultsimError(
            f"{where} has {len(content):,} bytes, not a whole number of {length:,}-byte records: "
            "cut short, or another data set"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, length)
    return records[:, edition.label_bytes :], records[:, edition.label_bytes - 1].astype(np.int64)


def _check_sizes(edition: Edition, sizes: dict[str, int], where: dict[str, str]) -> None:
    """Compare the sizes of binary files: one cut short between two records shows only so.

    CIFAR-10's six files are equally long; CIFAR-100's training file is five times the test file.
    """
    share = {file: 5 // len(edition.train) for file in edition.train} | dict.fromkeys(edition.test, 1)
    present = {file: sizes[file] / share[file] for file in share if file in sizes}
    longest = max(present.values())
    for file, size in present.items():
        if size != longest:
            raise FaultsimError(
                f"{where[file]} has {sizes[file]:,} bytes, {longest * share[file]:,.0f} expected beside the "
                "other files of its folder: one of them is cut short"
            )


def _pickled(content: bytes, edition: Edition, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Turn a batch's dictionary into (uint8 [n, 3072], int64 [n])."""
    batch = unpickle(content, where)
    pixels, labels = batch.get("data"), batch.get(edition.labels_key)
    if not isinstance(pixels, np.ndarray) or not isinstance(labels, list):
        raise FaultsimError(
            f"{where} lacks 'data' or '{edition.labels_key}': not the data set asked for "
            f"(it holds {', '.join(sorted(batch)) or 'nothing'})"
        )
    if pixels.shape != (len(labels), PIXELS) or not labels:
        raise FaultsimError(
            f"{where} holds pixels of shape {list(pixels.shape)} for {len(labels)} labels, "
            f"[{len(labels)}, {PIXELS}] expected"
        )
    if not all(isinstance(label, int) for label in labels):
        raise FaultsimError(f"{where} holds labels that are not integers")
    return pixels, np.array(labels, np.int64)


def _check_counts(described: dict, parts: list, contents: dict, where: dict[str, str]) -> None:
    """CIFAR-10's meta file says how many images a batch has."""
    expected = described.get("num_cases_per_batch")
    for file, (_, labels) in zip(contents, parts, strict=True):
        if expected is not None and len(labels) != expected:
            raise FaultsimError(f"{where[file]} holds {len(labels)} images, its meta file says {expected}")


def _names_from_pickle(described: dict, edition: Edition, where: str) -> tuple[str, ...]:
    names = described.get(edition.names_key)
    if not isinstance(names, list) or not all(isinstance(name, bytes | str) for name in names):
        raise FaultsimError(f"{where} lacks the list '{edition.names_key}': not the data set asked for")
    return tuple(name.decode("latin1") if isinstance(name, bytes) else name for name in names)


def _names_from_text(content: bytes, where: str) -> tuple[str, ...]:
    try:
        return tuple(content.decode("ascii").split())
    except UnicodeDecodeError:
        raise FaultsimError(f"{where} is not a text file with one class name a line") from None
