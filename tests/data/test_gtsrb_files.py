"""Does the GTSRB reader take every official layout, keep tracks, and name what is wrong with a folder?"""

import shutil
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from faultsim.data import load
from faultsim.data.gtsrb import CLASS_NAMES
from faultsim.errors import FaultsimError


def refused(match, split, place):
    with pytest.raises(FaultsimError, match=match) as caught:
        load("gtsrb", split, place)
    assert "\n" not in str(caught.value)


def check_training_set(dataset, gtsrb):
    names = sorted(gtsrb.train)
    assert dataset.labels.tolist() == [int(name[:5]) for name in names]
    for image, name in zip(dataset.images, names, strict=True):
        if gtsrb.train[name].shape == (32, 32, 3):
            assert np.array_equal(image.permute(1, 2, 0), gtsrb.train[name]), name
    tracks = [name[:11] for name in names]
    same_track = torch.tensor([[a == b for b in tracks] for a in tracks])
    assert torch.equal(dataset.groups[:, None] == dataset.groups[None, :], same_track)


def check_test_set(dataset, gtsrb):
    assert dataset.labels.tolist() == gtsrb.test_labels
    assert dataset.groups is None
    for image, name in zip(dataset.images, sorted(gtsrb.test), strict=True):
        if gtsrb.test[name].shape == (32, 32, 3):
            assert np.array_equal(image.permute(1, 2, 0), gtsrb.test[name]), name


def test_final_layout_from_the_folder_and_from_its_parents(gtsrb):
    for place in (gtsrb.root / "GTSRB", gtsrb.root, gtsrb.root.parent):
        check_training_set(load("gtsrb", "train", place), gtsrb)
        check_test_set(load("gtsrb", "test", place), gtsrb)


def test_layout_of_the_first_round(gtsrb):
    shutil.move(gtsrb.training, gtsrb.root / "GTSRB" / "Training")
    check_training_set(load("gtsrb", "train", gtsrb.root), gtsrb)


@pytest.mark.parametrize("place", ["GTSRB", "GTSRB/Final_Test/Images"])
def test_table_of_test_labels_in_other_places(gtsrb, place):
    shutil.move(gtsrb.root / "GT-final_test.csv", gtsrb.root / place)
    check_test_set(load("gtsrb", "test", gtsrb.root), gtsrb)


def zipped(gtsrb, folder):
    """The three official archives of a made GTSRB."""
    folder.mkdir(exist_ok=True)
    for file, root in (
        ("GTSRB_Final_Training_Images.zip", gtsrb.training),
        ("GTSRB_Final_Test_Images.zip", gtsrb.testing),
    ):
        with zipfile.ZipFile(folder / file, "w") as archive:
            for path in sorted(root.rglob("*")):
                archive.write(path, path.relative_to(gtsrb.root))
    with zipfile.ZipFile(folder / "GTSRB_Final_Test_GT.zip", "w") as archive:
        archive.write(gtsrb.root / "GT-final_test.csv", "GT-final_test.csv")
    return folder


def test_official_archives(gtsrb, tmp_path):
    folder = zipped(gtsrb, tmp_path / "archives")
    check_training_set(load("gtsrb", "train", folder), gtsrb)
    check_test_set(load("gtsrb", "test", folder), gtsrb)


def test_hidden_companion_files_are_no_images(gtsrb, tmp_path):
    """What a Mac and file managers leave beside pictures, in folders and in archives."""
    for root, name in ((gtsrb.training / "00007", "00001_00000.ppm"), (gtsrb.testing, "00003.ppm")):
        for hidden in (f"._{name}", ".DS_Store", f".{name}"):
            (root / hidden).write_bytes(b"\x00\x05\x16\x07")
        (root / ".thumbnails").mkdir()
        shutil.copy(root / name, root / ".thumbnails" / name)
    folder = zipped(gtsrb, tmp_path / "archives")
    for place in (gtsrb.root, folder):
        check_training_set(load("gtsrb", "train", place), gtsrb)
        check_test_set(load("gtsrb", "test", place), gtsrb)
    (gtsrb.training / "00007" / "_00001_00000.ppm").write_bytes(b"P6")  # not hidden
    refused("does not list .*_00001_00000.ppm, which is there", "train", gtsrb.root)


def test_archives_in_another_compression(gtsrb, tmp_path):
    folder = zipped(gtsrb, tmp_path / "archives")
    path = folder / "GTSRB_Final_Test_Images.zip"
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    refused("compressed in another way than the official archive", "test", folder)


