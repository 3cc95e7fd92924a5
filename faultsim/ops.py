"""The kernel as torch operators: torch.ops.faultsim.{corrupt, corrupt_, corrupt_dequantize, corrupt_dequantize_out,
fault_mask}, with CPU, CUDA and fake kernels.

All of them read int8 weights in row-major logical order (a strided or channels_last tensor gets the same faults as its
contiguous copy) and share these arguments:

    chips    int64 [n_chips], on the device of the weights: the bits of each chip's 64-bit seed
    table    int64 [2 + thresholds], on the device of the weights: draw_table() of the bit error rate
    rule     int[2]: kind (0 flip, 1 stuck, 2 transient) and the integer probability of state 1 (csrc/fault.h)
    place    int[4]: base address, blocks of 4,096 bytes (0: no end), word, repeat (faultsim.sram.Layout)
    scale    float32, finite, one number or one for each index of `axis` (-1: one number)
    offset   optional int64 [1], on the device: added to every array index
    access   optional int64 [1], on the device: index of the read (transient faults)

Chips, table, offset and access are read on the device when the kernel runs, so a captured CUDA graph draws new chips at
each replay once new seeds were copied into `chips`.
"""

from functools import lru_cache

import torch
from torch import Tensor

from .faults import Chip, FaultKind, FaultModel
from .hit_table import checked_rate, draw_table
from .native import native
from .sram import BLOCK_BYTES

_LIBRARY = torch.library.Library("faultsim", "DEF")
_COMMON = "Tensor chips, Tensor table, int[2] rule, int[4] place, Tensor? offset=None, Tensor? access=None"
_LIBRARY.define(f"corrupt(Tensor weights, {_COMMON}) -> Tensor")
_LIBRARY.define(f"corrupt_(Tensor(a!) weights, {_COMMON}) -> ()")
_LIBRARY.define(
    f"corrupt_dequantize(Tensor weights, Tensor scale, int axis, ScalarType dtype, {_COMMON}) -> Tensor"
)
_LIBRARY.define(
    f"corrupt_dequantize_out(Tensor weights, Tensor scale, int axis, Tensor(a!) out, {_COMMON}) -> ()"
)
_LIBRARY.define(f"fault_mask(Tensor weights, {_COMMON}) -> (Tensor, Tensor)")

_TYPES = {torch.int8: 0, torch.float32: 1, torch.bfloat16: 2, torch.float16: 3, torch.uint8: 4}
FLOATS = (torch.float32, torch.bfloat16, torch.float16)
BASE_END = 2**43
"""The largest base address."""
ACCESS_END = 2**32
"""Reads of a transient chip."""


# -- arguments made from the user's words ---------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _table_on(rate: float, device: torch.device) -> Tensor:
    table = torch.from_numpy(draw_table(rate).view("int64").copy()).to(device)
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()  # the cached tensor may be read from another stream
    return table


def table(bit_error_rate: float, device: torch.device | str = "cpu") -> Tensor:
    """Table of a bit error rate on a device, int64 [2 + thresholds]; cached, not to be written to."""
    device = torch.device(device)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    return _table_on(checked_rate(bit_error_rate), device)


def rule(model: FaultModel) -> list[int]:
    """Kind and integer probability of state 1."""
    match model.kind:
        case FaultKind.FLIP:
            return [0, 0]
        case FaultKind.STUCK_AT_RANDOM:
            return [1, round(model.polarity * 2**33)]
        case FaultKind.STUCK_AT_0:
            return [1, 0]
        case FaultKind.STUCK_AT_1:
            return [1, 2**33]
        case FaultKind.TRANSIENT:
            return [2, round(model.read_error * 2**32)]


def place(model: FaultModel, base: int = 0) -> list[int]:
    """Base address and the memory's layout."""
    layout = model.memory.layout
    return [base, layout.blocks, layout.word, layout.repeat]


def seeds(chips, device: torch.device | str = "cpu") -> Tensor:
    """int64 [n_chips] from Chip objects or their seeds; FaultsimError for what is no seed."""
    numbers = [(chip if isinstance(chip, Chip) else Chip(chip)).seed for chip in chips]
    return torch.tensor([n - 2**64 if n >= 2**63 else n for n in numbers], dtype=torch.int64, device=device)


# -- checks ---------------------------------------------------------------------------------------------------------


