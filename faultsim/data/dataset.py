"""One split of a data set, held in memory."""

import hashlib
import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from ..errors import FaultsimError

SIDE = 32


@dataclass(frozen=True)
class Normalization:
    """Pixels become (x / 255 - mean) / std, channel by channel, as torchvision's Normalize after ToTensor."""

    mean: tuple[float, ...]
    """One for each channel."""
    std: tuple[float, ...]
    """One for each channel, above 0."""

    def __post_init__(self) -> None:
        numbers = (*self.mean, *self.std)
        if (
            len(self.mean) != len(self.std)
            or not all(math.isfinite(x) for x in numbers)
            or min(self.std) <= 0
        ):
            raise FaultsimError(
                f"normalization needs a finite mean and a std above 0 for each channel, not {self.mean} and {self.std}"
            )

    def of(self, images: torch.Tensor) -> torch.Tensor:
        """Normalize uint8 [..., C, H, W] to float32 of the same shape."""
        mean, std = (torch.tensor(x, device=images.device)[:, None, None] for x in (self.mean, self.std))
        return images.float().div_(torch.full([], 255.0, device=images.device)).sub_(mean).div_(std)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images with their labels.

    Raises
    ------
    FaultsimError
        When shapes, types or labels are anything else.
    """

    images: torch.Tensor
    """Pixels uint8 [N, channels, height, width], [N, 3, 32, 32] RGB in faultsim's datasets; or inputs [N, ...] of
    another type, which a model takes as they are."""
    labels: torch.Tensor
    """int64 [N], each from 0 to num_classes - 1."""
    class_names: tuple[str, ...]
    """One name for each class."""
    name: str
    """Where the images come from, such as "cifar10"."""
    split: str
    """Which part of it, such as "test"."""
    groups: torch.Tensor | None = None
    """int64 [N]: images of one group show the same object (GTSRB: one track, one physical sign filmed from a passing
    car) and must not be divided between training and validation."""
    normalization: Normalization | None = None
    """Of pixels; None: to [-1, 1], see `normalize`."""

    def __post_init__(self) -> None:
        count = len(self.labels)
        pixels = self.images.dtype == torch.uint8
        if self.images.dim() < 2 or len(self.images) != count or (pixels and self.images.dim() != 4):
            raise FaultsimError(
                f"images of a data set must be uint8 [{count}, channels, height, width], or inputs [{count}, ...] of "
                f"another type, not {self.images.dtype} {list(self.images.shape)}"
            )
        if self.normalization and (not pixels or len(self.normalization.mean) != self.images.shape[1]):
            raise FaultsimError(
                f"a mean and a std of {len(self.normalization.mean)} channels don't fit "
                f"{self.images.dtype} {list(self.images.shape)}"
            )
        for what, values in (("labels", self.labels), ("groups", self.groups)):
            if values is not None and (values.dtype != torch.int64 or values.shape != (count,)):
                raise FaultsimError(
                    f"{what} of a data set must be int64 [{count}], not {values.dtype} {list(values.shape)}"
                )
        if count and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < self.num_classes:
            raise FaultsimError(
                f"labels must be between 0 and {self.num_classes - 1}, "
                f"found {int(self.labels.min())} to {int(self.labels.max())}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one image."""
        return tuple(self.images.shape[1:])

    @property
    def shape_or_example(self) -> tuple[int, ...]:
        """What shows the package energy one sample, as OwnBatches have it: always the shape."""
        return self.input_shape

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the pixels and then the labels (int64, little-endian); equal on every device.

        Type and size come first where they are others than uint8 [N, 3, 32, 32].
        """
        digest = hashlib.sha256()
        if self.images.dtype != torch.uint8 or self.input_shape != (3, SIDE, SIDE):
            digest.update(f"{self.images.dtype}{list(self.images.shape)}".encode())
        digest.update(self.images.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        digest.update(self.labels.cpu().contiguous().numpy().astype("<i8").data)
        return digest.hexdigest()

    def to(self, device: torch.device | str) -> "Dataset":
        """Return the same data on `device`; nothing is copied when it is there already."""
        groups = None if self.groups is None else self.groups.to(device)
        return replace(self, images=self.images.to(device), labels=self.labels.to(device), groups=groups)

    def subset(self, indices: torch.Tensor, split: str | None = None) -> "Dataset":
        """Return the images at `indices` (int64 [M]), in that order; `split` renames the part."""
        indices = indices.to(self.labels.device)
        return replace(
            self,
            images=self.images[indices],
            labels=self.labels[indices],
            groups=None if self.groups is None else self.groups[indices],
            split=split or self.split,
        )


def normalize(images: torch.Tensor, normalization: Normalization | None = None) -> torch.Tensor:
    """Turn uint8 pixels into float32 in [-1, 1]: x / 127.5 - 1 (the paper, Appendix C).

    Parameters
    ----------
    images
        On any device: the result is the same bits on every device. Inputs that are no pixels stay as they are.
    normalization
        Another normalization.
    """
    if images.dtype != torch.uint8:
        return images
    if normalization is not None:
        return normalization.of(images)
    # by a tensor: on GPUs PyTorch divides by a number as it multiplies by the reciprocal
    return images.float().div_(torch.full([], 127.5, device=images.device)).sub_(1.0)
