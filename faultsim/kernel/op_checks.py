"""What the operators of faultsim.kernel.ops accept.

Real and fake kernels check the same, so that tracing refuses whatever the kernel would refuse.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..sram import BLOCK_BYTES
from .native import native

_KERNEL = native()

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
"""Output types of corrupt_dequantize."""
BASE_END: int = _KERNEL.MOST_BASE
"""The largest base address."""


class Draw(NamedTuple):
    """The common arguments of the operators, see faultsim.kernel.ops: which faults are drawn."""

    chips: Tensor
    table: Tensor
    rule: Sequence[int]
    place: Sequence[int]
    offset: Tensor | None = None
    access: Tensor | None = None


def check_draw(weights: Tensor, draw: Draw) -> None:
    """Check the common arguments: TypeError for a wrong dtype, ValueError for anything else."""
    chips, table = draw.chips, draw.table
    torch._check_with(
        TypeError, weights.dtype == torch.int8, lambda: f"weights must be int8, not {weights.dtype}"
    )
    torch._check_value(
        chips.dim() == 1, lambda: f"chips must be a list of seeds, not of shape {list(chips.shape)}"
    )
    torch._check_value(table.dim() == 1 and table.numel() >= 2, lambda: "table must come from encode_rate()")
    for name in ("chips", "table", "offset", "access"):
        tensor: Tensor | None = getattr(draw, name)
        if tensor is not None:
            _check_index(name, tensor, weights.device, single=name in ("offset", "access"))
    _check_rule(draw.rule)
    _check_place(draw.place)


def _check_index(name: str, tensor: Tensor, device: torch.device, single: bool) -> None:
    torch._check_with(
        TypeError, tensor.dtype == torch.int64, lambda: f"{name} must be int64, not {tensor.dtype}"
    )
    torch._check_value(
        tensor.device == device,
        lambda: f"{name} is on {tensor.device}, the weights are on {device}: move one of them",
    )
    torch._check_value(
        not single or tensor.numel() == 1, lambda: f"{name} must hold one number, not {tensor.numel()}"
    )


def _check_rule(rule: Sequence[int]) -> None:
    torch._check_value(
        len(rule) == 2, lambda: f"rule {list(rule)} must be a kind and a probability (see encode_kind())"
    )
    names = {number: name for name, number in _KERNEL.KINDS.items()}
    torch._check_value(
        rule[0] in names,
        lambda: (
            f"unknown fault kind {rule[0]}: it can be "
            + ", ".join(f"{number} ({name})" for number, name in names.items())
        ),
    )
    most = _KERNEL.CERTAIN[names[rule[0]]]
    torch._check_value(
        0 <= rule[1] <= most,
        lambda: f"probability of a value {rule[1]}: it is below zero or above one, {most}",
    )


def _check_place(place: Sequence[int]) -> None:
    """As csrc/bindings.cpp does, which fake tensors never reach."""
    torch._check_value(
        len(place) == 4,
        lambda: f"place {list(place)} must be base, blocks, word and repeat (see encode_addresses())",
    )
    base, blocks, word, repeat = place
    torch._check_value(
        0 <= base <= BASE_END, lambda: f"base address {base} must be from 0 to {BASE_END:,} (2**43)"
    )
    torch._check_value(blocks >= 0, lambda: f"{blocks} blocks of memory: it must be 0 (unlimited) or more")
    torch._check_value(
        1 <= repeat <= _KERNEL.MOST_REPEAT,
        lambda: f"repeat {repeat} must be from 1 to {_KERNEL.MOST_REPEAT}",
    )
    torch._check_value(
        repeat == 1 or (word >= _KERNEL.LEAST_REPEATED_WORD and BLOCK_BYTES % word == 0),
        lambda: (
            f"a repeated word of {word} bytes must be {_KERNEL.LEAST_REPEATED_WORD} or more, a divisor of the "
            f"block's {BLOCK_BYTES}"
        ),
    )


def check_scale(weights: Tensor, scale: Tensor, axis: int, dtype: torch.dtype) -> None:
    """Check the arguments of corrupt_dequantize."""
    torch._check_with(
        TypeError, dtype in FLOATS, lambda: f"output dtype {dtype} must be float32, bfloat16 or float16"
    )
    torch._check_with(
        TypeError, scale.dtype == torch.float32, lambda: f"scale must be float32, not {scale.dtype}"
    )
    torch._check_value(
        scale.device == weights.device,
        lambda: f"scale is on {scale.device}, the weights are on {weights.device}",
    )
    torch._check_value(
        -1 <= axis < max(weights.dim(), 1),
        lambda: f"axis {axis} of weights with {weights.dim()} dimensions (-1: one scale)",
    )
    expected = 1 if axis < 0 else weights.shape[axis]
    torch._check_value(
        scale.numel() == expected, lambda: f"scale has {scale.numel()} numbers, axis {axis} needs {expected}"
    )