def _check(
    weights: Tensor,
    chips: Tensor,
    table: Tensor,
    rule: list[int],
    place: list[int],
    offset: Tensor | None,
    access: Tensor | None,
) -> None:
    torch._check_with(
        TypeError, weights.dtype == torch.int8, lambda: f"weights must be int8, not {weights.dtype}"
    )
    torch._check_value(
        chips.dim() == 1, lambda: f"chips must be a list of seeds, not of shape {list(chips.shape)}"
    )
    torch._check_value(
        table.dim() == 1 and table.numel() >= 2, lambda: "table is no table() of a bit error rate"
    )
    for name, tensor in (("chips", chips), ("table", table), ("offset", offset), ("access", access)):
        if tensor is not None:
            _check_index(name, tensor, weights.device)
    for name, tensor in (("offset", offset), ("access", access)):
        if tensor is not None:
            _check_single(name, tensor)
    _check_rule(rule)
    _check_place(place)


def _check_rule(rule: list[int]) -> None:
    torch._check_value(
        len(rule) == 2, lambda: f"rule {list(rule)} must be a kind and a probability (see rule())"
    )
    torch._check_value(rule[0] in (0, 1, 2), lambda: f"unknown fault kind {rule[0]}: it can be 0, 1 or 2")
    torch._check_value(
        0 <= rule[1] <= 2**33,
        lambda: f"probability of a state {rule[1]}: it is below zero or above one, 2**33",
    )


def _check_place(place: list[int]) -> None:
    """As csrc/bindings.cpp does, which fake tensors never reach."""
    torch._check_value(
        len(place) == 4, lambda: f"place {list(place)} must be base, blocks, word and repeat (see place())"
    )
    base, blocks, word, repeat = place
    torch._check_value(0 <= base <= BASE_END, lambda: f"base address {base} must be from 0 to 2**43")
    torch._check_value(blocks >= 0, lambda: f"{blocks} blocks of memory: 0 (no end) or more are needed")
    torch._check_value(1 <= repeat <= 4096, lambda: f"repeat {repeat} must be from 1 to 4096")
    torch._check_value(
        repeat == 1 or (word >= 16 and BLOCK_BYTES % word == 0),
        lambda: f"a repeated word of {word} bytes must be 16 or more, a divisor of the array's {BLOCK_BYTES}",
    )


def _check_index(name: str, tensor: Tensor, device: torch.device) -> None:
    torch._check_with(
        TypeError, tensor.dtype == torch.int64, lambda: f"{name} must be int64, not {tensor.dtype}"
    )
    torch._check_value(
        tensor.device == device,
        lambda: f"{name} is on {tensor.device}, the weights are on {device}: move one of them",
    )


def _check_single(name: str, tensor: Tensor) -> None:
    torch._check_value(tensor.numel() == 1, lambda: f"{name} must hold one number, not {tensor.numel()}")


def _check_scale(weights: Tensor, scale: Tensor, axis: int, dtype: torch.dtype) -> None:
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


def _check_one(chips: Tensor) -> None:
    torch._check_value(
        chips.numel() == 1, lambda: f"in place there can be one chip only, not {chips.numel()}"
    )


def _check_out(weights: Tensor, chips: Tensor, out: Tensor) -> None:
    expected = [chips.numel(), *weights.shape]
    torch._check_value(
        list(out.shape) == expected and out.is_contiguous() and out.device == weights.device,
        lambda: (
            f"out must be a contiguous tensor {expected} on {weights.device}, "
            f"not {list(out.shape)} with strides {out.stride()} on {out.device}"
        ),
    )


# -- launch ---------------------------------------------------------------------------------------------------------


def _launch(
    weights: Tensor,
    output: Tensor,
    chips: Tensor,
    table: Tensor,
    rule: list[int],
    place: list[int],
    offset: Tensor | None,
    access: Tensor | None,
    states: Tensor | None = None,
    scale: Tensor | None = None,
    axis: int = -1,
    path: str | None = None,
) -> None:
    """All tensors contiguous; they stay alive in the caller's frame until the launch returns, and the caching
    allocator orders their reuse behind the kernel on the same stream."""
    run = 1
    if axis >= 0:
        for size in weights.shape[axis + 1 :]:
            run *= size
    extension = native()
    job = extension.Job(
        source=weights.data_ptr(),
        output=output.data_ptr(),
        states=0 if states is None else states.data_ptr(),
        weights=weights.numel(),
        chips=chips.numel(),
        type=_TYPES[output.dtype],
        scales=0 if scale is None else scale.data_ptr(),
        scale_count=0 if scale is None else scale.numel(),
        scale_run=max(run, 1),
        table=table.data_ptr(),
        thresholds=table.numel() - 2,
        kind=rule[0],
        ones=rule[1],
        base=place[0],
        arrays=place[1],
        word=place[2],
        repeat=place[3],
        seeds=chips.data_ptr(),
        array_offset=0 if offset is None else offset.data_ptr(),
        access=0 if access is None else access.data_ptr(),
    )
    if weights.device.type == "cuda":
        index = weights.device.index
        extension.launch_cuda(job, index, torch.cuda.current_stream(index).cuda_stream)
    else:
        extension.launch_cpu(job, torch.get_num_threads(), path or extension.cpu_paths()[0])


