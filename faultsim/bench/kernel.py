"""The fault kernel beside a plain copy, or a plain dequantization, of the same weights in the same run."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import FaultsimError
from ..faults import FaultKind, FaultModel
from ..kernel import ops, reference
from ..kernel.native import native
from .timing import time_rivals

RATES = (1e-2, 1e-3, 1e-4)
WEIGHTS = 11_170_000  # ResNet18, rounded as in the study the targets come from
BATCH = 10
CHECKED = 3 * 4096 + 1000  # weights compared with the slow reference before anything is timed


@dataclass(frozen=True)
class Row:
    """One operation at one bit error rate."""

    operation: str
    beside: str
    """What it is compared with."""
    path: str
    """Vector path of the CPU, or "cuda"."""
    threads: int
    weights: int
    bit_error_rate: float
    milliseconds: float
    """Median of one call."""
    spread: float
    """Half the distance of the quartiles over the median."""
    gigabytes_per_second: float
    """Bytes read and written, once each."""
    ratio: float
    """Time of the plain operation / time of this one: 1 is as fast."""
    target: float | None
    """The ratio to reach; None: no such promise, as on CPUs."""


@dataclass(frozen=True)
class Operation:
    """What is timed: chips read int8 weights under a fault model, into `output`."""

    name: str
    beside: str
    model: FaultModel
    output: torch.dtype = torch.int8
    """torch.uint8: the fault mask itself."""
    chips: int = 1
    in_place: bool = False
    weights: int | None = None
    """Default: as many as the caller says."""
    targets: tuple[float, float, float] | None = None
    """Ratio on a GPU of the H100's kind at each of RATES."""


FLIPS = FaultModel()
OPERATIONS = (
    Operation("corrupt, flip", "copy", FLIPS, targets=(0.5, 0.5, 0.5)),
    Operation("corrupt in place, flip", "copy", FLIPS, in_place=True),
    Operation("corrupt, stuck_at_random", "copy", FaultModel(FaultKind.STUCK_AT_RANDOM)),
    Operation("corrupt, transient", "copy", FaultModel(FaultKind.TRANSIENT)),
    Operation("corrupt, neuralfuse_2022", "copy", FaultModel.preset("neuralfuse_2022")),
    Operation("fault mask, stuck_at_random", "copy", FaultModel(FaultKind.STUCK_AT_RANDOM), torch.uint8),
    *(
        Operation(f"corrupt_dequantize, {str(dtype)[6:]}", beside, FLIPS, dtype)
        for dtype in ops.FLOATS
        for beside in ("torch.mul", "itself at p = 0")
    ),
    Operation(
        f"{BATCH} chips to bfloat16, flip",
        "copy of the output",
        FLIPS,
        torch.bfloat16,
        BATCH,
        targets=(0.75, 0.75, 0.75),
    ),
)
LARGE = Operation("corrupt, flip", "copy", FLIPS, weights=10**9, targets=(0.80, 0.90, 0.93))
"""On a GPU only: more than its cache holds."""


