"""Integers of 2 to 8 bits: symmetric two's complement, offset codes, asymmetric ranges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import FaultsimError
from ..support.integers import checked_integer
from .format import (
    LEAST_SCALE,
    Format,
    Grid,
    checked_axis,
    checked_weight,
    extreme,
    number_in,
    split_options,
    view_bytes,
)

_OPTIONS = ("asymmetric", "truncated", "unpacked")


@dataclass(frozen=True)
class IntegerFormat(Format):
    """Integer q of b bits; the number is scale * q + center.

    Symmetric (default): scale = max|w| / (2**(b-1) - 1), center = 0. Asymmetric: the range [min w, max w] is mapped to
    the same integers, so center = (min + max) / 2 and scale = (max - min) / 2 / (2**(b-1) - 1). In both q is
    round((w - center) / scale), to nearest, ties to even, in [-(2**(b-1) - 1), 2**(b-1) - 1].

    int8 is what the published NeuralFuse code stores: a fault can make -2**(b-1) of q, one step beyond the range, and
    nothing clamps it. Offset and asymmetric formats are those of random bit error training (Stutz et al., MLSys 2021:
    "RQuant" is uint8-asymmetric), which clamps what it reads to the range: -2**(b-1) reads as -(2**(b-1) - 1). (Their
    code widens the range by a constant, 0.001; this one does not.)
    """

    bits: int = 8
    """2 to 8."""
    offset: bool = False
    """The memory holds q + 2**(b-1), without a sign, instead of two's complement."""
    asymmetric: bool = False
    """The range is [min w, max w] instead of [-max|w|, max|w|]."""
    truncated: bool = False
    """Rounds towards zero instead of to nearest, as the older schemes that Stutz et al. compare with."""
    packed: bool = True
    """False: one weight a byte, in its low bits."""

    _names: ClassVar[str] = "int2 to int8, uint2 to uint8 (with -asymmetric, -truncated, -unpacked)"

    def __post_init__(self) -> None:
        object.__setattr__(self, "bits", checked_integer(self.bits, "bits of a weight", 2, 8))
        if self.bits == 8 and not self.packed:
            raise FaultsimError("weights of 8 bits fill their bytes: unpacked is for 2 to 7 bits")

    @classmethod
    def _parse(cls, base: str, options: Sequence[str]) -> IntegerFormat | None:
        bits = number_in(r"u?int([2-8])", base)
        if bits is None:
            return None
        chosen = split_options(base, options, _OPTIONS)
        return cls(
            bits,
            offset=base.startswith("u"),
            asymmetric="asymmetric" in chosen,
            truncated="truncated" in chosen,
            packed="unpacked" not in chosen,
        )

    @property
    def name(self) -> str:
        chosen = self.asymmetric, self.truncated, not self.packed
        words = [word for word, is_chosen in zip(_OPTIONS, chosen, strict=True) if is_chosen]
        return "-".join([f"{'u' * self.offset}int{self.bits}", *words])

    def describe(self) -> str:
        code = f"offset codes (q + {self.zero})" if self.offset else "two's complement"
        kind = "asymmetric" if self.asymmetric else "symmetric"
        rounding = ", rounded towards zero" if self.truncated else ""
        clamped = ", clamped to the range when read" if self.clamps else ""
        unused = f", {self.unused_cells} of 64 cells unused" if self.unused_cells else ""
        return (
            f"{self.name}: {kind} integers of {self.bits} bits, {code}{rounding}{clamped}; "
            f"{self.weights_per_word} weights in a 64-bit word{unused}"
        )

    def name_bits(self) -> str:
        return f"{self.bits - 1}: {'the most significant' if self.offset else 'sign'}"

    @property
    def width(self) -> int:
        return self.bits

    @property
    def dtype(self) -> torch.dtype:
        return torch.uint8 if self.offset else torch.int8

    @property
    def largest(self) -> int:
        """The largest q that encode() gives."""
        return (1 << (self.bits - 1)) - 1

    @property
    def zero(self) -> int:
        """What is added to q in offset codes: the code of q = 0."""
        return 1 << (self.bits - 1)

    @property
    def clamps(self) -> bool:
        """Whether -2**(b-1), which only a fault makes, reads as -(2**(b-1) - 1)."""
        return self.offset or self.asymmetric

    def encode(self, weight: Tensor, axis: int = -1) -> tuple[Tensor, Grid]:
        w = checked_weight(weight, self.name)
        checked_axis(w, axis)
        grid = self.find_grid(w, axis)
        q = self._steps(w, grid)
        return (q + self.zero if self.offset else q).to(self.dtype), grid

    def round(self, weight: Tensor, axis: int = -1) -> Tensor:
        w = weight.detach().float()
        grid = self.find_grid(w, axis)
        values = self._steps(w, grid) * grid.scale
        return values if grid.center is None else values + grid.center

    def _steps(self, w: Tensor, grid: Grid) -> Tensor:
        """Return q of each weight, as float32."""
        steps = (w if grid.center is None else w - grid.center) / grid.scale
        # The clamp is for asymmetric ranges, whose ends can round to one step more.
        return (steps.trunc_() if self.truncated else steps.round_()).clamp_(-self.largest, self.largest)

    def find_grid(self, w: Tensor, axis: int = -1) -> Grid:
        """Return the scale and center of a float32 tensor, or of its channels: its extremes decide."""
        if self.asymmetric:
            # Halves first: the sum of two large numbers would be infinite.
            low, high = extreme(w, axis, False) / 2, extreme(w, axis, True) / 2
            scale, center = (high - low) / self.largest, high + low
        else:
            scale, center = extreme(w.abs(), axis, True) / self.largest, None
        return Grid(torch.where(scale >= LEAST_SCALE, scale, torch.ones_like(scale)), center, axis)

    def decode(self, codes: Tensor, grid: Grid, dtype: torch.dtype = torch.float32) -> Tensor:
        self._check_codes(codes)
        self._check_output(dtype)
        q = codes.float()
        if self.offset:
            q -= self.zero
        if self.clamps:
            q.clamp_(min=-self.largest)
        values = q * grid.scale
        return (values if grid.center is None else values + grid.center).to(dtype)

    def _to_bytes(self, codes: Tensor) -> Tensor:
        if self.bits == 8:
            return super()._to_bytes(codes)
        filled = torch.nn.functional.pad(codes, (0, -codes.numel() % self.weights_per_word))
        patterns = filled.reshape(-1, self.weights_per_word).to(torch.int64) & (2**self.bits - 1)
        words: Tensor = (patterns << self._shifts(codes)).sum(1)
        return words.view(torch.uint8)

    def _of_bytes(self, image: Tensor, weights: int) -> Tensor:
        if self.bits == 8:
            return super()._of_bytes(image, weights)
        words = view_bytes(image, torch.int64).unsqueeze(-1)
        patterns = ((words >> self._shifts(image)) & (2**self.bits - 1)).flatten(-2)[..., :weights]
        q: Tensor = patterns if self.offset else (patterns ^ self.zero) - self.zero
        return q.to(self.dtype)

    def _shifts(self, like: Tensor) -> Tensor:
        """Return the first bit of each weight in a word."""
        return torch.arange(self.weights_per_word, device=like.device) * self.cells


INT8 = IntegerFormat()
"""What the memory holds by default, as in the paper."""
