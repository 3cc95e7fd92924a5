"""Floating-point numbers of 8 to 32 bits in their exact bits, and what becomes of those that are not finite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import log2
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import FaultsimError
from .format import LEAST_SCALE, Format, Grid, checked_axis, checked_weight, extreme, split_options

_TYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float8_e4m3fn": torch.float8_e4m3fn,
    "float8_e5m2": torch.float8_e5m2,
}
# The smallest numbers above 0. Times the scale they must be normal in float32, which no device flushes to zero.
_SMALLEST = {"float8_e4m3fn": 2.0**-9, "float8_e5m2": 2.0**-16}


class Nonfinite(StrEnum):
    """What a weight reads as whose bits are infinite or no number, or which the result's type cannot hold."""

    KEEP = "keep"
    """As it is: one such weight can decide every answer of the network."""
    ZERO = "zero"
    """As 0."""
    CLAMP = "clamp"
    """Infinity as the largest finite number with its sign, NaN as 0, as torch.nan_to_num and numpy.nan_to_num do."""


@dataclass(frozen=True)
class FloatFormat(Format):
    """A floating-point number.

    IEEE 754 binary32 and binary16, bfloat16, or the 8-bit formats of Micikevicius et al. (arXiv 2209.05433): e4m3fn,
    which has NaN and no infinity, and e5m2, which has both.

    The weight is rounded to nearest, ties to even. Without `scaled` there is no scale, and a weight beyond the largest
    finite number is refused.
    """

    kind: str = "float32"
    """float32, float16, bfloat16, float8_e4m3fn or float8_e5m2."""
    scaled: bool = False
    """8 bits only: weights are divided by max|w| / (largest finite number), for the whole tensor or each channel, so
    that they use the range."""
    nonfinite: Nonfinite = Nonfinite.KEEP
    """What the weights read as that are not finite."""

    _names: ClassVar[str] = f"{', '.join(_TYPES)} (with -zero or -clamp; those of 8 bits with -scaled)"

    def __post_init__(self) -> None:
        if self.kind not in _TYPES:
            raise FaultsimError(f"unknown floating-point format {self.kind!r}: it can be {', '.join(_TYPES)}")
        try:
            object.__setattr__(self, "nonfinite", Nonfinite(self.nonfinite))
        except ValueError:
            raise FaultsimError(
                f"unknown policy {str(self.nonfinite)!r} for weights that are not finite: "
                f"it can be {', '.join(Nonfinite)}"
            ) from None
        if self.scaled and self.width > 8:
            raise FaultsimError(f"{self.kind} has no scale: scaled is for formats of 8 bits")

    @classmethod
    def _parse(cls, base: str, options: Sequence[str]) -> FloatFormat | None:
        if base not in _TYPES:
            return None
        scaled = ["scaled"] if _TYPES[base].itemsize == 1 else []
        chosen = split_options(base, options, [*scaled, *Nonfinite])
        policies = [policy for policy in Nonfinite if policy in chosen]
        if len(policies) > 1:
            raise FaultsimError(f"{base}: {policies[0]} cannot be combined with {policies[1]}")
        return cls(base, "scaled" in chosen, *policies)

    @property
    def name(self) -> str:
        policy = [] if self.nonfinite is Nonfinite.KEEP else [str(self.nonfinite)]
        return "-".join([self.kind, *(["scaled"] if self.scaled else []), *policy])

    def describe(self) -> str:
        scaled = ", scaled to its range" if self.scaled else ""
        become = {
            Nonfinite.KEEP: "kept",
            Nonfinite.ZERO: "read as 0",
            Nonfinite.CLAMP: "read as the largest finite number of their sign, NaN as 0",
        }[self.nonfinite]
        return (
            f"{self.name}: floating-point numbers of {self.width} bits{scaled}; weights that are not finite are "
            f"{become}; {self.weights_per_word} weights in a 64-bit word"
        )

    def name_bits(self) -> str:
        digits = -round(log2(torch.finfo(self.dtype).eps))
        return f"{self.width - 1}: sign, {self.width - 2} to {digits}: exponent"

    @property
    def width(self) -> int:
        return 8 * self.dtype.itemsize

    @property
    def dtype(self) -> torch.dtype:
        return _TYPES[self.kind]

    @property
    def largest(self) -> float:
        """The largest finite number."""
        return torch.finfo(self.dtype).max

    def encode(self, weight: Tensor, axis: int = -1) -> tuple[Tensor, Grid]:
        w = checked_weight(weight, self.name)
        checked_axis(w, axis)
        if not self.scaled:
            if axis >= 0:
                raise FaultsimError(
                    f"{self.name} has no scale for each channel: integers and scaled formats have"
                )
            most = float(extreme(w.abs(), -1, True))
            if most > self.largest:
                raise FaultsimError(
                    f"a weight of {most:g} is beyond the largest number of {self.name}, {self.largest:g}"
                )
            return w.to(self.dtype), Grid(torch.ones([], device=w.device))
        scale = self._scale(w, axis)
        return (w / scale).clamp_(-self.largest, self.largest).to(self.dtype), Grid(scale, None, axis)

    def round(self, weight: Tensor, axis: int = -1) -> Tensor:
        w = weight.detach().float()
        scale = self._scale(w, axis) if self.scaled else torch.ones([], device=w.device)
        return (w / scale).clamp_(-self.largest, self.largest).to(self.dtype).float() * scale

    def _scale(self, w: Tensor, axis: int) -> Tensor:
        """Return the scale of a tensor, or of its channels."""
        scale = extreme(w.abs(), axis, True) / self.largest
        least = LEAST_SCALE / _SMALLEST[self.kind]
        return torch.where(scale >= least, scale, torch.ones_like(scale))

    def decode(self, codes: Tensor, grid: Grid, dtype: torch.dtype = torch.float32) -> Tensor:
        self._check_codes(codes)
        self._check_output(dtype)
        values = codes.float()
        scale = grid.scale if self.width == 8 else torch.ones_like(grid.scale)  # wide formats have none
        if self.width == 8:
            values = values * scale
        if self.nonfinite is Nonfinite.CLAMP:
            most = (self.largest * scale).clamp(max=torch.finfo(dtype).max)
            return torch.where(values.isnan(), 0.0, values).clamp(-most, most).to(dtype)
        result = values.to(dtype)
        if self.nonfinite is Nonfinite.ZERO:
            return torch.where(result.isfinite(), result, 0.0)
        # Devices and conversions disagree about the sign and digits of NaN: it gets those of Python's.
        bits = result.view({2: torch.int16, 4: torch.int32}[dtype.itemsize])
        return bits.masked_fill(result.isnan(), _QUIET_NAN[dtype]).view(dtype)


_QUIET_NAN = {torch.float32: 0x7FC00000, torch.bfloat16: 0x7FC0, torch.float16: 0x7E00}
