"""Data sets for a machine without a network, from small containers: python tools/packed.py FILE.npz ... --out DIR

`faultsim ... --data-dir DIR` then reads CIFAR-10 and CIFAR-100 in their binary layout, GTSRB in its folders. A
container is one split of one data set: an .npz file with the arrays

    meta                JSON: "format": "image-pack", "version": 1, "dataset", "split", "codec"
    data, offsets       image i, encoded as PNG, WebP or JPEG of 32x32 pixels, is data[offsets[i] : offsets[i + 1]]
    labels, names       class and file name of each image
    class_names         of the classes; CIFAR-100 has coarse_labels and coarse_names too

Whole containers are checked and decoded before the first file is written, nothing is unpickled, and no file is written
over. What was encoded with loss is not the official data: results on it have to say so.
"""

import argparse
import io
import json
import re
import sys
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from faultsim.errors import FaultsimError
from faultsim.io.files import write_bytes

SIDE = 32
CLASSES = {"cifar10": 10, "cifar100": 100, "gtsrb": 43}
SPLITS = ("train", "test")
MOST_IMAGES = 100_000
LARGEST_IMAGE = 64 << 10  # bytes, encoded: more than 32x32 pixels take in any of the formats
LARGEST_ARRAY = 256 << 20  # bytes
FORMATS = ("PNG", "WEBP", "JPEG")


@dataclass(frozen=True)
class Pack:
    """One split of one data set, whole and checked."""

    dataset: str
    split: str
    codec: str
    pixels: np.ndarray  #: uint8 [n, 32, 32, 3]
    labels: np.ndarray  #: uint8 [n]
    names: list[str]  #: of the images' files
    class_names: list[str]
    coarse_labels: np.ndarray | None  #: uint8 [n], CIFAR-100 only
    coarse_names: list[str]


# -- reading ----------------------------------------------------------------------------------------------------


