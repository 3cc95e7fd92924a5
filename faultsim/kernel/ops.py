"""The kernel as torch operators, with CPU, CUDA and fake kernels.

===================================================  ==========================================================
torch.ops.faultsim                                   result
===================================================  ==========================================================
corrupt(weights, ...)                                int8 [n_chips, *shape]: the weights as each chip reads them
corrupt_(weights, ...)                               the same in place, for one chip
corrupt_dequantize(weights, scale, axis, dtype, ...)  float [n_chips, *shape]: read and multiplied by the scale
corrupt_dequantize.out(..., out=out)                 the same into a contiguous tensor
fault_mask(weights, ...)                             two uint8 [n_chips, *shape]: which cells fail, and their values
===================================================  ==========================================================

All of them read int8 weights in row-major logical order: a strided or channels_last tensor gets the same faults as its
contiguous copy. "..." stands for these arguments:

chips : int64 [n_chips], on the device of the weights
    The bits of each chip's 64-bit seed, from encode_chips().
table : int64 [2 + thresholds], on the device of the weights
    The bit error rate, from encode_rate().
rule : int[2]
    Kind of fault, and the integer probability of value 1 (csrc/fault.h), from encode_kind().
place : int[4]
    Base address, blocks of 4,096 bytes (0: unlimited), word and repeat (sram.AddressMap), from encode_addresses().
offset : int64 [1], on the device of the weights, optional
    Added to every block index.
access : int64 [1], on the device of the weights, optional
    Index of the read (transient faults).

`scale` is float32 and finite: one number (axis -1), or one for each index of `axis`. Tensors are read on the device
when the kernel runs, so a captured CUDA graph draws new chips at each replay once new seeds were copied into `chips`.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ..errors import FaultsimError
from ..faults import Chip, FaultKind, FaultModel
from ..hit_table import build_hit_table, checked_rate
from .native import native
from .op_checks import BASE_END as BASE_END
from .op_checks import FLOATS as FLOATS
from .op_checks import Draw, check_draw, check_scale

_LIBRARY = torch.library.Library("faultsim", "DEF")
COMMON = "Tensor chips, Tensor table, int[2] rule, int[4] place, Tensor? offset=None, Tensor? access=None"
"""Signature of the common arguments."""
_KERNEL = native()

ACCESS_END = 2**32
"""Number of reads of a transient chip."""


# -- encoding of the arguments --------------------------------------------------------------------------------------


def encode_chips(chips: Iterable[Any], device: torch.device | str = "cpu") -> Tensor:
    """Encode chips for the operators.

    Parameters
    ----------
    chips
        Simulated chips, or their seeds.
    device
        Device of the weights.

    Returns
    -------
    Tensor
        int64 [n_chips], the bits of the 64-bit seeds.

    Raises
    ------
    FaultsimError
        For anything else, measured chips included: they have no seed.
    """
    numbers = [(chip if isinstance(chip, Chip) else Chip(chip)).seed for chip in chips]
    return torch.tensor([n - 2**64 if n >= 2**63 else n for n in numbers], dtype=torch.int64, device=device)


@lru_cache(maxsize=256)
def _table_on(rate: float, device: torch.device) -> Tensor:
    table = torch.from_numpy(build_hit_table(rate).view("int64").copy()).to(device)
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()  # the cached tensor may be read from another stream
    return table


def encode_rate(bit_error_rate: float | None, device: torch.device | str = "cpu") -> Tensor:
    """Encode a bit error rate for the operators.

    Parameters
    ----------
    bit_error_rate
        A fraction from 0 to 1.
    device
        Device of the weights.

    Returns
    -------
    Tensor
        int64 [2 + thresholds], see build_hit_table(). It is cached: do not write to it.

    Raises
    ------
    FaultsimError
        For a rate outside [0, 1].
    """
    device = torch.device(device)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    return _table_on(checked_rate(bit_error_rate), device)


def encode_kind(faults: FaultModel) -> list[int]:
    """Encode what a failing cell does: the kernel's number of the kind, and the integer probability of value 1."""
    match faults.kind:
        case FaultKind.FLIP:
            kind, probability = "flip", 0.0
        case FaultKind.STUCK_AT_RANDOM:
            kind, probability = "stuck", faults.polarity
        case FaultKind.STUCK_AT_0:
            kind, probability = "stuck", 0.0
        case FaultKind.STUCK_AT_1:
            kind, probability = "stuck", 1.0
        case FaultKind.TRANSIENT:
            kind, probability = "transient", faults.read_error
    return [_KERNEL.KINDS[kind], round(probability * _KERNEL.CERTAIN[kind])]


