"""What the memory holds for a weight: its bits, where they lie, and the number that they stand for.

The memory is a row of 64-bit words, little-endian: bit i of a word is bit i % 8 of its byte i // 8. A tensor begins on
a word. Weight k of a word lies in its bits k*b to k*b + b - 1, for formats of b bits; a word holds 64 // b weights, and
the 64 mod b cells that are left hold nothing: their faults change no weight. Formats of less than 8 bits can instead
keep one weight a byte, in its low bits (`packed=False`); the byte's other cells hold nothing.

A fault reads a bit wrong whatever it means. So faults come before formats: pack the codes, let a chip read the image
(`faultsim.corrupt(image.view(torch.int8), chip, ...)`), unpack and decode what it read. The image of an int8 tensor is
the tensor itself, byte by byte.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import FaultsimError
from ..sram import WORD_BYTES

WORD_BITS = 8 * WORD_BYTES
# A float32 below it has fewer digits. No scale is smaller: such weights are as good as zeros.
LEAST_SCALE = torch.finfo(torch.float32).tiny
OUTPUTS = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Grid:
    """How the codes of one tensor become numbers: scale * (what the code stands for) + center."""

    scale: Tensor
    """float32, [] or [1, channels, 1, ...]: it broadcasts over the tensor, and over dimensions in front of it."""
    center: Tensor | None = None
    """float32 of the same shape; None means 0."""
    axis: int = -1
    """Dimension of the channels; -1 for one scale."""


@dataclass(frozen=True)
class Format(ABC):
    """How a weight is stored. Two formats with the same `name` are equal.

    Examples
    --------
    >>> import torch
    >>> from faultsim import Chip, corrupt
    >>> from faultsim.formats import Format
    >>> weight = torch.linspace(-1, 1, 8)
    >>> int4 = Format.parse("int4")
    >>> codes, grid = int4.encode(weight)
    >>> image = int4.pack(codes)
    >>> read = corrupt(image.view(torch.int8), Chip(7), voltage=0.83)
    >>> faulty = int4.decode(int4.unpack(read, weight.shape), grid)
    >>> image.numel(), faulty.shape
    (8, torch.Size([8]))
    """

    _kinds: ClassVar[list[type[Format]]] = []
    """The kinds of formats that parse() knows; each adds itself."""
    _names: ClassVar[str]
    """What parse() accepts, in words."""

    def __init_subclass__(cls) -> None:
        Format._kinds.append(cls)

    @staticmethod
    def parse(name: str) -> Format:
        """Return the format of a name, such as "int4", "uint8-asymmetric" or "bfloat16-clamp".

        Parameters
        ----------
        name
            A number type, then options in any order, each after a hyphen.

        Raises
        ------
        FaultsimError
            For a name that no format has, and options that its format does not know.
        """
        base, *options = str(name).strip().lower().split("-")
        for kind in Format._kinds:
            if (found := kind._parse(base, options)) is not None:
                return found
        known = ", ".join(kind._names for kind in Format._kinds)
        raise FaultsimError(f"unknown format {str(name)!r}: it can be {known}")

    @classmethod
    @abstractmethod
    def _parse(cls, base: str, options: Sequence[str]) -> Format | None:
        """Return the format, or None where `base` is a name of another kind."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What parse() makes this format of."""

    @abstractmethod
    def describe(self) -> str:
        """Say in one line what a weight is and how many lie in a word."""

    @abstractmethod
    def name_bits(self) -> str:
        """Say what the top bits of a code are, such as "15: sign, 14 to 7: exponent"."""

    @property
    @abstractmethod
    def width(self) -> int:
        """Bits of a code."""

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """Type of the codes."""

    @abstractmethod
    def encode(self, weight: Tensor, axis: int = -1) -> tuple[Tensor, Grid]:
        """Return what the memory holds for a tensor.

        Parameters
        ----------
        weight
            Floating point, any shape; taken as float32.
        axis
            Dimension of the channels, each with a scale of its own; -1 for one scale.

        Returns
        -------
        codes
            In `dtype`, shape of `weight`.
        grid
            How they become numbers again.

        Raises
        ------
        FaultsimError
            For weights that are not finite or that the format cannot hold, and for an axis where it has no scale.
        """

    @abstractmethod
    def decode(self, codes: Tensor, grid: Grid, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the numbers that codes stand for.

        Parameters
        ----------
        codes
            In the format's `dtype`, shape of the weight, with or without dimensions (chips) in front.
        grid
            As encode() gave it.
        dtype
            float32, bfloat16 or float16. The result is rounded to float32 after each operation, and once more to
            `dtype`, to nearest, ties to even. A NaN is always the positive quiet one.
        """

    @abstractmethod
    def round(self, weight: Tensor, axis: int = -1) -> Tensor:
        """Return a weight as the memory would give it back, in float32: encode() and decode() without checks.

        Nothing waits for the device, so a training step may be captured as a CUDA graph. Weights beyond the largest
        number of the format become that number.
        """

    @property
    def packed(self) -> bool:
        """Whether weights lie as close as they can."""
        return True

    @property
    def cells(self) -> int:
        """Cells from the first bit of a weight to that of the next."""
        return self.width if self.packed else 8

    @property
    def weights_per_word(self) -> int:
        """Weights in a 64-bit word."""
        return WORD_BITS // self.cells

    @property
    def unused_cells(self) -> int:
        """Cells of a full word that hold no weight's bit."""
        return WORD_BITS - self.weights_per_word * self.width

    def find_cells(self, bits: int) -> bytes:
        """Return the cells of a 64-bit word that hold some bits of its weights, as masks of its bytes.

        Parameters
        ----------
        bits
            Mask of the bits of a weight.
        """
        word = sum(bits << weight * self.cells for weight in range(self.weights_per_word))
        return word.to_bytes(WORD_BYTES, "little")

    def words(self, weights: int) -> int:
        """Return how many 64-bit words a tensor of so many weights takes."""
        return -(-weights // self.weights_per_word)

    def image_bytes(self, weights: int) -> int:
        """Return the length of the image of so many weights, in bytes."""
        return WORD_BYTES * self.words(weights)

    def pack(self, codes: Tensor) -> Tensor:
        """Return the memory image of a tensor.

        Parameters
        ----------
        codes
            As encode() gives them, any shape; row-major order counts.

        Returns
        -------
        Tensor
            uint8 [image_bytes(codes.numel())]. Cells without a weight hold 0.
        """
        self._check_codes(codes)
        image = self._to_bytes(codes.contiguous().reshape(-1))
        return torch.nn.functional.pad(image, (0, -image.numel() % WORD_BYTES))

    def unpack(self, image: Tensor, shape: Sequence[int]) -> Tensor:
        """Return the codes that lie in a memory image.

        Parameters
        ----------
        image
            uint8 or int8 [..., bytes], as pack() made it or as chips read it.
        shape
            Of the weight.

        Returns
        -------
        Tensor
            In `dtype`, [..., *shape].

        Raises
        ------
        FaultsimError
            For an image of another type or length.
        """
        weights = prod(shape)
        expected = self.image_bytes(weights)
        if image.dtype not in (torch.uint8, torch.int8) or image.dim() < 1 or image.shape[-1] != expected:
            raise FaultsimError(
                f"the {self.name} image of {weights} weights is uint8 [..., {expected}], "
                f"not {image.dtype} {list(image.shape)}"
            )
        return self._of_bytes(image, weights).reshape([*image.shape[:-1], *shape])

    def _to_bytes(self, codes: Tensor) -> Tensor:
        """Return codes [weights] as the uint8 bytes that they fill. Here each code is whole bytes."""
        return codes.view(torch.uint8)

    def _of_bytes(self, image: Tensor, weights: int) -> Tensor:
        """Return the codes [..., weights] that lie in an image [..., bytes]: the inverse of _to_bytes()."""
        return view_bytes(image[..., : weights * self.width // 8], self.dtype)

    def _check_codes(self, codes: Tensor) -> None:
        if codes.dtype != self.dtype:
            raise FaultsimError(f"codes of {self.name} are {self.dtype}, not {codes.dtype}: use encode()")

    def _check_output(self, dtype: torch.dtype) -> None:
        if dtype not in OUTPUTS:
            raise FaultsimError(f"weights are decoded to float32, bfloat16 or float16, not {dtype}")

    def __str__(self) -> str:
        return self.name


AnyFormat = Format | str
"""A format, or its name."""


def as_format(given: AnyFormat) -> Format:
    """Return a format as it is, and a name as the format that it means; FaultsimError for an unknown name."""
    return given if isinstance(given, Format) else Format.parse(given)


def view_bytes(image: Tensor, dtype: torch.dtype) -> Tensor:
    """Return bytes as numbers, also where torch cannot view them: none, or from an odd address."""
    if image.numel() == 0:
        return image.new_empty([*image.shape[:-1], 0], dtype=dtype)
    dense = image.contiguous()
    return (dense.clone() if dense.storage_offset() % dtype.itemsize else dense).view(dtype)


def checked_weight(weight: Tensor, name: str) -> Tensor:
    """Return a weight in float32; FaultsimError unless it is finite."""
    if not weight.is_floating_point():
        raise FaultsimError(f"weights must be floating point to be stored as {name}, not {weight.dtype}")
    w = weight.detach().float()
    if not bool(torch.isfinite(w).all()):
        raise FaultsimError(f"weights with NaN or infinity cannot be stored as {name}")
    return w


def extreme(weight: Tensor, axis: int, largest: bool) -> Tensor:
    """Return the largest (or smallest) number of a tensor, or of each channel, shaped as a Grid's scale; 0 of none."""
    if axis < 0:
        over, shape = list(range(weight.dim())), []
    else:
        over = [d for d in range(weight.dim()) if d != axis]
        shape = [n if d == axis else 1 for d, n in enumerate(weight.shape)]
    if weight.numel() == 0:
        return weight.new_zeros(shape)
    return (weight.amax if largest else weight.amin)(over, keepdim=axis >= 0)


def checked_axis(weight: Tensor, axis: int) -> None:
    """FaultsimError unless the tensor has this dimension, or it is -1."""
    if not -1 <= axis < weight.dim():
        raise FaultsimError(f"axis {axis} of a weight with {weight.dim()} dimensions: -1 means one scale")


def split_options(name: str, options: Sequence[str], known: Sequence[str]) -> set[str]:
    """Return a format's options as a set; FaultsimError for one that is unknown or given twice."""
    for option in options:
        if option not in known:
            those = ", ".join(known) or "none"
            raise FaultsimError(f"{name} has no option {option!r}: it knows {those}")
    if len(set(options)) < len(options):
        raise FaultsimError(f"format {'-'.join([name, *options])!r} names an option twice")
    return set(options)


def number_in(pattern: str, text: str) -> int | None:
    """Return the number that a regular expression's group finds in the whole text, or None."""
    found = re.fullmatch(pattern, text)
    return int(found[1]) if found else None
