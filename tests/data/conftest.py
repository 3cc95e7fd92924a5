"""Small data sets in the official layouts, made here: the same files, fewer images."""

import struct
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CIFAR10_NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
CIFAR100_NAMES = [f"fine_{number:02d}" for number in range(100)]
PER_BATCH = 20


def python2_pickle(value) -> bytes:
    """`value` (dict, list, bytes, int, uint8 array) in the opcodes of the official Python 2 pickles."""
    memo = 0

    def remembered() -> bytes:
        nonlocal memo
        memo += 1
        return b"q" + bytes([memo]) if memo < 256 else b"r" + struct.pack("<I", memo)

    def saved(item) -> bytes:
        if isinstance(item, bytes):
            short = len(item) < 256
            head = b"U" + bytes([len(item)]) if short else b"T" + struct.pack("<i", len(item))
            return head + item + remembered()
        if isinstance(item, int):
            if 0 <= item < 256:
                return b"K" + bytes([item])
            return b"M" + struct.pack("<H", item) if 0 <= item < 65536 else b"J" + struct.pack("<i", item)
        if isinstance(item, list):
            return b"]" + remembered() + b"(" + b"".join(map(saved, item)) + b"e"
        if isinstance(item, dict):
            return b"}" + remembered() + b"(" + b"".join(saved(k) + saved(v) for k, v in item.items()) + b"u"
        assert item.dtype == np.uint8
        parts = [b"cnumpy.core.multiarray\n_reconstruct\n", remembered(), b"cnumpy\nndarray\n", remembered()]
        parts += [b"K\x00\x85", remembered(), saved(b"b"), b"\x87", remembered(), b"R", remembered()]
        parts += [b"(K\x01", saved(item.shape[0]), saved(item.shape[1]), b"\x86", remembered()]
        parts += [b"cnumpy\ndtype\n", remembered(), saved(b"u1"), b"K\x00K\x01\x87", remembered()]
        parts += [b"R", remembered(), b"(K\x03", saved(b"|"), b"NNN", saved(-1), saved(-1), b"K\x00t"]
        parts += [remembered(), b"b", b"\x89", saved(item.tobytes()), b"t", remembered(), b"b"]
        return b"".join(parts)

    return b"\x80\x02" + saved(value) + b"."


