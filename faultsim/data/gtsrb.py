"""The German Traffic Sign Recognition Benchmark (Stallkamp et al. 2012), from its official layout.

Training:  [GTSRB/]Final_Training/Images/<class>/<track>_<frame>.ppm, with GT-<class>.csv in each class folder
           ([GTSRB/]Training/... too: the layout of the first round of the competition, with fewer images)
Test:      [GTSRB/]Final_Test/Images/<number>.ppm and GT-final_test.csv

or the official zip archives, read in memory. Whole frames are used (no crop to the region of interest), and
brought to 32x32 with Pillow's bilinear filter, which averages over all source pixels when it makes an image
smaller; frames of 32x32 are taken as they are.
"""

import csv
import io
import re
from collections.abc import Iterator
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..errors import FaultsimError
from .dataset import SIDE, Dataset
from .fetch import GTSRB_TEST, GTSRB_TEST_LABELS, GTSRB_TRAIN, fetch
from .files import FolderTree, ZipTree, explain_missing, read_file

CLASS_NAMES = (
    "speed limit 20", "speed limit 30", "speed limit 50", "speed limit 60", "speed limit 70",
    "speed limit 80", "end of speed limit 80", "speed limit 100", "speed limit 120", "no overtaking",
    "no overtaking for lorries", "priority at next junction", "priority road", "give way", "stop",
    "closed to vehicles", "closed to lorries", "no entry", "danger", "bend left", "bend right", "double bend",
    "uneven road", "slippery road", "road narrows", "road works", "traffic lights", "pedestrians", "children",
    "cyclists", "snow or ice", "wild animals", "end of all restrictions", "turn right", "turn left",
    "straight on", "straight or right", "straight or left", "keep right", "keep left", "roundabout",
    "end of no overtaking", "end of no overtaking for lorries",
)  # fmt: skip

LARGEST_TEXT = 4 << 20
LARGEST_IMAGE = 4 << 20
LARGEST_SIDE = 1024  # official frames: 15 to 250 pixels

_TRAIN_ZIP, _TEST_ZIP, _LABELS_ZIP = GTSRB_TRAIN.file, GTSRB_TEST.file, GTSRB_TEST_LABELS.file
_TEST_CSV = "GT-final_test.csv"


def load_gtsrb(
    split: str, data_dir: str | PathLike[str] | None, cache_dir: str | PathLike[str] | None = None
) -> Dataset:
    """Load all images of a split; the training set has its tracks as groups. Arguments as for `faultsim.data.load`.

    Order: training images by class, track and frame, test images by number. Every image of the folder must be listed in
    its table and the other way round.
    """
    if data_dir is None:
        archives = (GTSRB_TRAIN,) if split == "train" else (GTSRB_TEST, GTSRB_TEST_LABELS)
        for archive in archives:
            root = fetch(archive, cache_dir).parent
    else:
        root = Path(data_dir)
    if split == "train":
        tree = _training_tree(root)
        rows = list(_training_rows(tree))
        groups = torch.tensor([100_000 * label + int(name[6:11]) for name, label in rows])
    else:
        tree = _test_tree(root)
        rows = list(_rows(*_test_table(root), tree, "", r"\d{5}\.ppm"))
        groups = None
    pixels = np.empty((len(rows), SIDE, SIDE, 3), np.uint8)
    for index, (name, _) in enumerate(rows):
        pixels[index] = _decoded(tree, name)
    return Dataset(
        images=torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))),
        labels=torch.tensor([label for _, label in rows]),
        class_names=CLASS_NAMES,
        name="gtsrb",
        split=split,
        groups=groups,
    )


def _roots(root: Path) -> tuple[Path, ...]:
    return (root, root / "GTSRB", root / "gtsrb", root / "gtsrb" / "GTSRB")


def _training_tree(root: Path) -> FolderTree | ZipTree:
    for place in ("Final_Training/Images", "Training"):
        for base in _roots(root):
            if (base / place).is_dir():
                return FolderTree(base / place)
    if (root / _TRAIN_ZIP).is_file():
        return ZipTree(root / _TRAIN_ZIP, "GTSRB/Final_Training/Images/")
    raise explain_missing("gtsrb", root, f"GTSRB/Final_Training/Images, GTSRB/Training or {_TRAIN_ZIP}")


