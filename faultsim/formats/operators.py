"""Weights of any format as chips read them, in one pass: operators with CPU, CUDA and fake kernels.

====================================================  =========================================================
torch.ops.faultsim                                    result
====================================================  =========================================================
corrupt_decode(image, format, shape, dtype, ...)      float [n_chips, *shape]: the weights as each chip reads them
corrupt_decode.out(image, format, ..., out=out)       the same into a contiguous tensor
====================================================  =========================================================

image : uint8 [bytes]
    The memory image of one weight, from Format.pack().
format : str
    Name of its format.
scale, center : float32
    One number (axis -1), or one for each index of `axis`; center is for asymmetric ranges, otherwise None.

The other arguments are those of faultsim.kernel.ops; the base address is a multiple of 8. The result has the bits that
corrupting the image, unpacking and decoding it gives.
"""

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any

import torch
from torch import Tensor

from ..kernel.native import native
from ..kernel.op_checks import Draw, check_draw
from ..kernel.ops import COMMON, launch
from .floating import FloatFormat
from .format import OUTPUTS, Format
from .integer import IntegerFormat

_LIBRARY = torch.library.Library("faultsim", "FRAGMENT")
_KERNEL = native()

_parsed = lru_cache(maxsize=64)(Format.parse)


def describe_image(stored: Format, weights: int, center: Tensor | None = None) -> dict[str, int]:
    """Return what the kernel has to know of an image: arguments of its read_image()."""
    number, policy, offset, clamps = "integer", "keep", False, False
    if isinstance(stored, FloatFormat):
        number, policy = stored.kind, str(stored.nonfinite)
    elif isinstance(stored, IntegerFormat):
        offset, clamps = stored.offset, stored.clamps
    return {
        "numbers": weights,
        "number": _KERNEL.NUMBERS[number],
        "bits": stored.width,
        "cells": stored.cells,
        "offset": offset,
        "clamps": clamps,
        "nonfinite": _KERNEL.NONFINITE[policy],
        "centers": 0 if center is None else center.data_ptr(),
    }


def _check(
    image: Tensor,
    format: str,
    shape: Sequence[int],
    dtype: torch.dtype,
    scale: Tensor,
    center: Tensor | None,
    axis: int,
    draw: Draw,
) -> Format:
    """Check the arguments: TypeError for a wrong dtype, ValueError for anything else. Return the format."""
    stored, weights = _parsed(format), prod(shape)
    torch._check_with(
        TypeError, dtype in OUTPUTS, lambda: f"output dtype {dtype} must be float32, bfloat16 or float16"
    )
    expected = stored.image_bytes(weights)
    torch._check_value(
        image.dtype == torch.uint8 and list(image.shape) == [expected],
        lambda: (
            f"the {stored.name} image of {weights} weights is uint8 [{expected}], "
            f"not {image.dtype} {list(image.shape)}"
        ),
    )
    check_draw(image.view(torch.int8), draw)
    torch._check_value(
        draw.place[0] % 8 == 0,
        lambda: f"base address {draw.place[0]} is no multiple of 8: an image begins on a 64-bit word",
    )
    torch._check_value(
        -1 <= axis < max(len(shape), 1),
        lambda: f"axis {axis} of weights with {len(shape)} dimensions (-1: one scale)",
    )
    asymmetric = isinstance(stored, IntegerFormat) and stored.asymmetric
    torch._check_value(
        (center is not None) == asymmetric,
        lambda: f"{stored.name} {'needs a' if asymmetric else 'has no'} center",
    )
    channels = 1 if axis < 0 else shape[axis]
    for name, numbers in (("scale", scale), ("center", center)):
        if numbers is not None:
            _check_numbers(name, numbers, channels, image.device)
    return stored


def _check_numbers(name: str, numbers: Tensor, channels: int, device: torch.device) -> None:
    torch._check_with(
        TypeError, numbers.dtype == torch.float32, lambda: f"{name} must be float32, not {numbers.dtype}"
    )
    torch._check_value(
        numbers.device == device, lambda: f"{name} is on {numbers.device}, the image is on {device}"
    )
    torch._check_value(
        numbers.numel() == channels, lambda: f"{name} has {numbers.numel()} numbers, it needs {channels}"
    )


def _prepare(
    image: Tensor,
    format: str,
    shape: Sequence[int],
    dtype: torch.dtype,
    scale: Tensor,
    center: Tensor | None,
    axis: int,
    *common: Any,
) -> Tensor:
    draw = Draw(*common)
    _check(image, format, shape, dtype, scale, center, axis, draw)
    return torch.empty([draw.chips.shape[0], *shape], dtype=dtype, device=image.device)


def _prepare_out(
    image: Tensor, format: str, scale: Tensor, center: Tensor | None, axis: int, *common: Any, out: Tensor
) -> None:
    draw = Draw(*common)
    torch._check_value(
        out.dim() >= 1
        and out.shape[0] == draw.chips.shape[0]
        and out.is_contiguous()
        and out.device == image.device,
        lambda: (
            f"out must be a contiguous tensor [{draw.chips.shape[0]}, ...] on {image.device}, "
            f"not {list(out.shape)} with strides {out.stride()} on {out.device}"
        ),
    )
    _check(image, format, out.shape[1:], out.dtype, scale, center, axis, draw)


def _run(
    image: Tensor, format: str, scale: Tensor, center: Tensor | None, axis: int, draw: Draw, out: Tensor
) -> None:
    stored, weights = _parsed(format), prod(out.shape[1:])
    # Weights of whole bytes may end inside the last word: what follows them has no place in the output.
    used = image if stored.cells < 8 else image[: weights * stored.cells // 8]
    center = None if center is None else center.contiguous()
    launch(
        used.view(torch.int8),
        out,
        draw,
        scale=scale,
        axis=axis,
        image=describe_image(stored, weights, center),
    )


def _corrupt_decode(
    image: Tensor,
    format: str,
    shape: Sequence[int],
    dtype: torch.dtype,
    scale: Tensor,
    center: Tensor | None,
    axis: int,
    *common: Any,
) -> Tensor:
    out = _prepare(image, format, shape, dtype, scale, center, axis, *common)
    _run(image, format, scale, center, axis, Draw(*common), out)
    return out


def _corrupt_decode_out(
    image: Tensor, format: str, scale: Tensor, center: Tensor | None, axis: int, *common: Any, out: Tensor
) -> None:
    _prepare_out(image, format, scale, center, axis, *common, out=out)
    _run(image, format, scale, center, axis, Draw(*common), out)


for _name, _signature, _kernel, _fake in (
    (
        "corrupt_decode",
        "(Tensor image, str format, int[] shape, ScalarType dtype, Tensor scale, Tensor? center, int axis, "
        f"{COMMON}) -> Tensor",
        _corrupt_decode,
        _prepare,
    ),
    (
        "corrupt_decode.out",
        f"(Tensor image, str format, Tensor scale, Tensor? center, int axis, {COMMON}, *, Tensor(a!) out) -> ()",
        _corrupt_decode_out,
        _prepare_out,
    ),
):
    _LIBRARY.define(_name + _signature)
    for _device in ("CPU", "CUDA"):
        _LIBRARY.impl(_name, _kernel, _device)
    torch.library.register_fake(f"faultsim::{_name}", _fake, lib=_LIBRARY)