@dataclass(frozen=True)
class Cifar:
    """Random CIFAR images and the files that hold them in one of the four official forms."""

    name: str
    pickled: bool
    pixels: dict[str, np.ndarray]  # split -> uint8 [n, 3072]
    labels: dict[str, np.ndarray]

    @property
    def folder(self) -> str:
        if self.name == "cifar10":
            return "cifar-10-batches-py" if self.pickled else "cifar-10-batches-bin"
        return "cifar-100-python" if self.pickled else "cifar-100-binary"

    @property
    def archive(self) -> str:
        return f"{self.name[:5]}-{self.name[5:]}-{'python' if self.pickled else 'binary'}.tar.gz"

    def files(self) -> dict[str, bytes]:
        ten = self.name == "cifar10"
        names = [name.encode() for name in (CIFAR10_NAMES if ten else CIFAR100_NAMES)]
        suffix = "" if self.pickled else ".bin"
        out = {}
        for split, pixels in self.pixels.items():
            labels = self.labels[split]
            if ten and split == "train":
                stems = [f"data_batch_{number}" for number in range(1, 6)]
            else:
                stems = ["test_batch" if ten else split]
            for stem, part, these in zip(
                stems, np.split(pixels, len(stems)), np.split(labels, len(stems)), strict=True
            ):
                out[stem + suffix] = self._batch(part, these)
        if self.pickled:
            meta = {b"label_names" if ten else b"fine_label_names": names}
            if ten:
                meta |= {b"num_cases_per_batch": PER_BATCH, b"num_vis": 3072}
            out["batches.meta" if ten else "meta"] = python2_pickle(meta)
        else:
            out["batches.meta.txt" if ten else "fine_label_names.txt"] = b"\n".join(names) + b"\n\n"
        return out

    def _batch(self, pixels: np.ndarray, labels: np.ndarray) -> bytes:
        ten = self.name == "cifar10"
        if self.pickled:
            batch = {b"labels" if ten else b"fine_labels": labels.tolist(), b"data": pixels}
            if not ten:
                batch[b"coarse_labels"] = (labels // 5).tolist()
            batch[b"filenames"] = [b"%06d.png" % number for number in range(len(labels))]
            batch[b"batch_label"] = b"batch 1 of 1"
            return python2_pickle(batch)
        heads = labels[:, None] if ten else np.stack([labels // 5, labels], 1)
        return np.concatenate([heads.astype(np.uint8), pixels], 1).tobytes()

    def write_folder(self, parent: Path) -> Path:
        folder = parent / self.folder
        folder.mkdir(parents=True, exist_ok=True)
        for file, content in self.files().items():
            (folder / file).write_bytes(content)
        return folder

    def write_archive(self, parent: Path) -> Path:
        folder = self.write_folder(parent / "unpacked")
        with tarfile.open(parent / self.archive, "w:gz", compresslevel=1) as tar:
            tar.add(folder, self.folder)
        return parent / self.archive


@pytest.fixture
def make_cifar():
    """make_cifar(name, pickled) -> Cifar with 100 training and 20 test images of random pixels."""

    def make(name: str, pickled: bool) -> Cifar:
        random = np.random.default_rng(7)
        counts = {"train": 5 * PER_BATCH, "test": PER_BATCH}
        classes = 10 if name == "cifar10" else 100
        return Cifar(
            name,
            pickled,
            {split: random.integers(0, 256, (count, 3072), np.uint8) for split, count in counts.items()},
            {split: random.integers(0, classes, count) for split, count in counts.items()},
        )

    return make


@dataclass(frozen=True)
class Gtsrb:
    """Where a made GTSRB lies, and its pictures: file name below the folder -> pixels uint8 [h, w, 3]."""

    root: Path
    train: dict[str, np.ndarray]
    test: dict[str, np.ndarray]
    test_labels: list[int]

    @property
    def training(self) -> Path:
        return self.root / "GTSRB" / "Final_Training" / "Images"

    @property
    def testing(self) -> Path:
        return self.root / "GTSRB" / "Final_Test" / "Images"


HEADER = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\n"


@pytest.fixture
def gtsrb(tmp_path) -> Gtsrb:
    """43 classes of 2 tracks with 2 frames each; 12 test images. Every second picture is 32x32."""
    random = np.random.default_rng(3)

    def picture(number: int) -> np.ndarray:
        height, width = (32, 32) if number % 2 == 0 else random.integers(15, 60, 2)
        return random.integers(0, 256, (height, width, 3), np.uint8)

    made = Gtsrb(tmp_path / "gtsrb", {}, {}, [int(label) for label in random.integers(0, 43, 12)])
    for label in range(43):
        rows = []
        for track in range(2):
            for frame in range(2):
                name = f"{track:05d}_{frame:05d}.ppm"
                made.train[f"{label:05d}/{name}"] = picture(frame)
                rows.append(f"{name};0;0;0;0;0;0;{label}\n")
        (made.training / f"{label:05d}").mkdir(parents=True)
        (made.training / f"{label:05d}" / f"GT-{label:05d}.csv").write_text(HEADER + "".join(rows))
    made.test.update({f"{number:05d}.ppm": picture(number) for number in range(12)})
    made.testing.mkdir(parents=True)
    (made.root / "GT-final_test.csv").write_text(
        HEADER
        + "".join(f"{n};0;0;0;0;0;0;{label}\n" for n, label in zip(made.test, made.test_labels, strict=True))
    )
    for folder, pictures in ((made.training, made.train), (made.testing, made.test)):
        for name, pixels in pictures.items():
            Image.fromarray(pixels).save(folder / name)
    return made