def read(path: Path) -> Pack:
    """FaultsimError, in one line, unless the container is whole and of this format."""
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(Arrays(path, archive))
    except FileNotFoundError:
        raise FaultsimError(f"{path}: no such file") from None
    except (
        OSError,
        EOFError,
        RuntimeError,  # encrypted
        NotImplementedError,  # another compression
        ValueError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        if isinstance(error, FaultsimError):
            raise
        raise FaultsimError(f"{path} is cut short or no container of images: {error}") from None


class Arrays:
    """The arrays of an .npz file, each as large as its header says and no larger than allowed."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path, self.archive = path, archive

    def fail(self, what: str) -> FaultsimError:
        return FaultsimError(f"{self.path}: {what}")

    def get(
        self, name: str, kinds: str, shape: tuple[int | None, ...], limit: int | None = None
    ) -> np.ndarray:
        """Array `name` of one of NumPy's `kinds` (letters) and of `shape`, where None stands for any length."""
        try:
            info = self.archive.getinfo(f"{name}.npy")
        except KeyError:
            raise self.fail(f"the array {name!r} is missing") from None
        limit = LARGEST_ARRAY if limit is None else limit
        if info.file_size > limit:
            raise self.fail(f"the array {name!r} takes {info.file_size:,} bytes, more than {limit:,}")
        content = self.archive.read(info)
        stream = io.BytesIO(content)
        if np.lib.format.read_magic(stream) != (1, 0):
            raise self.fail(f"the array {name!r} is of an unknown version")
        found, _, dtype = np.lib.format.read_array_header_1_0(stream)
        if dtype.kind not in kinds or len(found) != len(shape):
            raise self.fail(f"the array {name!r} is {dtype} with {len(found)} dimensions")
        if any(want is not None and have != want for have, want in zip(found, shape, strict=True)):
            raise self.fail(f"the array {name!r} has the shape {list(found)}, {list(shape)} expected")
        # before NumPy makes room for what the header promises
        if prod(found) * dtype.itemsize != len(content) - stream.tell():
            raise self.fail(f"the array {name!r} is not as long as its header says")
        return np.load(io.BytesIO(content), allow_pickle=False)

    def classes(self, name: str, images: int, classes: int) -> np.ndarray:
        """uint8 [images], each below `classes`."""
        found = self.get(name, "ui", (images,))
        if found.min() < 0 or found.max() >= classes:
            raise self.fail(f"{name!r} goes from {found.min()} to {found.max()}, 0 to {classes - 1} expected")
        return found.astype(np.uint8)

    def words(self, name: str, count: int, pattern: str) -> list[str]:
        """Texts that each match `pattern` as a whole."""
        texts = [
            text.decode("latin1") if isinstance(text, bytes) else text
            for text in self.get(name, "SU", (count,)).tolist()
        ]
        if bad := [text for text in texts if not re.fullmatch(pattern, text, re.ASCII)]:
            raise self.fail(f"{name!r} holds {bad[0]!r}")
        return texts


def _read(arrays: Arrays) -> Pack:
    try:
        meta = json.loads(str(arrays.get("meta", "U", (), 1 << 20)))
        version = (meta["format"], meta["version"])
        dataset, split = meta["dataset"], meta["split"]
    except (json.JSONDecodeError, KeyError, TypeError):
        raise arrays.fail("'meta' does not say format, version, dataset and split") from None
    if version != ("image-pack", 1):
        raise arrays.fail(f"is of the format {version}, ('image-pack', 1) expected")
    if dataset not in tuple(CLASSES) or split not in SPLITS:  # a tuple: JSON may hold what has no hash
        raise arrays.fail(f"holds {dataset!r}, {split!r}: no split of {', '.join(CLASSES)}")
    count = len(arrays.get("labels", "ui", (None,)))
    if not 1 <= count <= MOST_IMAGES:
        raise arrays.fail(f"holds {count:,} images, 1 to {MOST_IMAGES:,} expected")
    if (dataset, split) == ("cifar10", "train") and count % 5:
        raise arrays.fail(
            f"holds {count:,} images, which CIFAR-10's five training files cannot share equally"
        )
    cifar100, classes = dataset == "cifar100", CLASSES[dataset]
    word = r"[!-~]{1,100}"
    pack = Pack(
        dataset=dataset,
        split=split,
        codec=str(meta.get("codec")),
        pixels=_pixels(arrays, count),
        labels=arrays.classes("labels", count, classes),
        names=arrays.words("names", count, _file_names(dataset, split)),
        class_names=arrays.words("class_names", classes, word),
        coarse_labels=arrays.classes("coarse_labels", count, 20) if cifar100 else None,
        coarse_names=arrays.words("coarse_names", 20, word) if cifar100 else [],
    )
    if dataset == "gtsrb":
        if len(set(pack.names)) != count:
            raise arrays.fail("'names' holds a name twice")
        for name, label in zip(pack.names, pack.labels.tolist(), strict=True):
            if split == "train" and int(name[:5]) != label:
                raise arrays.fail(f"image {name} lies outside the folder of its class {label}")
    return pack


def _file_names(dataset: str, split: str) -> str:
    """Only GTSRB's become files, with these names; the others' are not used."""
    if dataset != "gtsrb":
        return r"[!-~]{0,100}"
    return r"\d{5}/\d{5}_\d{5}\.ppm" if split == "train" else r"\d{5}\.ppm"


def _pixels(arrays: Arrays, count: int) -> np.ndarray:
    data = arrays.get("data", "u", (None,))
    offsets = arrays.get("offsets", "iu", (count + 1,))
    if data.dtype != np.uint8:
        raise arrays.fail(f"the array 'data' is {data.dtype}, uint8 expected")
    bounds = offsets.tolist()  # Python's integers: no sum or difference wraps
    if (
        bounds[0] != 0
        or bounds[-1] != len(data)
        or any(not 0 < end - begin <= LARGEST_IMAGE for begin, end in pairwise(bounds))
    ):
        raise arrays.fail("'offsets' do not divide 'data' into images of at most 64 KiB")
    pixels = np.empty((count, SIDE, SIDE, 3), np.uint8)
    for index in range(count):
        encoded = data[bounds[index] : bounds[index + 1]].tobytes()
        try:
            with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
                if (image.size, image.mode) != ((SIDE, SIDE), "RGB"):
                    raise arrays.fail(f"image {index} is {image.size} {image.mode}, 32 x 32 RGB expected")
                pixels[index] = np.asarray(image)
        except FaultsimError:
            raise
        except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
            raise arrays.fail(f"image {index} cannot be decoded: {error}") from None
    return pixels


# -- writing ----------------------------------------------------------------------------------------------------


def files(pack: Pack) -> dict[str, bytes]:
    """The data set's own files for a split: path below the folder -> content."""
    return _gtsrb(pack) if pack.dataset == "gtsrb" else _cifar(pack)


def _cifar(pack: Pack) -> dict[str, bytes]:
    """Records of the label (CIFAR-100: coarse and fine) and the red, the green and the blue plane."""
    planes = pack.pixels.transpose(0, 3, 1, 2).reshape(len(pack.pixels), -1)
    heads = [pack.labels] if pack.coarse_labels is None else [pack.coarse_labels, pack.labels]
    records = np.concatenate([np.stack(heads, 1), planes], 1)
    if pack.dataset == "cifar100":
        folder, batches = "cifar-100-binary", [f"{pack.split}.bin"]
        texts = {"fine_label_names.txt": pack.class_names, "coarse_label_names.txt": pack.coarse_names}
    else:
        folder, texts = "cifar-10-batches-bin", {"batches.meta.txt": pack.class_names}
        batches = [f"data_batch_{number}.bin" for number in range(1, 6)]
        batches = batches if pack.split == "train" else ["test_batch.bin"]
    parts = np.split(records, len(batches))
    found = {f"{folder}/{name}": part.tobytes() for name, part in zip(batches, parts, strict=True)}
    return found | {f"{folder}/{name}": "\n".join([*words, ""]).encode() for name, words in texts.items()}


def _gtsrb(pack: Pack) -> dict[str, bytes]:
    """Pictures and tables of their classes. Size and region of interest, which the official tables have too, were those
    of the frames before they were made 32x32: they are left out."""
    training = pack.split == "train"
    root = "GTSRB/Final_Training/Images" if training else "GTSRB/Final_Test/Images"
    found, tables = {}, {}
    for name, label, pixels in zip(pack.names, pack.labels.tolist(), pack.pixels, strict=True):
        found[f"{root}/{name}"] = b"P6\n%d %d\n255\n" % (SIDE, SIDE) + pixels.tobytes()
        table = f"{root}/{label:05d}/GT-{label:05d}.csv" if training else "GT-final_test.csv"
        tables.setdefault(table, ["Filename;ClassId"]).append(f"{name.rpartition('/')[2]};{label}")
    # the tables last: a split that was cut short in the writing is refused by the loader
    return found | {table: "\n".join([*rows, ""]).encode() for table, rows in tables.items()}


def write(packs: Iterable[Pack], folder: Path) -> None:
    """All files of `packs` into `folder`; FaultsimError, and nothing written, where one of them is there already."""
    contents: dict[str, bytes] = {}
    for pack in packs:
        for name, content in files(pack).items():
            if contents.setdefault(name, content) != content:
                raise FaultsimError(
                    f"two containers disagree about {name}: one split twice, or other class names"
                )
    for name, content in contents.items():
        path = folder / name
        if path.exists() and not (
            path.suffix == ".txt" and path.read_bytes() == content
        ):  # both splits' class names
            raise FaultsimError(f"{path} is there already: it is not written over")
    for name, content in contents.items():
        path = folder / name
        if path.suffix != ".ppm":
            write_bytes(path, content)
            continue
        try:  # tens of thousands: not each of them flushed to disk
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        except OSError as error:
            raise FaultsimError(f"cannot write {path}: {error.strerror or error}") from None


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("containers", nargs="+", type=Path, metavar="FILE.npz")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="what --data-dir is given then"
    )
    options = parser.parse_args(arguments)
    try:
        packs = [read(path) for path in options.containers]
        write(packs, options.out)
    except FaultsimError as error:
        print(f"packed.py: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    for pack in packs:
        print(f"{pack.dataset} {pack.split}: {len(pack.labels):,} images, encoded as {pack.codec[:40]!a}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
