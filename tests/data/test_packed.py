"""Do containers become data sets that faultsim reads, pixel by pixel, and are hostile ones refused in one line?"""

import importlib.util
import io
import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from faultsim import FaultsimError
from faultsim.data import load

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "packed.py"
spec = importlib.util.spec_from_file_location("packed", SCRIPT)
packed = importlib.util.module_from_spec(spec)
sys.modules["packed"] = packed
spec.loader.exec_module(packed)

Arrays = dict[str, np.ndarray]


def encoded(pixels: np.ndarray, codec: str = "PNG", **how) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, codec, **how)
    return stream.getvalue()


def container(dataset: str, split: str, pixels, labels, names, class_names, codec="PNG", **more) -> Arrays:
    """The arrays of a container; `pixels` uint8 [n, 32, 32, 3], encoded without loss."""
    images = [
        encoded(image, codec, **({"lossless": True, "method": 0} if codec == "WEBP" else {}))
        for image in pixels
    ]
    meta = {"format": "image-pack", "version": 1, "dataset": dataset, "split": split, "codec": codec.lower()}
    return {
        "meta": np.array(json.dumps(meta)),
        "data": np.frombuffer(b"".join(images), np.uint8),
        "offsets": np.cumsum([0, *map(len, images)]),
        "labels": np.asarray(labels, np.uint8),
        "names": np.array(names, "S"),
        "class_names": np.array(class_names),
        **more,
    }


def saved(arrays: Arrays, path: Path) -> Path:
    np.savez_compressed(path, **arrays)
    return path


def of_cifar(made, split: str, codec: str = "PNG") -> Arrays:
    """What the fixture made, as a container."""
    labels = made.labels[split]
    classes = 10 if made.name == "cifar10" else 100
    more = {}
    if classes == 100:
        more = {
            "coarse_labels": (labels // 5).astype(np.uint8),
            "coarse_names": np.array([f"coarse_{number:02d}" for number in range(20)]),
        }
    return container(
        made.name,
        split,
        made.pixels[split].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1),
        labels,
        [f"{number:06d}.png" for number in range(len(labels))],
        [f"class_{number:02d}" for number in range(classes)],
        codec,
        **more,
    )


@pytest.mark.parametrize("codec", ["PNG", "WEBP"])
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_is_the_binary_layout_byte_for_byte(make_cifar, tmp_path, name, codec, capsys):
    made, out = make_cifar(name, pickled=False), tmp_path / "out"
    paths = [saved(of_cifar(made, split, codec), tmp_path / f"{split}.npz") for split in ("train", "test")]
    assert packed.main([*map(str, paths), "--out", str(out)]) == 0
    says = [f"{name} train: 100 images, encoded as '{codec.lower()}'"]
    says += [f"{name} test: 20 images, encoded as '{codec.lower()}'"]
    assert capsys.readouterr() == ("\n".join([*says, ""]), "")
    official = made.write_folder(tmp_path / "official")
    for path in official.glob("*.bin"):
        assert (out / official.name / path.name).read_bytes() == path.read_bytes()
    for split in ("train", "test"):
        found, wanted = load(name, split, out), load(name, split, official)
        assert found.fingerprint == wanted.fingerprint
        assert found.class_names == tuple(f"class_{n:02d}" for n in range(wanted.num_classes))


def test_splits_can_come_one_after_the_other(make_cifar, tmp_path):
    made, out = make_cifar("cifar10", pickled=False), tmp_path / "out"
    for split in ("test", "train"):
        path = saved(of_cifar(made, split), tmp_path / f"{split}.npz")
        assert packed.main([str(path), "--out", str(out)]) == 0
        assert torch.equal(load("cifar10", split, out).labels, torch.from_numpy(made.labels[split]))