def _test_tree(root: Path) -> FolderTree | ZipTree:
    for base in _roots(root):
        if (base / "Final_Test/Images").is_dir():
            return FolderTree(base / "Final_Test/Images")
    if (root / _TEST_ZIP).is_file():
        return ZipTree(root / _TEST_ZIP, "GTSRB/Final_Test/Images/")
    raise explain_missing(
        "gtsrb", root, f"GTSRB/Final_Test/Images or {_TEST_ZIP}, and {_TEST_CSV} or {_LABELS_ZIP}"
    )


def _test_table(root: Path) -> tuple[bytes, str]:
    """(content, name) of the table of test labels, wherever people put it."""
    beside = (root.parent,) if root.name == "GTSRB" else ()
    for base in (*_roots(root), *beside):
        for path in (base / _TEST_CSV, base / "Final_Test/Images" / _TEST_CSV):
            if path.is_file():
                return read_file(path, LARGEST_TEXT), str(path)
    if (root / _LABELS_ZIP).is_file():
        labels = ZipTree(root / _LABELS_ZIP)
        return labels.read(_TEST_CSV, LARGEST_TEXT), labels.where(_TEST_CSV)
    raise FaultsimError(
        f"missing file: {root / _TEST_CSV} (the labels of GTSRB's test images, or {_LABELS_ZIP})"
    )


def _training_rows(tree: FolderTree | ZipTree) -> Iterator[tuple[str, int]]:
    folders = {name.split("/")[0] for name in tree.names if name.endswith(".ppm")}
    known = [f"{label:05d}" for label in range(len(CLASS_NAMES))]
    if unknown := sorted(folders.difference(known)):
        raise FaultsimError(f"{tree.where(unknown[0])}: not one of GTSRB's classes 00000 to {known[-1]}")
    if missing := sorted(set(known) - folders):
        raise FaultsimError(
            f"{tree.where(missing[0])}: no images of this class; {len(known)} classes expected"
        )
    for label, folder in enumerate(known):
        table = f"{folder}/GT-{folder}.csv"
        content = tree.read(table, LARGEST_TEXT)
        for name, listed in _rows(content, tree.where(table), tree, folder + "/", r"\d{5}_\d{5}\.ppm"):
            if listed != label:
                raise FaultsimError(f"{tree.where(table)} gives {name} the class {listed}, {label} expected")
            yield name, label


def _rows(
    content: bytes, where: str, tree: FolderTree | ZipTree, prefix: str, pattern: str
) -> Iterator[tuple[str, int]]:
    """(name in the tree, class) of every image of a table, by name; table and folder must agree."""
    try:
        table = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig")), delimiter=";"))
    except (UnicodeDecodeError, csv.Error):
        raise FaultsimError(f"{where} is not a table with ';' between its columns") from None
    labels: dict[str, int] = {}
    for number, row in enumerate(table, start=2):
        name, label = row.get("Filename") or "", row.get("ClassId") or ""
        if not re.fullmatch(pattern, name, re.ASCII) or not re.fullmatch(r"\d{1,5}", label, re.ASCII):
            raise FaultsimError(
                f"{where}, line {number}: expected Filename;...;ClassId with an image and a class, "
                f"found {name!r} and {label!r}"
            )
        if int(label) >= len(CLASS_NAMES):
            raise FaultsimError(
                f"{where}, line {number}: class {label}, 0 to {len(CLASS_NAMES) - 1} expected for gtsrb"
            )
        labels[prefix + name] = int(label)
    there = {name for name in tree.names if name.startswith(prefix) and name.endswith(".ppm")}
    if unlisted := sorted(there.difference(labels)):
        raise FaultsimError(f"{where} does not list {tree.where(unlisted[0])}, which is there")
    if absent := sorted(set(labels) - there):
        raise FaultsimError(f"missing file: {tree.where(absent[0])}, listed in {where}")
    if not labels:
        raise FaultsimError(f"{where} lists no images")
    yield from sorted(labels.items())


def _decoded(tree: FolderTree | ZipTree, name: str) -> np.ndarray:
    """Decode a PPM picture of any size as uint8 [32, 32, 3]."""
    content = tree.read(name, LARGEST_IMAGE)
    try:
        with Image.open(io.BytesIO(content), formats=("PPM",)) as image:
            if image.mode != "RGB" or max(image.size) > LARGEST_SIDE:
                raise FaultsimError(
                    f"{tree.where(name)} is not a color picture of at most {LARGEST_SIDE} x {LARGEST_SIDE}"
                )
            return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    except FaultsimError:
        raise
    except Exception:  # Pillow may fail in many ways on foreign bytes
        raise FaultsimError(f"{tree.where(name)} is not a whole PPM picture") from None
