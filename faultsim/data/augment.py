"""Random crops, flips and affine maps for a whole batch at once, on the device where the batch lies.

Augmentation works on uint8 pixels, before they are normalized: what slides in from outside is black (0, which
normalizes to -1), as with transforms that work on picture files. What is cut out is gray (128, which normalizes to 0).
"""

from dataclasses import dataclass

import torch
from torch.nn import functional

from ..errors import FaultsimError

GRAY = 128


@dataclass(frozen=True)
class Augmentation:
    """The paper's augmentation (Appendix C): crop, then horizontal flip, then (GTSRB) a random affine map; then cutout.

    Raises
    ------
    FaultsimError
        For numbers out of range.
    """

    padding: int = 4
    """Pixels of black on every side before a window of the original size is cut out at random."""
    flip: bool = True
    """Mirror left-right with probability 1/2."""
    translate: float = 0.0
    """Shift by up to this fraction of the width and of the height, uniformly in both directions."""
    scale: tuple[float, float] = (1.0, 1.0)
    """(low, high): enlarge by a uniformly drawn factor, about the center."""
    cutout: int = 0
    """Edge in pixels of a square that is made gray, about any pixel of the image (DeVries and Taylor, "Improved
    Regularization of Convolutional Neural Networks with Cutout", 2017); parts of it may lie outside. 0: none."""

    def __post_init__(self) -> None:
        if self.padding < 0:
            raise FaultsimError(f"padding must be 0 or more pixels, got {self.padding}")
        if not 0 <= self.translate <= 1:
            raise FaultsimError(f"translate is a part of the picture's size, 0 to 1, got {self.translate}")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise FaultsimError(f"scale must be (low, high) with 0 < low <= high, got {self.scale}")
        if self.cutout < 0:
            raise FaultsimError(f"cutout must be 0 or more pixels, got {self.cutout}")

    def __call__(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Augment a batch.

        Parameters
        ----------
        images
            uint8 [B, C, H, W].
        generator
            Of the same device; all randomness comes from it: the same state gives the same batch.

        Returns
        -------
        Tensor
            Same shape, type and device.
        """
        if images.dtype != torch.uint8 or images.dim() != 4:
            raise FaultsimError(
                f"augmentation works on uint8 [B, C, H, W] before normalization, "
                f"not on {images.dtype} {list(images.shape)}"
            )
        count, device = len(images), images.device
        if count == 0:
            return images
        if self.padding or self.flip:
            shifts = torch.randint(
                -self.padding, self.padding + 1, (2, count), generator=generator, device=device
            )
            mirrored = torch.rand(count, generator=generator, device=device) < (0.5 if self.flip else 0.0)
            images = shift_and_mirror(images, shifts, mirrored)
        if self.translate or self.scale != (1.0, 1.0):
            draws = torch.rand(3, count, generator=generator, device=device)
            offsets = (2 * draws[:2] - 1) * self.translate
            low, high = self.scale
            images = scale_and_move(images, offsets, low + (high - low) * draws[2])
        if self.cutout:
            draws = torch.rand(2, count, generator=generator, device=device)
            images = cut_out(images, self.cutout, draws)
        return images


def shift_and_mirror(images: torch.Tensor, shifts: torch.Tensor, mirrored: torch.Tensor) -> torch.Tensor:
    """Shift images, then mirror some of them left-right.

    Parameters
    ----------
    images
        uint8 [B, C, H, W].
    shifts
        int64 [2, B]: output pixel (y, x) of image b is input pixel (y + shifts[0, b], x + shifts[1, b]), black outside.
    mirrored
        bool [B].
    """
    count, channels, height, width = images.shape
    rows = torch.arange(height, device=images.device)[None, :] + shifts[0][:, None]
    columns = torch.arange(width, device=images.device).expand(count, -1)
    columns = torch.where(mirrored[:, None], width - 1 - columns, columns) + shifts[1][:, None]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    flat = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None, :]
    flat = flat.reshape(count, 1, -1).expand(-1, channels, -1)
    moved = images.reshape(count, channels, -1).gather(2, flat).reshape(images.shape)
    return moved * inside[:, None]


def scale_and_move(images: torch.Tensor, offsets: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Enlarge each image by its factor about the center, then move it; bilinear, black outside, rounded.

    Parameters
    ----------
    images
        uint8 [B, C, H, W].
    offsets
        float [2, B]: right and down, as fractions of width and height.
    factors
        float [B].
    """
    matrices = torch.zeros(len(images), 2, 3, device=images.device)
    # grid_sample asks where an output point comes from: input = (output - move) / factor, in [-1, 1],
    # where the whole width is 2 units.
    matrices[:, 0, 0] = matrices[:, 1, 1] = 1 / factors
    matrices[:, :, 2] = -2 * (offsets / factors).T
    grid = functional.affine_grid(matrices, list(images.shape), align_corners=False)
    moved = functional.grid_sample(images.float(), grid, mode="bilinear", align_corners=False)
    return moved.round_().clamp_(0, 255).to(torch.uint8)


def cut_out(images: torch.Tensor, edge: int, centers: torch.Tensor) -> torch.Tensor:
    """Make a square of each image gray.

    Parameters
    ----------
    images
        uint8 [B, C, H, W].
    edge
        Of the squares, in pixels.
    centers
        float [2, B]: down and right, as fractions of height and width, in [0, 1).
    """
    inside = []
    for size, center in zip(images.shape[2:], centers, strict=True):
        first = (center * size).long()[:, None] - edge // 2
        places = torch.arange(size, device=images.device)[None, :]
        inside.append((places >= first) & (places < first + edge))
    square = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return images.masked_fill(square, GRAY)


_STANDARD = Augmentation()
_BY_NAME = {
    "gtsrb": Augmentation(translate=0.35, scale=(0.65, 1.35)),
    "digits": Augmentation(flip=False),  # a mirrored 2 is not a 2
}


def find_augmentation(name: str) -> Augmentation:
    """Return the paper's augmentation for a dataset; for the digits, which the paper lacks, crops only."""
    return _BY_NAME.get(name, _STANDARD)