def of_gtsrb(gtsrb, split: str) -> Arrays:
    """The fixture's pictures as the loader makes them 32x32."""
    found = load("gtsrb", split, gtsrb.root)
    names = sorted(gtsrb.train if split == "train" else gtsrb.test)
    pixels = found.images.permute(0, 2, 3, 1).numpy()
    return container("gtsrb", split, pixels, found.labels, names, [f"sign_{n}" for n in range(43)])


def test_gtsrb_has_its_pictures_classes_and_tracks(gtsrb, tmp_path):
    out = tmp_path / "out"
    paths = [str(saved(of_gtsrb(gtsrb, split), tmp_path / f"{split}.npz")) for split in ("train", "test")]
    assert packed.main([*paths, "--out", str(out)]) == 0
    for split in ("train", "test"):
        found, wanted = load("gtsrb", split, out), load("gtsrb", split, gtsrb.root)
        assert found.fingerprint == wanted.fingerprint
        assert found.groups is None if split == "test" else torch.equal(found.groups, wanted.groups)


# -- what is refused --------------------------------------------------------------------------------------------


def refused(arguments: list[Path | str], capsys) -> str:
    """The one line on stderr."""
    assert packed.main([str(word) for word in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("packed.py: error: ")
    assert err.count("\n") == 1
    return err


def put(name: str, value) -> Callable[[Arrays], None]:
    return lambda arrays: arrays.update({name: np.asarray(value)})


def without(name: str) -> Callable[[Arrays], None]:
    return lambda arrays: arrays.pop(name)


def meta(**changes) -> Callable[[Arrays], None]:
    return lambda arrays: arrays.update(meta=np.array(json.dumps(json.loads(str(arrays["meta"])) | changes)))


def first_image(content: bytes) -> Callable[[Arrays], None]:
    def change(arrays: Arrays) -> None:
        old = int(arrays["offsets"][1])
        arrays["data"] = np.concatenate([np.frombuffer(content, np.uint8), arrays["data"][old:]])
        arrays["offsets"] = np.concatenate([[0], arrays["offsets"][1:] + len(content) - old])

    return change


def last_offset(change: int) -> Callable[[Arrays], None]:
    return lambda arrays: arrays["offsets"].__setitem__(-1, arrays["offsets"][-1] + change)


GREY = np.zeros((32, 32), np.uint8)
LARGE = np.zeros((64, 32, 3), np.uint8)
WRONG = {
    "no labels": (without("labels"), "'labels' is missing"),
    "no offsets": (without("offsets"), "'offsets' is missing"),
    "no coarse labels": (without("coarse_labels"), "'coarse_labels' is missing"),
    "meta is no JSON": (put("meta", "{"), "'meta' does not say"),
    "meta is a list": (put("meta", "[]"), "'meta' does not say"),
    "meta is a number": (put("meta", 7), "'meta' is int64"),
    "another version": (meta(version=2), r"\('image-pack', 2\)"),
    "another data set": (meta(dataset="imagenet"), "holds 'imagenet', 'test'"),
    "a list for a data set": (meta(dataset=["cifar100"]), "no split of cifar10"),
    "another split": (meta(split="../x"), "no split of"),
    "no images": (put("labels", np.zeros(0, np.uint8)), "holds 0 images"),
    "too many labels": (put("labels", np.zeros(21, np.uint8)), r"'offsets' has the shape \[21\], \[22\]"),
    "labels in two dimensions": (put("labels", np.zeros((20, 1), np.uint8)), "with 2 dimensions"),
    "float labels": (put("labels", np.zeros(20)), "'labels' is float64"),
    "label too large": (put("labels", np.full(20, 100)), "goes from 100 to 100, 0 to 99 expected"),
    "label below 0": (put("labels", np.full(20, -1)), "goes from -1 to -1"),
    "coarse label too large": (put("coarse_labels", np.full(20, 20)), "'coarse_labels' goes from 20"),
    "too few classes": (put("class_names", ["a"] * 99), r"'class_names' has the shape \[99\]"),
    "class in two words": (put("class_names", ["a b"] * 100), "'class_names' holds 'a b'"),
    "offsets beyond the data": (last_offset(1), "'offsets' do not divide"),
    "offsets short of the data": (last_offset(-1), "'offsets' do not divide"),
    "offsets that go back": (put("offsets", [0, 200, 100, *range(300, 2100, 100)]), "'offsets' do not"),
    "offsets that wrap": (put("offsets", np.full(21, 2**64 - 1, np.uint64)), "'offsets' do not divide"),
    "wide data": (lambda a: a.update(data=a["data"].astype(np.uint16)), "'data' is uint16"),
    "no picture": (first_image(b"no picture"), "image 0 cannot be decoded"),
    "half a picture": (first_image(encoded(LARGE[:32] + 1)[:60]), "image 0 cannot be decoded"),
    "a large picture": (first_image(encoded(LARGE)), r"image 0 is \(32, 64\) RGB"),
    "a grey picture": (first_image(encoded(GREY)), r"image 0 is \(32, 32\) L"),
    "another format": (first_image(encoded(LARGE[:32], "BMP")), "image 0 cannot be decoded"),
    "a huge picture": (first_image(bytes(1 << 17)), "at most 64 KiB"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_containers_are_refused_in_one_line(make_cifar, tmp_path, capsys, case):
    change, complaint = WRONG[case]
    arrays = of_cifar(make_cifar("cifar100", pickled=False), "test")
    packed.read(saved(arrays, tmp_path / "right.npz"))
    change(arrays)
    path = saved(arrays, tmp_path / "wrong.npz")
    with pytest.raises(FaultsimError, match=complaint) as found:
        packed.read(path)
    assert str(path) in str(found.value)
    assert str(path) in refused([path, "--out", tmp_path / "out"], capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("split", "names", "complaint"),
    [
        ("test", ["../../etc/00000.ppm"], "'names' holds '../../etc/00000.ppm'"),
        ("test", ["00000.ppm/../x"], "'names' holds"),
        ("test", ["/00000.ppm"], "'names' holds"),
        ("test", ["00001.ppm", "00001.ppm"], "a name twice"),
        ("train", ["00001/00000_00000.ppm"], "outside the folder of its class 0"),
        ("train", ["00000_00000.ppm"], "'names' holds"),
    ],
)
def test_names_of_files_are_only_official_ones(tmp_path, capsys, split, names, complaint):
    count = len(names)
    pixels = np.zeros((count, 32, 32, 3), np.uint8)
    classes = [f"sign_{number}" for number in range(43)]
    path = saved(container("gtsrb", split, pixels, [0] * count, names, classes), tmp_path / "x.npz")
    assert complaint in refused([path, "--out", tmp_path / "out"], capsys)
    assert not (tmp_path / "out").exists()


def test_five_files_share_the_training_images_equally(make_cifar, tmp_path, capsys):
    made = make_cifar("cifar10", pickled=False)
    for values in (made.pixels, made.labels):
        values["train"] = values["train"][:99]
    path = saved(of_cifar(made, "train"), tmp_path / "train.npz")
    assert "99 images, which CIFAR-10's five training files" in refused([path, "--out", tmp_path], capsys)


class Planted:
    """Leaves a trace where it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_nothing_is_unpickled(make_cifar, tmp_path):
    arrays = of_cifar(make_cifar("cifar10", pickled=False), "test")
    for name in arrays:
        trace = np.array([Planted(tmp_path / "trace")] * 20)
        with pytest.raises(FaultsimError, match=f"'{name}' is object"):
            packed.read(saved({**arrays, name: trace}, tmp_path / "x.npz"))
    assert not (tmp_path / "trace").exists()


def header(shape: str, kind: str = "|u1") -> bytes:
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (header(f"({1 << 50},)"), "not as long as its header says"),
        (header("(-1,)"), "not as long as its header says"),
        (header("(9,)") + bytes(8), "not as long as its header says"),
        (header("(9,)") + bytes(10), "not as long as its header says"),
        (header("(9,)", "|V1") + bytes(9), "'labels' is"),
        (header("no shape"), "cut short or no container"),
        (b"\x93NUMPY\x07\x00" + bytes(64), "unknown version"),
        (b"labels", "cut short or no container"),
        (b"", "cut short or no container"),
    ],
)
def test_headers_that_lie(make_cifar, tmp_path, content, complaint):
    """Before room is made for what they promise."""
    arrays = of_cifar(make_cifar("cifar10", pickled=False), "test")
    del arrays["labels"]
    path = saved(arrays, tmp_path / "x.npz")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("labels.npy", content)
    with pytest.raises(FaultsimError, match=complaint):
        packed.read(path)


def test_arrays_that_unpack_to_more_than_any_data_set_are_refused(make_cifar, tmp_path, monkeypatch):
    path = saved(of_cifar(make_cifar("cifar10", pickled=False), "test"), tmp_path / "x.npz")
    with zipfile.ZipFile(path) as archive:
        size = archive.getinfo("data.npy").file_size
    monkeypatch.setattr(packed, "LARGEST_ARRAY", size - 1)
    with pytest.raises(FaultsimError, match=f"'data' takes {size:,} bytes, more than {size - 1:,}"):
        packed.read(path)


def test_files_that_are_cut_short_or_no_containers(make_cifar, tmp_path, capsys):
    path = saved(of_cifar(make_cifar("cifar10", pickled=False), "test"), tmp_path / "x.npz")
    whole = path.read_bytes()
    for length in [*range(0, len(whole), len(whole) // 40), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(FaultsimError, match="cut short or no container"):
            packed.read(path)
    assert "no such file" in refused([tmp_path / "none.npz", "--out", tmp_path], capsys)
    assert "Is a directory" in refused([tmp_path, "--out", tmp_path], capsys)


def test_a_damaged_byte_never_goes_through(make_cifar, tmp_path):
    """Zip's checksums see it; what they don't cover changes nothing."""
    path = saved(of_cifar(make_cifar("cifar10", pickled=False), "test"), tmp_path / "x.npz")
    whole, right = path.read_bytes(), packed.read(path)
    refusals = 0
    for at in range(0, len(whole), len(whole) // 200):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :])
        try:
            found = packed.read(path)
        except FaultsimError:
            refusals += 1
        else:
            assert np.array_equal(found.pixels, right.pixels)
            assert np.array_equal(found.labels, right.labels)
    assert refusals > 150


def test_no_file_is_written_over(make_cifar, tmp_path, capsys):
    path = saved(of_cifar(make_cifar("cifar10", pickled=False), "train"), tmp_path / "train.npz")
    there = tmp_path / "out/cifar-10-batches-bin/data_batch_5.bin"
    there.parent.mkdir(parents=True)
    there.write_text("mine")
    assert f"{there} is there already" in refused([path, "--out", tmp_path / "out"], capsys)
    assert [file.name for file in there.parent.iterdir()] == [there.name]
    assert there.read_text() == "mine"


def test_containers_that_disagree(make_cifar, tmp_path, capsys):
    made = make_cifar("cifar10", pickled=False)
    train, test = of_cifar(made, "train"), of_cifar(made, "test")
    test["class_names"] = test["class_names"][::-1]
    paths = [saved(train, tmp_path / "train.npz"), saved(test, tmp_path / "test.npz")]
    assert "disagree about cifar-10-batches-bin/batches" in refused(
        [*paths, "--out", tmp_path / "out"], capsys
    )
    assert not (tmp_path / "out").exists()
    assert packed.main([str(paths[0]), "--out", str(tmp_path / "out")]) == 0
    capsys.readouterr()
    assert "batches.meta.txt is there already" in refused([paths[1], "--out", tmp_path / "out"], capsys)
    assert not (tmp_path / "out/cifar-10-batches-bin/test_batch.bin").exists()
