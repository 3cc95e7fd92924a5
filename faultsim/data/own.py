"""Batches of the user's own, in any form that a model takes."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice, pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

from ..errors import FaultsimError, summarize_error
from ..models import import_function
from ..network.batch import Inputs, count_samples, describe, split_batch
from .dataset import Dataset


@dataclass(frozen=True, eq=False)
class OwnBatches:
    """Batches in the forms of faultsim.network.batch.split_batch, all of them in memory."""

    batches: list[tuple[Inputs, Any]]
    """(inputs, targets)."""
    name: str
    """Where they come from."""

    @classmethod
    def load(cls, spec: str, images: int | None = None) -> "OwnBatches":
        """Call the function `package.module:function` without arguments and keep the batches that it gives.

        Parameters
        ----------
        spec
            The function. It gives an iterable of batches, such as a list, a generator or a DataLoader; NumPy arrays
            become tensors.
        images
            The first so many samples only.

        Raises
        ------
        FaultsimError
            For a function that is missing, or fails, and for batches that are none.
        """
        function = import_function(spec, "data", "batches")
        if images is not None and images < 1:
            raise FaultsimError(f"{images} images: at least 1 is needed")
        found, count = [], 0
        try:
            given = function()
            if not isinstance(given, Iterable) or isinstance(given, Tensor | str | bytes | dict):
                raise FaultsimError(f"it gives {describe(given)}, not an iterable of batches")
            for batch in given:
                inputs, targets = tree_map(_as_tensor, split_batch(tree_map(_as_tensor, batch)))
                here = count_samples(inputs, targets)
                if images is not None and count + here >= images:
                    found.append(_first((inputs, targets), here, images - count))
                    count = images
                    break
                found.append((inputs, targets))
                count += here
        except FaultsimError as error:
            raise FaultsimError(f"data {spec!r}: {error}") from None
        except Exception as error:  # the user's function may fail in any way
            raise FaultsimError(
                f"data {spec!r} fails ({type(error).__name__}: {summarize_error(error)})"
            ) from error
        if count == 0:
            raise FaultsimError(f"data {spec!r} gives no samples")
        if images is not None and count < images:
            raise FaultsimError(f"{images} images: data {spec!r} has {count:,}, choose 1 to {count}")
        return cls(found, spec)

    def __len__(self) -> int:
        """Return the number of samples."""
        return sum(count_samples(*batch) for batch in self.batches)

    @classmethod
    def first_of(cls, data: Iterable[Any]) -> "OwnBatches":
        """Keep the first batch of any iterable of batches."""
        return cls([split_batch(batch) for batch in islice(data, 1)], "")

    @property
    def input_shape(self) -> tuple[int, ...] | None:
        """Shape of one sample, where a model takes one tensor of floats; else None."""
        inputs = self.batches[0][0]
        if isinstance(inputs, Tensor) and inputs.is_floating_point():
            return tuple(inputs.shape[1:])
        return None

    @property
    def example(self) -> Inputs:
        """The inputs of the first sample, as a batch of one."""
        inputs, targets = self.batches[0]
        return _first(inputs, count_samples(inputs, targets), 1)

    @property
    def shape_or_example(self) -> tuple[int, ...] | Inputs:
        """What shows the package energy one sample: its shape where that is enough, else an example."""
        return self.input_shape or self.example

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of all that the batches hold."""
        digest = hashlib.sha256()
        for batch in self.batches:
            leaves, spec = tree_flatten(batch)
            digest.update(repr(spec).encode())
            for leaf in leaves:
                digest.update(describe(leaf).encode() if isinstance(leaf, Tensor) else repr(leaf).encode())
                if isinstance(leaf, Tensor):
                    digest.update(leaf.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def to(self, device: torch.device | str) -> "OwnBatches":
        """Return the same batches on `device`."""
        move = [
            tree_map(lambda leaf: leaf.to(device) if isinstance(leaf, Tensor) else leaf, b)
            for b in self.batches
        ]
        return replace(self, batches=move)

    def as_dataset(self, split: str) -> Dataset:
        """Return one tensor of all inputs and one of all labels, for training.

        FaultsimError where they are none: several inputs, sizes that differ, labels that are no class numbers [N].
        """
        tensors: list[Tensor] = []
        for inputs, labels in self.batches:
            whole = isinstance(labels, Tensor) and labels.dim() == 1 and not labels.is_floating_point()
            if not isinstance(inputs, Tensor) or not whole or labels.dtype == torch.bool:
                raise FaultsimError(
                    f"data {self.name!r}: training needs batches (one tensor of inputs, class numbers [N]), not "
                    f"({describe(inputs)}, {describe(labels)})"
                )
            tensors.append(inputs)
        for one, other in pairwise(tensors):
            if (one.shape[1:], one.dtype) != (other.shape[1:], other.dtype):
                raise FaultsimError(
                    f"data {self.name!r}: training needs inputs of one size and type, not {describe(one)} and "
                    f"{describe(other)}"
                )
        labels = torch.cat([labels for _, labels in self.batches]).long()
        names = tuple(str(label) for label in range(int(labels.max()) + 1))
        return Dataset(torch.cat(tensors), labels, names, self.name, split)


def _as_tensor(leaf: Any) -> Any:
    return torch.from_numpy(leaf) if isinstance(leaf, np.ndarray) and leaf.dtype.kind in "fiub" else leaf


def _first(batch: Any, samples: int, count: int) -> Any:
    """Return the first `count` of a batch of `samples`."""

    def cut(leaf: Any) -> Any:
        return leaf[:count] if isinstance(leaf, Tensor) and leaf.dim() and len(leaf) == samples else leaf

    return tree_map(cut, batch)
