"""Readers of images: CIFAR and GTSRB files and archives, pickles, class folders."""

import importlib.util
import io
import shutil
import zipfile
from pathlib import Path

import numpy as np

from faultsim.data import Dataset
from faultsim.data.cifar import load_cifar
from faultsim.data.folder import load_folder
from faultsim.data.gtsrb import load_gtsrb
from faultsim.data.unpickle import unpickle
from tests.fuzz import mutations
from tests.fuzz.readers.reader import Reader, digest


def _made_cifar():
    spec = importlib.util.spec_from_file_location(
        "made_data", Path(__file__).parents[2] / "data" / "conftest.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    random = np.random.default_rng(7)
    sizes = {"train": 5 * module.PER_BATCH, "test": module.PER_BATCH}
    return module.Cifar(
        "cifar10",
        True,
        {split: random.integers(0, 256, (n, 3072), np.uint8) for split, n in sizes.items()},
        {split: random.integers(0, 10, n) for split, n in sizes.items()},
    )


def _images(data: Dataset) -> str:
    return digest(data.images, data.labels)


def make_pickles(folder: Path) -> list[Reader]:
    files = _made_cifar().files()

    def read(path: Path, work: Path) -> object:
        for name, content in files.items():
            (work / name).write_bytes(path.read_bytes() if name == path.name else content)
        return _images(load_cifar("cifar10", "test", work))

    def plain(path: Path, _: Path) -> object:
        return len(unpickle(path.read_bytes(), str(path)))

    return [
        Reader("CIFAR pickles", {name: files[name] for name in ("test_batch", "batches.meta")}, read),
        Reader("pickle", {"meta": files["batches.meta"]}, plain),
    ]


def make_archives(folder: Path) -> list[Reader]:
    made = _made_cifar()
    name = made.archive
    archive = made.write_archive(folder)

    def read(path: Path, _: Path) -> object:
        return _images(load_cifar("cifar10", "test", path))

    inside = (mutations.inside_tar,)
    return [Reader("CIFAR archive", {name: archive.read_bytes()}, read, summed=True, inside=inside)]


def make_traffic_signs(folder: Path) -> list[Reader]:
    random = np.random.default_rng(3)
    pictures = {f"{n:05d}.ppm": b"P6\n20 20\n255\n" + random.bytes(1200) for n in range(3)}
    labels = b"Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\n"
    labels += b"".join(b"%05d.ppm;20;20;1;1;9;9;%d\n" % (n, n) for n in range(3))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in pictures.items():
            archive.writestr(f"GTSRB/Final_Test/Images/{name}", content)
    files = {"GT-final_test.csv": labels, "GTSRB_Final_Test_Images.zip": packed.getvalue()}

    def read(path: Path, work: Path) -> object:
        for name, content in files.items():
            (work / name).write_bytes(path.read_bytes() if name == path.name else content)
        return _images(load_gtsrb("test", work))

    def picture(path: Path, work: Path) -> object:
        images = work / "GTSRB" / "Final_Test" / "Images"
        images.mkdir(parents=True)
        (work / "GT-final_test.csv").write_bytes(labels)
        for name, content in pictures.items():
            (images / name).write_bytes(path.read_bytes() if name == path.name else content)
        return _images(load_gtsrb("test", work))

    return [
        Reader("GTSRB table", {"GT-final_test.csv": labels}, read),
        Reader(
            "GTSRB archive", {"GTSRB_Final_Test_Images.zip": packed.getvalue()}, read, summed=True,
            inside=(mutations.inside_zip,),
        ),
        Reader("GTSRB picture", {"00000.ppm": pictures["00000.ppm"]}, picture),
    ]  # fmt: skip


def make_pictures(folder: Path) -> list[Reader]:
    from PIL import Image

    pixels = np.random.default_rng(5).integers(0, 256, (20, 24, 3), np.uint8)
    samples = {}
    for ending in ("png", "jpg", "bmp"):
        Image.fromarray(pixels).save(folder / f"picture.{ending}")
        samples[f"picture.{ending}"] = (folder / f"picture.{ending}").read_bytes()

    def read(path: Path, work: Path) -> object:
        (work / "class").mkdir()
        shutil.copy(path, work / "class")
        return _images(load_folder(work))

    return [Reader("class folder", samples, read)]
