"""Digits, the Dataset itself, splits, and the light import."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits as sklearn_digits

from faultsim.data import Dataset, load, normalize, split_validation
from faultsim.data.digits import enlarge_digits
from faultsim.data.splits import create_random
from faultsim.errors import FaultsimError


def made(labels, groups=None, classes=5) -> Dataset:
    """A data set whose image number i holds i in its first pixel bytes."""
    count = len(labels)
    images = torch.zeros(count, 3, 32, 32, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.arange(count) % 256
    images[:, 0, 0, 1] = torch.arange(count) // 256
    return Dataset(
        images=images,
        labels=torch.as_tensor(labels, dtype=torch.int64),
        class_names=tuple("abcdefghij"[:classes]),
        name="made",
        split="train",
        groups=None if groups is None else torch.as_tensor(groups, dtype=torch.int64),
    )


def numbers(dataset) -> list[int]:
    return (dataset.images[:, 0, 0, 0].long() + 256 * dataset.images[:, 0, 0, 1].long()).tolist()


def test_importing_the_package_loads_neither_torch_nor_numpy():
    code = "import sys, faultsim.data; print({'torch', 'numpy', 'pooch', 'PIL'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"


def test_unknown_attribute():
    with pytest.raises(ImportError):
        from faultsim.data import nothing_of_the_kind  # noqa: F401


def test_digits_are_divided_once_and_for_all():
    train, test = load("digits", "train"), load("digits", "test")
    assert (len(train), len(test), train.num_classes) == (1438, 359, 10)
    source = sklearn_digits()
    assert (torch.bincount(train.labels) + torch.bincount(test.labels)).tolist() == np.bincount(
        source.target
    ).tolist()
    shares = torch.bincount(test.labels) / torch.from_numpy(np.bincount(source.target))
    assert ((shares - 0.2).abs() < 0.01).all()
    # Integer arithmetic and a frozen random stream: the same bytes on every machine.
    assert train.fingerprint == "60a2632841f95e219a907cfb8f5b795271718f3a5e74a2ff77d661f347de9fbd"
    assert test.fingerprint == "973342ff56608180b787c53b8d0a1dc26925d83519ee4c507f7c99eeaaac1e7e"


@pytest.mark.parametrize("found", [None, "elsewhere"])
def test_digits_come_from_scikit_learns_own_reader_where_the_file_is_not_found(found, monkeypatch, tmp_path):
    spec = None if found is None else SimpleNamespace(submodule_search_locations=[str(tmp_path / found)])
    expected = [split.fingerprint for split in (load("digits", "train"), load("digits", "test"))]
    monkeypatch.setattr("faultsim.data.digits.find_spec", lambda name: spec)
    assert [split.fingerprint for split in (load("digits", "train"), load("digits", "test"))] == expected


def test_digits_enlarged_are_torchs_bilinear_interpolation():
    digits = np.random.default_rng(0).integers(0, 17, (50, 8, 8))
    by_torch = torch.nn.functional.interpolate(
        torch.from_numpy(digits / 16 * 255)[:, None], size=(32, 32), mode="bilinear", align_corners=False
    )[:, 0]
    assert (torch.from_numpy(enlarge_digits(digits)).double() - by_torch).abs().max() <= 0.5 + 1e-9


def test_digits_use_the_whole_range_in_three_equal_planes():
    images = load("digits", "test").images
    assert (int(images.min()), int(images.max())) == (0, 255)
    assert torch.equal(images[:, :1].expand_as(images), images)


def test_normalized_is_exact_at_the_ends_and_symmetric():
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    values = normalize(levels)
    assert values.dtype == torch.float32
    assert (float(values.min()), float(values.max())) == (-1.0, 1.0)
    torch.testing.assert_close(values, levels.double().div(127.5).sub(1).float(), rtol=0, atol=2**-23)
    torch.testing.assert_close(values.flip(2, 3), -values, rtol=0, atol=2**-22)
    assert levels.dtype == torch.uint8


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"images": torch.zeros(4)}, "uint8"),
        ({"images": torch.zeros(4, 3072, dtype=torch.uint8)}, "4, channels, height, width"),
        ({"images": torch.zeros(3, 3, 32, 32, dtype=torch.uint8)}, "4, channels, height, width"),
        ({"labels": torch.zeros(4, dtype=torch.int32)}, "labels .* int64"),
        ({"labels": torch.tensor([0, 1, 2, 5])}, "between 0 and 4, found 0 to 5"),
        ({"labels": torch.tensor([-1, 1, 2, 3])}, "between 0 and 4, found -1 to 3"),
        ({"groups": torch.zeros(3, dtype=torch.int64)}, "groups .* int64 .4."),
    ],
)
def test_a_data_set_of_another_kind_cannot_be_made(change, reason):
    fields = {
        "images": torch.zeros(4, 3, 32, 32, dtype=torch.uint8),
        "labels": torch.zeros(4, dtype=torch.int64),
    }
    with pytest.raises(FaultsimError, match=reason):
        Dataset(**(fields | change), class_names=tuple("abcde"), name="made", split="train")


def test_subset_and_moving_keep_what_belongs_together():
    dataset = made([0, 1, 2, 3, 4], groups=[5, 6, 7, 8, 9])
    part = dataset.subset(torch.tensor([3, 0]), split="part")
    assert (numbers(part), part.labels.tolist(), part.groups.tolist()) == ([3, 0], [3, 0], [8, 5])
    assert (part.split, dataset.split, len(part)) == ("part", "train", 2)
    assert part.fingerprint != dataset.fingerprint
    moved = dataset.to("cpu")
    assert moved.images.data_ptr() == dataset.images.data_ptr()
    assert moved.fingerprint == dataset.fingerprint


def test_an_empty_part_is_a_data_set():
    empty = made([0, 1]).subset(torch.zeros(0, dtype=torch.int64))
    assert len(empty) == 0
    assert len(empty.fingerprint) == 64


labels_with_groups = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=60).map(
    lambda pairs: ([label for label, _ in pairs], [10 * label + group for label, group in pairs])
)


def divisible(labels, units) -> bool:
    return all(len({u for other, u in zip(labels, units, strict=True) if other == x}) > 1 for x in labels)


@settings(deadline=None)
@given(labels_with_groups, st.floats(0.01, 0.99), st.integers(0, 2**70), st.booleans())
def test_a_split_is_a_partition_that_keeps_groups_and_classes(drawn, fraction, seed, grouped):
    labels, groups = drawn
    dataset = made(labels, groups if grouped else None)
    units = groups if grouped else list(range(len(labels)))
    if not divisible(labels, units):
        with pytest.raises(FaultsimError, match="cannot be divided"):
            split_validation(dataset, fraction, seed)
        return
    train, validation = split_validation(dataset, fraction, seed)
    assert sorted(numbers(train) + numbers(validation)) == list(range(len(labels)))
    assert numbers(train) == sorted(numbers(train))
    assert (train.split, validation.split) == ("train", "validation")
    if grouped:
        assert not set(train.groups.tolist()) & set(validation.groups.tolist())
    for label in set(labels):
        whole = {unit for other, unit in zip(labels, units, strict=True) if other == label}
        taken = {units[number] for number in numbers(validation) if labels[number] == label}
        assert len(taken) == min(max(round(fraction * len(whole)), 1), len(whole) - 1)
    again = split_validation(dataset, fraction, seed)
    assert numbers(again[1]) == numbers(validation)


def test_another_seed_gives_another_split():
    dataset = made([0, 1] * 50)
    assert numbers(split_validation(dataset, 0.2, 1)[1]) != numbers(split_validation(dataset, 0.2, 2)[1])


def test_gtsrb_tracks_are_never_divided(gtsrb):
    dataset = load("gtsrb", "train", gtsrb.root)
    train, validation = split_validation(dataset, 0.3, 0)
    assert not set(train.groups.tolist()) & set(validation.groups.tolist())
    assert len(train) == len(validation) == 86  # one of the two tracks of every class


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan")])
def test_fractions_outside_zero_and_one(fraction):
    with pytest.raises(FaultsimError, match="above 0 and below 1"):
        split_validation(made([0, 0, 1, 1]), fraction, 0)


def test_a_group_of_two_classes_is_refused():
    with pytest.raises(FaultsimError, match="group 7 spans the classes 0 and 1"):
        split_validation(made([0, 0, 1, 1], groups=[7, 8, 7, 9]), 0.5, 0)


def test_seeds_of_any_size_are_told_apart():
    keys = [(0,), (1,), (0, 0), (2**32,), (0, 1), (1, 0), (2**64 + 1,), (2**32, 1), (0, 1, 1)]
    assert len({tuple(create_random(*key).randint(2**31, size=4).tolist()) for key in keys}) == len(keys)
    with pytest.raises(FaultsimError, match="must not be negative"):
        create_random(3, -1)
