"""Do the CIFAR readers return exactly the official files' images, and refuse everything else by name?"""

import io
import tarfile

import numpy as np
import pytest
import torch

from faultsim.data import load
from faultsim.errors import FaultsimError

FORMS = [("cifar10", True), ("cifar10", False), ("cifar100", True), ("cifar100", False)]


def same_images(dataset, cifar, split):
    assert torch.equal(dataset.images, torch.from_numpy(cifar.pixels[split]).reshape(-1, 3, 32, 32))
    assert dataset.labels.tolist() == cifar.labels[split].tolist()
    assert (dataset.name, dataset.split, dataset.groups) == (cifar.name, split, None)


def refused(match, *arguments):
    with pytest.raises(FaultsimError, match=match) as caught:
        load(*arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(("name", "pickled"), FORMS)
def test_every_official_form_gives_the_same_images(make_cifar, tmp_path, name, pickled, split):
    cifar = make_cifar(name, pickled)
    folder = cifar.write_folder(tmp_path / "folder")
    archive = cifar.write_archive(tmp_path)
    for place in (folder, folder.parent, archive, archive.parent):
        same_images(load(name, split, place), cifar, split)


def test_class_names_come_from_the_files(make_cifar, tmp_path):
    for name, pickled in FORMS:
        make_cifar(name, pickled).write_folder(tmp_path / f"{name}{pickled}")
        dataset = load(name, "test", tmp_path / f"{name}{pickled}")
        first, last = ("airplane", "truck") if name == "cifar10" else ("fine_00", "fine_99")
        assert (dataset.class_names[0], dataset.class_names[-1]) == (first, last)
        assert dataset.num_classes == len(dataset.class_names) == int(name[5:])


def test_pixels_are_red_green_blue_planes_row_by_row(make_cifar, tmp_path):
    cifar = make_cifar("cifar10", False)
    cifar.pixels["test"][0] = 0
    cifar.pixels["test"][0][1024 + 5 * 32 + 9] = 200  # green, row 5, column 9
    cifar.write_folder(tmp_path)
    image = load("cifar10", "test", tmp_path).images[0]
    assert image.nonzero().tolist() == [[1, 5, 9]]


@pytest.mark.parametrize(("name", "pickled"), FORMS)
@pytest.mark.parametrize("kept", [0, 1, 1000, 0.5, -1])
def test_a_batch_cut_short_is_named(make_cifar, tmp_path, name, pickled, kept):
    folder = make_cifar(name, pickled).write_folder(tmp_path)
    (victim,) = [path for path in folder.iterdir() if path.stem in ("test_batch", "test")]
    content = victim.read_bytes()
    victim.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    refused(victim.name, name, "test", tmp_path)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_a_binary_batch_cut_between_two_records_is_noticed(make_cifar, tmp_path, name):
    folder = make_cifar(name, False).write_folder(tmp_path)
    victim = folder / ("data_batch_3.bin" if name == "cifar10" else "train.bin")
    record = 3073 if name == "cifar10" else 3074
    victim.write_bytes(victim.read_bytes()[:-record])
    refused(f"{victim.name} has .* cut short", name, "train", tmp_path)


def test_a_pickled_batch_with_fewer_images_than_its_meta_file_says(make_cifar, tmp_path):
    cifar = make_cifar("cifar10", True)
    folder = cifar.write_folder(tmp_path)
    short = cifar._batch(cifar.pixels["test"][:7], cifar.labels["test"][:7])
    (folder / "test_batch").write_bytes(short)
    refused("test_batch holds 7 images, its meta file says 20", "cifar10", "test", tmp_path)


@pytest.mark.parametrize(("name", "pickled"), FORMS)
def test_missing_files_are_named(make_cifar, tmp_path, name, pickled):
    cifar = make_cifar(name, pickled)
    for victim in cifar.files():
        if victim.startswith("test"):
            continue
        folder = cifar.write_folder(tmp_path)
        (folder / victim).unlink()
        refused(f"missing file: .*{victim}", name, "train", tmp_path)


def test_a_missing_training_batch_does_not_hinder_the_test_set(make_cifar, tmp_path):
    cifar = make_cifar("cifar10", False)
    (cifar.write_folder(tmp_path) / "data_batch_2.bin").unlink()
    same_images(load("cifar10", "test", tmp_path), cifar, "test")


@pytest.mark.parametrize(("name", "pickled"), FORMS)
def test_labels_out_of_range(make_cifar, tmp_path, name, pickled):
    cifar = make_cifar(name, pickled)
    cifar.labels["test"][3] = cifar_classes = int(name[5:])
    cifar.write_folder(tmp_path)
    refused(f"to {cifar_classes}, 0 to {cifar_classes - 1} expected", name, "test", tmp_path)


def test_negative_labels(make_cifar, tmp_path):
    cifar = make_cifar("cifar10", True)
    cifar.labels["test"][0] = -1
    cifar.write_folder(tmp_path)
    refused("labels from -1 ", "cifar10", "test", tmp_path)


@pytest.mark.parametrize("pickled", [True, False])
def test_another_data_set_is_recognized(make_cifar, gtsrb, tmp_path, pickled):
    folder = make_cifar("cifar100", pickled).write_folder(tmp_path / "a")
    archive = make_cifar("cifar100", pickled).write_archive(tmp_path)
    for place in (folder, folder.parent, archive, tmp_path):
        refused("does not hold cifar10 .*looks like cifar100", "cifar10", "test", place)
    refused("does not hold cifar10 .*looks like gtsrb", "cifar10", "test", gtsrb.root)
    refused("does not hold gtsrb .*looks like cifar100", "gtsrb", "test", folder.parent)
    refused("does not hold gtsrb .*looks like cifar100", "gtsrb", "train", folder)


@pytest.mark.parametrize("pickled", [True, False])
def test_cifar100_batches_under_the_names_of_cifar10(make_cifar, tmp_path, pickled):
    folder = make_cifar("cifar10", pickled).write_folder(tmp_path)
    suffix = "" if pickled else ".bin"
    foreign = make_cifar("cifar100", pickled).files()[f"test{suffix}"]
    (folder / f"test_batch{suffix}").write_bytes(foreign)
    refused("test_batch.* (not the data set asked for|another data set)", "cifar10", "test", tmp_path)


def test_meta_file_of_the_other_data_set(make_cifar, tmp_path):
    folder = make_cifar("cifar10", True).write_folder(tmp_path)
    (folder / "batches.meta").write_bytes(make_cifar("cifar100", True).files()["meta"])
    refused("batches.meta lacks the list 'label_names'", "cifar10", "test", tmp_path)
    folder = make_cifar("cifar10", False).write_folder(tmp_path / "bin")
    (folder / "batches.meta.txt").write_bytes(make_cifar("cifar100", False).files()["fine_label_names.txt"])
    refused("names 100 classes, 10 expected", "cifar10", "test", folder)
    (folder / "batches.meta.txt").write_bytes(b"\xff\xfe")
    refused("batches.meta.txt is not a text file", "cifar10", "test", folder)


def test_empty_and_absent_folders(tmp_path):
    refused("does not hold cifar10; expected in it: cifar-10-batches-py", "cifar10", "train", tmp_path)
    (tmp_path / "cifar-10-batches-py").mkdir()
    refused("does not hold cifar10; expected in it: cifar-10-batches-py", "cifar10", "train", tmp_path)
    refused("no such folder", "cifar10", "train", tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("hello")
    refused("notes.txt does not hold cifar10", "cifar10", "train", tmp_path / "notes.txt")


def test_unknown_names(tmp_path):
    refused("unknown data set 'mnist'; known: digits, cifar10, cifar100, gtsrb", "mnist", "train")
    refused("unknown split 'val'; known: train, test", "digits", "val")
    refused("take no data folder", "digits", "test", tmp_path)


@pytest.mark.parametrize(("name", "pickled"), FORMS)
def test_archives_cut_short_damaged_or_foreign(make_cifar, tmp_path, name, pickled):
    archive = make_cifar(name, pickled).write_archive(tmp_path)
    whole = archive.read_bytes()
    for kept in (0, 10, len(whole) // 2, len(whole) - 4):
        archive.write_bytes(whole[:kept])
        refused(f"{archive.name} is cut short", name, "train", archive)
    for place in (len(whole) // 2, len(whole) - 6):  # a changed pixel; gzip's checksum over the whole
        damaged = bytearray(whole)
        damaged[place] ^= 1
        archive.write_bytes(damaged)
        refused(f"{archive.name} is cut short or not", name, "train", archive)
    archive.write_bytes(b"<html>not found</html>")
    refused(f"{archive.name} is cut short or not", name, "train", archive)
    with tarfile.open(archive, "w:gz") as tar:  # the right names, but not in the official folder
        for path in sorted((tmp_path / "unpacked").rglob("*")):
            if path.is_file():
                tar.add(path, path.name)
    refused(f"{archive.name}: missing member", name, "train", archive)


def test_archive_members_other_than_plain_files_are_refused(make_cifar, tmp_path):
    cifar = make_cifar("cifar10", False)
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(3073 * 20))
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
        with tarfile.open(tmp_path / cifar.archive, "w:gz") as tar:
            member = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
            member.type, member.linkname = kind, str(secret)
            tar.addfile(member)
        refused("double or not a plain file", "cifar10", "test", tmp_path)


def test_double_and_oversized_archive_members_are_refused(make_cifar, tmp_path):
    cifar = make_cifar("cifar10", False)
    name = "cifar-10-batches-bin/test_batch.bin"
    with tarfile.open(tmp_path / cifar.archive, "w:gz") as tar:
        for _ in range(2):
            member = tarfile.TarInfo(name)
            member.size = 3073
            tar.addfile(member, io.BytesIO(bytes(3073)))
    refused("double or not a plain file", "cifar10", "test", tmp_path)

    for other, size in ((name, 1 << 40), ("elsewhere", 1 << 40), ("../../etc/passwd", 0)):
        member = tarfile.TarInfo(other)
        member.size = size
        with tarfile.open(tmp_path / cifar.archive, "w:gz") as tar:
            tar.addfile(member)
        refused("unpacks to far more" if size else "missing member", "cifar10", "test", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [cifar.archive]  # nothing was unpacked


def test_a_file_larger_than_any_official_one_is_not_read(tmp_path, make_cifar):
    folder = make_cifar("cifar10", False).write_folder(tmp_path)
    with open(folder / "test_batch.bin", "wb") as file:
        file.truncate(1 << 40)  # a hole: takes no space on the disk
    refused("test_batch.bin is no official file: it is larger than", "cifar10", "test", tmp_path)


def test_a_folder_in_place_of_a_file(tmp_path, make_cifar):
    folder = make_cifar("cifar10", False).write_folder(tmp_path)
    (folder / "test_batch.bin").unlink()
    (folder / "test_batch.bin").mkdir()
    refused("cannot read .*test_batch.bin", "cifar10", "test", tmp_path)


def test_fingerprint_tells_every_pixel_and_label(make_cifar, tmp_path):
    cifar = make_cifar("cifar10", False)
    cifar.write_folder(tmp_path)
    dataset = load("cifar10", "test", tmp_path)
    seen = {dataset.fingerprint}
    cifar.pixels["test"][19, 3071] ^= 1
    cifar.write_folder(tmp_path)
    seen.add(load("cifar10", "test", tmp_path).fingerprint)
    cifar.labels["test"][19] = (cifar.labels["test"][19] + 1) % 10
    cifar.write_folder(tmp_path)
    seen.add(load("cifar10", "test", tmp_path).fingerprint)
    assert len(seen) == 3
    assert load("cifar10", "test", tmp_path).fingerprint in seen
    assert np.all([len(value) == 64 for value in seen])