def encode_addresses(faults: FaultModel, base: int = 0) -> list[int]:
    """Encode where weights lie: the address of the first of them, and the memory's address map."""
    addresses = faults.memory.address_map
    return [base, addresses.blocks, addresses.word, addresses.repeat]


def encode_access(access: int, device: torch.device | str = "cpu") -> Tensor | None:
    """Encode which read it is, 0 to ACCESS_END - 1: int64 [1], or None for the first one."""
    return torch.tensor([access], device=device) if access else None


# -- the vector path of the CPU -------------------------------------------------------------------------------------

_cpu_path: ContextVar[str | None] = ContextVar("faultsim_cpu_path", default=None)


def list_cpu_paths() -> list[str]:
    """List the vector paths that this processor can run, best first. The operators use the first one."""
    paths: list[str] = _KERNEL.cpu_paths()
    return paths


def find_cpu_path() -> str:
    """Return the vector path that this thread's operators use."""
    return _cpu_path.get() or list_cpu_paths()[0]


@contextmanager
def use_cpu_path(path: str) -> Iterator[None]:
    """Run the operators on one vector path of the CPU, in this thread and within the `with` block.

    All paths give the same bits: this is for tests and benchmarks.

    Parameters
    ----------
    path
        One of list_cpu_paths().

    Raises
    ------
    FaultsimError
        For a path that this processor cannot run.
    """
    if path not in list_cpu_paths():
        raise FaultsimError(
            f"this processor has no vector path {path!r}: it has {', '.join(list_cpu_paths())}"
        )
    token = _cpu_path.set(path)
    try:
        yield
    finally:
        _cpu_path.reset(token)


# -- launch ---------------------------------------------------------------------------------------------------------


def launch(
    weights: Tensor,
    output: Tensor,
    draw: Draw,
    *,
    value: Tensor | None = None,
    scale: Tensor | None = None,
    axis: int = -1,
    image: Mapping[str, int] | None = None,
    cells: Mapping[str, int] | None = None,
) -> None:
    """Run the kernel on tensors that exist, without checks: what the operators do once they have checked.

    Parameters
    ----------
    weights
        int8 [*shape].
    output
        Contiguous [n_chips, *shape]: int8 (for one chip it can be the contiguous `weights` themselves), one of FLOATS,
        or uint8 for the mask of failing cells.
    draw
        Which faults are drawn.
    value
        With a mask only: uint8 [n_chips, *shape], contiguous, for the values of the failing cells.
    scale, axis
        With a float output only: as of corrupt_dequantize.
    image
        If `weights` are the bytes of an image in a format: what the kernel's read_image() wants to know of it.
    cells
        On CPUs: the failing cells of a measured chip, as the kernel's read_cells() takes them. `draw` is then one of
        stuck cells at a rate of 0.
    """
    # Contiguous copies live in this frame until the launch returns; on a GPU the caching allocator orders their reuse
    # behind the kernel, on the same stream.
    weights = weights.contiguous()
    draw = draw._replace(chips=draw.chips.contiguous(), table=draw.table.contiguous())
    scale = None if scale is None else scale.contiguous()
    job = make_job(weights, output, draw, value=value, scale=scale, axis=axis, image=image)
    if cells is not None:
        job.read_cells(**cells)
    if weights.device.type == "cuda":
        index = weights.device.index
        _KERNEL.launch_cuda(job, index, torch.cuda.current_stream(index).cuda_stream)
    else:
        _KERNEL.launch_cpu(job, torch.get_num_threads(), find_cpu_path())


def make_job(
    weights: Tensor,
    output: Tensor,
    draw: Draw,
    *,
    value: Tensor | None = None,
    scale: Tensor | None = None,
    axis: int = -1,
    image: Mapping[str, int] | None = None,
) -> Any:
    """Return the kernel's description of a launch(); its tensors are contiguous, and the caller keeps them."""
    run = 1
    if axis >= 0:
        for size in output.shape[axis + 2 :]:
            run *= size
    job = _KERNEL.Job(
        source=weights.data_ptr(),
        output=output.data_ptr(),
        value=0 if value is None else value.data_ptr(),
        weights=weights.numel(),
        chips=draw.chips.numel(),
        type=_OUTPUTS[output.dtype],
        scales=0 if scale is None else scale.data_ptr(),
        scale_count=0 if scale is None else scale.numel(),
        scale_run=max(run, 1),
        table=draw.table.data_ptr(),
        thresholds=draw.table.numel() - 2,
        kind=draw.rule[0],
        ones=draw.rule[1],
        base=draw.place[0],
        blocks=draw.place[1],
        word=draw.place[2],
        repeat=draw.place[3],
        seeds=draw.chips.data_ptr(),
        block_offset=0 if draw.offset is None else draw.offset.data_ptr(),
        access=0 if draw.access is None else draw.access.data_ptr(),
    )
    if image is not None:
        job.read_image(**image)
    return job


