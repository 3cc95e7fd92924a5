"""Pictures in class folders, batches of the user's, and data sets of other sizes."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from faultsim import FaultsimError
from faultsim.data import Dataset, Normalization, OwnBatches, iterate_batches, load_folder, normalize


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """cat: 3 pictures of 4x6 (height x width) in one color each; dog: 1; and what is no picture."""
    for name, count in (("dog", 1), ("cat", 3)):
        (tmp_path / name).mkdir()
        for number in range(count):
            array = np.full((4, 6, 3), (10 * number, 100, 200), np.uint8)
            Image.fromarray(array).save(tmp_path / name / f"{number}.png")
    (tmp_path / "cat" / "._0.png").write_bytes(b"of a Mac")
    (tmp_path / "cat" / "Thumbs.db").write_bytes(b"of Windows")
    (tmp_path / ".git").mkdir()
    (tmp_path / "list.txt").write_text("beside the classes")
    return tmp_path


def test_classes_by_name_and_pictures_in_turn(folder):
    found = load_folder(folder, (3, 4, 6))
    assert found.class_names == ("cat", "dog")
    assert found.labels.tolist() == [0, 1, 0, 0]  # the first of each class, then the second ...
    assert found.images[:, :, 0, 0].tolist() == [[0, 100, 200], [0, 100, 200], [10, 100, 200], [20, 100, 200]]
    assert load_folder(folder, (3, 4, 6), images=2).labels.tolist() == [0, 1]
    assert found.input_shape == (3, 4, 6)


def test_grey_and_another_size(folder):
    found = load_folder(folder, (1, 28, 20))
    assert (found.images.shape, found.images.dtype) == ((4, 1, 28, 20), torch.uint8)
    luma = round((299 * 0 + 587 * 100 + 114 * 200) / 1000)  # ITU-R 601, as Pillow's
    assert set(found.images[0].flatten().tolist()) == {luma}


def test_normalization_is_torchvisions(folder):
    rule = Normalization((0.5, 0.25, 0.0), (0.5, 0.5, 2.0))
    images, _ = next(iterate_batches(load_folder(folder, (3, 4, 6), rule), 4))
    wanted = [(10 / 255 - 0.5) / 0.5, (100 / 255 - 0.25) / 0.5, 200 / 255 / 2]
    assert images[2, :, 0, 0].tolist() == pytest.approx(wanted, abs=1e-6)
    images, _ = next(iterate_batches(load_folder(folder, (3, 4, 6)), 4))
    assert images[2, :, 0, 0].tolist() == pytest.approx(
        [10 / 127.5 - 1, 100 / 127.5 - 1, 200 / 127.5 - 1], abs=1e-6
    )


def test_inputs_that_are_no_pixels_stay_as_they_are():
    tokens = torch.arange(12).reshape(4, 3)
    data = Dataset(tokens, torch.zeros(4, dtype=torch.int64), ("a",), "own", "test")
    images, _ = next(iterate_batches(data, 4))
    assert images is not None
    assert torch.equal(images, tokens)
    assert normalize(tokens) is tokens
    with pytest.raises(FaultsimError, match="don't fit"):
        Dataset(tokens, data.labels, ("a",), "own", "test", normalization=Normalization((0.0,), (1.0,)))


def test_fingerprints_tell_sizes_and_types_apart():
    labels = torch.zeros(2, dtype=torch.int64)
    prints = {
        Dataset(values, labels, ("a",), "own", "test").fingerprint
        for values in (
            torch.zeros(2, 3, 32, 32, dtype=torch.uint8),
            torch.zeros(2, 3, 16, 64, dtype=torch.uint8),
            torch.zeros(2, 1, 32, 96, dtype=torch.uint8),
            torch.zeros(2, 3, 32, 8),
            torch.zeros(2, 3, 32, 8, dtype=torch.int32),
        )
    }
    assert len(prints) == 5


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda folder: (folder / "empty").mkdir(), "empty holds no picture"),
        (lambda folder: (folder / "cat" / "1.png").write_bytes(b"\x89PNG"), "1.png is not a whole picture"),
        (
            lambda folder: (folder / "cat" / "x.jpg").write_bytes((folder / "cat/1.png").read_bytes()),
            "x.jpg is not",
        ),
    ],
)
def test_damaged_folders(folder, change, complaint):
    change(folder)
    with pytest.raises(FaultsimError, match=complaint):
        load_folder(folder)


def test_folders_that_are_none(tmp_path):
    with pytest.raises(FaultsimError, match="holds no folders: one for each class"):
        load_folder(tmp_path)
    with pytest.raises(FaultsimError, match=r"cannot read .*nowhere: No such file"):
        load_folder(tmp_path / "nowhere")


MODULE = """
import numpy as np, torch

def pairs():
    for start in (0, 4):
        yield np.arange(start, start + 4, dtype=np.float32).reshape(4, 1), torch.arange(4) % 2

def named():
    return [{"a": torch.ones(3, 2), "b": "text", "labels": torch.zeros(3)}]

def uneven():
    return [(torch.ones(3, 2), torch.zeros(3).long()), (torch.ones(3, 4), torch.zeros(3).long())]
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "own_batches_module.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "own_batches_module"
    sys.modules.pop("own_batches_module", None)


def test_the_first_samples_of_batches(module):
    whole = OwnBatches.load(f"{module}:pairs")
    part = OwnBatches.load(f"{module}:pairs", 6)
    assert (len(whole), len(part), whole.input_shape) == (8, 6, (1,))
    assert [inputs.flatten().tolist() for inputs, _ in part.batches] == [[0, 1, 2, 3], [4, 5]]
    assert [labels.tolist() for _, labels in part.batches] == [[0, 1, 0, 1], [0, 1]]
    assert len({whole.fingerprint, part.fingerprint, OwnBatches.load(f"{module}:named").fingerprint}) == 3
    assert whole.fingerprint == OwnBatches.load(f"{module}:pairs", 8).fingerprint
    with pytest.raises(FaultsimError, match=r"9 images: data .* has 8, choose 1 to 8"):
        OwnBatches.load(f"{module}:pairs", 9)


def test_an_example_and_a_data_set_for_training(module):
    named = OwnBatches.load(f"{module}:named")
    assert named.input_shape is None
    assert (named.example["a"].shape, named.example["b"]) == ((1, 2), "text")
    data = OwnBatches.load(f"{module}:pairs").as_dataset("train")
    assert (data.images.flatten().tolist(), data.class_names) == ([*range(8)], ("0", "1"))
    with pytest.raises(FaultsimError, match="training needs batches"):
        named.as_dataset("train")
    with pytest.raises(FaultsimError, match=r"one size and type, not float32 .3, 2. and float32 .3, 4."):
        OwnBatches.load(f"{module}:uneven").as_dataset("train")