def test_archives_cut_short_or_damaged(gtsrb, tmp_path):
    folder = zipped(gtsrb, tmp_path / "archives")
    archive = folder / "GTSRB_Final_Test_Images.zip"
    whole = archive.read_bytes()
    for kept in (0, 100, len(whole) // 2, len(whole) - 30):
        archive.write_bytes(whole[:kept])
        refused("GTSRB_Final_Test_Images.zip is cut short", "test", folder)
    damaged = bytearray(whole)
    damaged[whole.index(b"P6") + 100] ^= 1
    archive.write_bytes(damaged)
    refused("00000.ppm cannot be read: Bad CRC", "test", folder)
    (folder / "GTSRB_Final_Test_GT.zip").unlink()
    archive.write_bytes(whole)
    refused("missing file: .*GT-final_test.csv .*GTSRB_Final_Test_GT.zip", "test", folder)


def test_resize_is_pillows_bilinear_filter_over_the_whole_frame(gtsrb):
    dataset = load("gtsrb", "test", gtsrb.root)
    half = np.kron(np.array([[0, 80], [160, 240]], np.uint8), np.ones((30, 20), np.uint8))
    Image.fromarray(np.stack([half] * 3, 2)).save(gtsrb.testing / "00003.ppm")
    image = load("gtsrb", "test", gtsrb.root).images[3]
    assert image[:, [0, 0, 31, 31], [0, 31, 0, 31]].tolist() == [[0, 80, 160, 240]] * 3
    name = "00001.ppm"
    assert gtsrb.test[name].shape != (32, 32, 3)
    by_pillow = Image.fromarray(gtsrb.test[name]).resize((32, 32), Image.Resampling.BILINEAR)
    assert np.array_equal(dataset.images[1].permute(1, 2, 0), np.asarray(by_pillow))


def test_class_names():
    assert len(CLASS_NAMES) == len(set(CLASS_NAMES)) == 43
    assert (CLASS_NAMES[1], CLASS_NAMES[14], CLASS_NAMES[40]) == ("speed limit 30", "stop", "roundabout")


def test_broken_pictures_are_named(gtsrb):
    victim = gtsrb.testing / "00004.ppm"
    whole = victim.read_bytes()
    for content in (b"", b"P6\n", whole[:-1], whole[:40], b"GIF89a" + whole, b"P6\n32 x\n255\n"):
        victim.write_bytes(content)
        refused("00004.ppm is not a whole PPM picture", "test", gtsrb.root)
    for content in (b"P5\n32 32\n255\n" + bytes(1024), b"P6\n2000 32\n255\n" + bytes(2000 * 32 * 3)):
        victim.write_bytes(content)
        refused("00004.ppm is not a color picture of at most", "test", gtsrb.root)
    victim.write_bytes(b"P6\n99999999 99999999\n255\n")
    refused("00004.ppm is not a", "test", gtsrb.root)


def test_missing_and_unlisted_pictures_are_named(gtsrb):
    (gtsrb.training / "00007" / "00001_00000.ppm").rename(gtsrb.root / "kept.ppm")
    refused("missing file: .*00007/00001_00000.ppm, listed in", "train", gtsrb.root)
    (gtsrb.root / "kept.ppm").rename(gtsrb.training / "00007" / "00001_00000.ppm")
    table = gtsrb.training / "00007" / "GT-00007.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))
    refused("GT-00007.csv does not list .*00001_00001.ppm, which is there", "train", gtsrb.root)
    table.unlink()
    refused("missing file: .*GT-00007.csv", "train", gtsrb.root)


def test_missing_and_foreign_classes_are_named(gtsrb):
    extra = gtsrb.training / "00043"
    shutil.copytree(gtsrb.training / "00001", extra)
    refused("00043: not one of GTSRB's classes 00000 to 00042", "train", gtsrb.root)
    shutil.rmtree(extra)
    shutil.rmtree(gtsrb.training / "00011")
    refused("00011: no images of this class; 43 classes expected", "train", gtsrb.root)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("00000.ppm;0;0;0;0;0;0;43", "line 2: class 43, 0 to 42 expected"),
        ("00000.ppm;0;0;0;0;0;0;-1", "line 2: expected Filename"),
        ("00000.ppm;0;0;0", "line 2: expected Filename"),
        ("../../secret.ppm;0;0;0;0;0;0;1", "line 2: expected Filename"),
        ("/etc/passwd;0;0;0;0;0;0;1", "line 2: expected Filename"),
        ("00000.ppm,0,0,0,0,0,0,1", "line 2: expected Filename"),
    ],
)
def test_bad_rows_of_the_table_are_named(gtsrb, row, reason):
    (gtsrb.root / "GT-final_test.csv").write_text(f"Filename;Width;Height;a;b;c;d;ClassId\n{row}\n")
    refused(f"GT-final_test.csv, {reason}", "test", gtsrb.root)


def test_a_table_that_is_none(gtsrb):
    table = gtsrb.root / "GT-final_test.csv"
    table.write_bytes(b"\xff\xfe\x00")
    refused("GT-final_test.csv is not a table", "test", gtsrb.root)
    table.write_bytes(b"")
    refused("GT-final_test.csv does not list .*00000.ppm", "test", gtsrb.root)
    table.unlink()
    refused("missing file: .*GT-final_test.csv", "test", gtsrb.root)


def test_a_class_table_with_the_rows_of_another_class(gtsrb):
    source, target = (gtsrb.training / f"0000{n}" / f"GT-0000{n}.csv" for n in (3, 4))
    target.write_text(source.read_text())
    refused("GT-00004.csv gives .* the class 3, 4 expected", "train", gtsrb.root)


def test_empty_folders(tmp_path):
    refused("does not hold gtsrb; expected in it: GTSRB/Final_Training/Images", "train", tmp_path)
    refused("does not hold gtsrb; expected in it: GTSRB/Final_Test/Images", "test", tmp_path)
    (tmp_path / "GTSRB" / "Final_Test" / "Images").mkdir(parents=True)
    (tmp_path / "GT-final_test.csv").write_text("Filename;ClassId\n")
    refused("GT-final_test.csv lists no images", "test", tmp_path)