_OUTPUTS = {
    torch.uint8 if name == "mask" else getattr(torch, name): number
    for name, number in _KERNEL.OUTPUTS.items()
}


# -- operators ------------------------------------------------------------------------------------------------------
#
# Each one has a first half that checks and allocates: it is the fake kernel. The real one then launches. `common` are
# the arguments of Draw.


def _prepare_corrupt(weights: Tensor, *common: Any) -> Tensor:
    draw = Draw(*common)
    check_draw(weights, draw)
    return weights.new_empty([draw.chips.shape[0], *weights.shape])


def _corrupt(weights: Tensor, *common: Any) -> Tensor:
    output = _prepare_corrupt(weights, *common)
    launch(weights, output, Draw(*common))
    return output


def _prepare_corrupt_in_place(weights: Tensor, *common: Any) -> None:
    draw = Draw(*common)
    check_draw(weights, draw)
    torch._check_value(
        draw.chips.numel() == 1, lambda: f"in place there can be one chip only, not {draw.chips.numel()}"
    )


def _corrupt_in_place(weights: Tensor, *common: Any) -> None:
    _prepare_corrupt_in_place(weights, *common)
    dense = weights.contiguous()
    launch(dense, dense, Draw(*common))
    if dense is not weights:
        weights.copy_(dense)


def _prepare_dequantize(
    weights: Tensor, scale: Tensor, axis: int, dtype: torch.dtype, *common: Any
) -> Tensor:
    draw = Draw(*common)
    check_draw(weights, draw)
    check_scale(weights, scale, axis, dtype)
    return torch.empty([draw.chips.shape[0], *weights.shape], dtype=dtype, device=weights.device)


def _corrupt_dequantize(
    weights: Tensor, scale: Tensor, axis: int, dtype: torch.dtype, *common: Any
) -> Tensor:
    output = _prepare_dequantize(weights, scale, axis, dtype, *common)
    launch(weights, output, Draw(*common), scale=scale, axis=axis)
    return output


def _prepare_dequantize_out(weights: Tensor, scale: Tensor, axis: int, *common: Any, out: Tensor) -> None:
    draw = Draw(*common)
    check_draw(weights, draw)
    check_scale(weights, scale, axis, out.dtype)
    expected = [draw.chips.shape[0], *weights.shape]
    torch._check_value(
        list(out.shape) == expected and out.is_contiguous() and out.device == weights.device,
        lambda: (
            f"out must be a contiguous tensor {expected} on {weights.device}, "
            f"not {list(out.shape)} with strides {out.stride()} on {out.device}"
        ),
    )


def _corrupt_dequantize_out(weights: Tensor, scale: Tensor, axis: int, *common: Any, out: Tensor) -> None:
    _prepare_dequantize_out(weights, scale, axis, *common, out=out)
    launch(weights, out, Draw(*common), scale=scale, axis=axis)


def _prepare_fault_mask(weights: Tensor, *common: Any) -> tuple[Tensor, Tensor]:
    draw = Draw(*common)
    check_draw(weights, draw)
    fail = torch.empty([draw.chips.shape[0], *weights.shape], dtype=torch.uint8, device=weights.device)
    return fail, torch.empty_like(fail)


def _fault_mask(weights: Tensor, *common: Any) -> tuple[Tensor, Tensor]:
    fail, value = _prepare_fault_mask(weights, *common)
    launch(weights, fail, Draw(*common), value=value)
    return fail, value


for _name, _signature, _kernel, _fake in (
    ("corrupt", f"(Tensor weights, {COMMON}) -> Tensor", _corrupt, _prepare_corrupt),
    ("corrupt_", f"(Tensor(a!) weights, {COMMON}) -> ()", _corrupt_in_place, _prepare_corrupt_in_place),
    (
        "corrupt_dequantize",
        f"(Tensor weights, Tensor scale, int axis, ScalarType dtype, {COMMON}) -> Tensor",
        _corrupt_dequantize,
        _prepare_dequantize,
    ),
    (
        "corrupt_dequantize.out",
        f"(Tensor weights, Tensor scale, int axis, {COMMON}, *, Tensor(a!) out) -> ()",
        _corrupt_dequantize_out,
        _prepare_dequantize_out,
    ),
    ("fault_mask", f"(Tensor weights, {COMMON}) -> (Tensor, Tensor)", _fault_mask, _prepare_fault_mask),
):
    _LIBRARY.define(_name + _signature)
    for _device in ("CPU", "CUDA"):
        _LIBRARY.impl(_name, _kernel, _device)
    torch.library.register_fake(f"faultsim::{_name}", _fake, lib=_LIBRARY)