class Bench:
    """One operation on one buffer of weights.

    Parameters
    ----------
    operation : Operation
        What is timed.
    source : Tensor
        Weights, int8.
    path : str, optional
        Vector path of the CPU; None on a GPU.
    """

    def __init__(self, operation: Operation, source: Tensor, path: str | None) -> None:
        self.operation, self.path, self.source = operation, path, source
        device = source.device
        self.chips = ops.encode_chips(range(1, operation.chips + 1), device)
        self.scale = torch.tensor([0.01], device=device)
        shape = [operation.chips, *source.shape]
        self.output = (
            source.clone()
            if operation.in_place
            else torch.zeros(shape, dtype=operation.output, device=device)
        )
        self.value = torch.zeros_like(self.output) if operation.output == torch.uint8 else None

    def call(self, rate: float) -> Callable[[], object]:
        """Return the operation at a bit error rate, without arguments."""
        model = self.operation.model
        table = ops.encode_rate(rate, self.source.device)
        draw = ops.Draw(self.chips, table, ops.encode_kind(model), ops.encode_addresses(model))
        source = self.output if self.operation.in_place else self.source
        scale = self.scale if self.operation.output in ops.FLOATS else None
        return lambda: ops.launch(source, self.output, draw, value=self.value, scale=scale)

    def plain(self, threads: int) -> Callable[[], object]:
        """Return the rival: a copy, torch's dequantization, or this kernel's own without faults."""
        if self.operation.beside == "itself at p = 0":
            return self.call(0.0)
        if self.operation.beside == "torch.mul":
            return lambda: torch.mul(self.source, self.scale, out=self.output[0])
        if self.operation.beside == "copy":
            # into the very memory that the operation writes: other pages can be faster or slower
            place = (
                torch.zeros_like(self.source) if self.operation.in_place else self.output[0].view(torch.int8)
            )
            return _copy(self.source, place, threads)
        return _copy(self.output, torch.zeros_like(self.output), threads)

    @property
    def bytes(self) -> int:
        """Bytes that a call reads and writes, once each."""
        written = self.output.nbytes + (0 if self.value is None else self.value.nbytes)
        return written + (0 if self.value is not None else self.source.nbytes)

    def check(self, rate: float) -> None:
        """Compare the call with the reference, bit for bit. Raises FaultsimError where they disagree."""
        small = Bench(self.operation, self.source[:CHECKED].clone(), self.path)
        small.call(rate)()
        source, seeds = small.source.cpu().numpy(), small.chips.tolist()
        number, _ = ops.encode_kind(self.operation.model)
        (kind,) = (name for name, code in native().KINDS.items() if code == number)
        addresses = self.operation.model.memory.address_map
        where = {"blocks": addresses.blocks, "word": addresses.word, "repeat": addresses.repeat}
        if small.value is not None:
            masks = [reference.fault_mask(source.size, seed, rate, kind, **where) for seed in seeds]
            pairs: list[tuple[Tensor, Any]] = [
                (small.output, [mask for mask, _ in masks]),
                (small.value, [value for _, value in masks]),
            ]
        else:
            expected = reference.corrupt(source, seeds, rate, kind, **where)
            if self.operation.output in ops.FLOATS:
                dtype = str(self.operation.output).removeprefix("torch.")
                expected = reference.dequantize(expected, small.scale.cpu().numpy(), None, dtype)
            pairs = [(small.output, expected)]
        for ours, theirs in pairs:
            if ours.cpu().view(torch.uint8).numpy().tobytes() != np.asarray(theirs).tobytes():
                raise FaultsimError(
                    f"{self.operation.name} ({self.path or 'cuda'}) and the reference disagree at {rate}: "
                    "nothing was timed"
                )


def _copy(source: Tensor, output: Tensor, threads: int) -> Callable[[], object]:
    if source.device.type == "cpu" and threads == 1:
        a, b = output.view(torch.uint8).numpy(), source.view(torch.uint8).numpy()
        return lambda: np.copyto(a, b)  # memcpy
    return lambda: output.copy_(source)


def time_kernel(device: torch.device, weights: int = WEIGHTS, seconds: float = 1.0) -> Iterator[Row]:
    """Time every operation at every bit error rate.

    Parameters
    ----------
    device : torch.device
        On a CPU each vector path runs on one thread, and the best one on all threads. On a GPU a buffer larger than its
        cache is timed too.
    weights : int
        Weights of the buffer.
    seconds : float
        How long each operation is repeated.

    Yields
    ------
    Row
        One operation at one rate.

    Raises
    ------
    FaultsimError
        Where an operation and the reference disagree.
    """
    if device.type == "cuda":
        yield from _rows(device, None, 1, weights, seconds)
        return
    paths = ops.list_cpu_paths()
    before = torch.get_num_threads()
    try:
        for path, threads in [*((path, 1) for path in paths), (paths[0], before)]:
            if threads == 1 and before == 1 and (path, threads) != (path, 1):
                continue
            torch.set_num_threads(threads)
            yield from _rows(device, path, threads, weights, seconds)
    finally:
        torch.set_num_threads(before)


def _rows(
    device: torch.device, path: str | None, threads: int, weights: int, seconds: float
) -> Iterator[Row]:
    cuda = device.type == "cuda"
    operations = (LARGE, *OPERATIONS) if cuda else OPERATIONS
    for size, group in groupby(operations, key=lambda operation: operation.weights or weights):
        generator = torch.Generator(device).manual_seed(0)
        source = torch.randint(-127, 128, [size], dtype=torch.int8, generator=generator, device=device)
        for operation in group:
            bench = Bench(operation, source, path)
            with ops.use_cpu_path(path) if path else nullcontext():
                for rate in RATES:
                    bench.check(rate)
                calls = [bench.plain(threads), *(bench.call(rate) for rate in RATES)]
                base, *times = time_rivals(calls, device=device, seconds=seconds, graphs=True)
            promised = cuda and size == (operation.weights or WEIGHTS)
            targets = (promised and operation.targets) or (None,) * len(RATES)
            for rate, time, target in zip(RATES, times, targets, strict=True):
                yield Row(
                    operation.name,
                    operation.beside,
                    path or "cuda",
                    threads,
                    size,
                    rate,
                    1e3 * time.median,
                    time.spread,
                    bench.bytes / time.median / 1e9,
                    base.median / time.median,
                    target,
                )


def describe_rows(rows: list[Row]) -> list[dict]:
    """Return the rows as JSON values."""
    return [asdict(row) for row in rows]