def _corrupt(weights, chips, table, rule, place, offset=None, access=None):
    _check(weights, chips, table, rule, place, offset, access)
    output = weights.new_empty([chips.numel(), *weights.shape])
    _launch(weights.contiguous(), output, chips.contiguous(), table.contiguous(), rule, place, offset, access)
    return output


def _corrupt_in_place(weights, chips, table, rule, place, offset=None, access=None):
    _check(weights, chips, table, rule, place, offset, access)
    _check_one(chips)
    dense = weights.contiguous()
    _launch(dense, dense, chips.contiguous(), table.contiguous(), rule, place, offset, access)
    if dense is not weights:
        weights.copy_(dense)


def _corrupt_dequantize_out(weights, scale, axis, out, chips, table, rule, place, offset=None, access=None):
    _check(weights, chips, table, rule, place, offset, access)
    _check_scale(weights, scale, axis, out.dtype)
    _check_out(weights, chips, out)
    _launch(
        weights.contiguous(),
        out,
        chips.contiguous(),
        table.contiguous(),
        rule,
        place,
        offset,
        access,
        scale=scale.contiguous(),
        axis=axis,
    )


def _corrupt_dequantize(weights, scale, axis, dtype, chips, table, rule, place, offset=None, access=None):
    output = torch.empty([chips.numel(), *weights.shape], dtype=dtype, device=weights.device)
    _corrupt_dequantize_out(weights, scale, axis, output, chips, table, rule, place, offset, access)
    return output


def _fault_mask(weights, chips, table, rule, place, offset=None, access=None):
    _check(weights, chips, table, rule, place, offset, access)
    failing = torch.empty([chips.numel(), *weights.shape], dtype=torch.uint8, device=weights.device)
    states = torch.empty_like(failing)
    dense = weights.contiguous()
    _launch(
        dense, failing, chips.contiguous(), table.contiguous(), rule, place, offset, access, states=states
    )
    return failing, states


for _device in ("CPU", "CUDA"):
    _LIBRARY.impl("corrupt", _corrupt, _device)
    _LIBRARY.impl("corrupt_", _corrupt_in_place, _device)
    _LIBRARY.impl("corrupt_dequantize", _corrupt_dequantize, _device)
    _LIBRARY.impl("corrupt_dequantize_out", _corrupt_dequantize_out, _device)
    _LIBRARY.impl("fault_mask", _fault_mask, _device)


@torch.library.register_fake("faultsim::corrupt", lib=_LIBRARY)
def _(weights, chips, table, rule, place, offset=None, access=None):
    _check(weights, chips, table, rule, place, offset, access)
    return weights.new_empty([chips.shape[0], *weights.shape])


@torch.library.register_fake("faultsim::corrupt_", lib=_LIBRARY)
def _(weights, chips, table, rule, place, offset=None, access=None):
    _check(weights, chips, table, rule, place, offset, access)
    _check_one(chips)


@torch.library.register_fake("faultsim::corrupt_dequantize", lib=_LIBRARY)
def _(weights, scale, axis, dtype, chips, table, rule, place, offset=None, access=None):
    _check(weights, chips, table, rule, place, offset, access)
    _check_scale(weights, scale, axis, dtype)
    return torch.empty([chips.shape[0], *weights.shape], dtype=dtype, device=weights.device)


@torch.library.register_fake("faultsim::corrupt_dequantize_out", lib=_LIBRARY)
def _(weights, scale, axis, out, chips, table, rule, place, offset=None, access=None):
    _check(weights, chips, table, rule, place, offset, access)
    _check_scale(weights, scale, axis, out.dtype)
    _check_out(weights, chips, out)


@torch.library.register_fake("faultsim::fault_mask", lib=_LIBRARY)
def _(weights, chips, table, rule, place, offset=None, access=None):
    _check(weights, chips, table, rule, place, offset, access)
    failing = torch.empty([chips.shape[0], *weights.shape], dtype=torch.uint8, device=weights.device)
    return failing, torch.empty_like(failing)
