"""Dividing a data set in two, reproducibly."""

import numpy as np
import torch

from ..errors import FaultsimError
from .dataset import Dataset


def create_random(*parts: int) -> np.random.RandomState:
    """Return a generator that is a pure function of `parts` (non-negative integers of any size).

    RandomState, because NumPy promises (NEP 19) never to change its stream; the newer Generator may change.
    """
    words = []
    for part in parts:
        if part < 0:
            raise FaultsimError(f"a seed must not be negative, got {part}")
        digits = [part & 0xFFFFFFFF]
        while part := part >> 32:
            digits.append(part & 0xFFFFFFFF)
        words += [len(digits), *digits]
    return np.random.RandomState(words)


def draw_stratified_mask(labels: np.ndarray, units: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Which samples go to the smaller part: bool [N].

    In each class `fraction` of the units (rounded, at least one, never all) are drawn; a unit (one value of
    `units`, int [N]) always goes as a whole. Raises FaultsimError when a unit spans two classes, or a class
    has fewer than two units.
    """
    chosen = np.zeros(len(labels), bool)
    owners: dict[int, int] = {}
    for label in np.unique(labels):
        members = np.unique(units[labels == label])
        for unit in members.tolist():
            if owners.setdefault(unit, label) != label:
                raise FaultsimError(
                    f"group {unit} spans the classes {owners[unit]} and {label}; one expected"
                )
        if len(members) < 2:
            raise FaultsimError(
                f"class {label} has only one image or group and cannot be divided in two parts"
            )
        take = min(max(round(fraction * len(members)), 1), len(members) - 1)
        drawn = create_random(seed, int(label)).permutation(members)[:take]
        chosen |= np.isin(units, drawn)
    return chosen


def split_validation(dataset: Dataset, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """(training part, validation part) of a training set; both keep the original order of the images.

    About `fraction` (0 < fraction < 1) of every class goes to the validation part. Groups (GTSRB tracks) stay
    whole: the fraction then counts groups. The result is a function of the data and of `seed` only.
    Raises FaultsimError for a fraction outside (0, 1) and for classes that cannot be divided.
    """
    if not 0 < fraction < 1:
        raise FaultsimError(f"the validation fraction must be above 0 and below 1, got {fraction}")
    labels = dataset.labels.cpu().numpy()
    units = np.arange(len(labels)) if dataset.groups is None else dataset.groups.cpu().numpy()
    validation = draw_stratified_mask(labels, units, fraction, seed)
    return (
        dataset.subset(torch.from_numpy(np.flatnonzero(~validation))),
        dataset.subset(torch.from_numpy(np.flatnonzero(validation)), split="validation"),
    )
