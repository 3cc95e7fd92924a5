"""The fault kernel beside a plain copy, or a plain dequantisation, of the same weights in the same run."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from .. import ops, reference
from ..errors import FaultsimError
from ..faults import FaultModel
from ..native import native
from .timing import rivals

RATES = (1e-2, 1e-3, 1e-4)
WEIGHTS = 11_170_000  # ResNet18, rounded as in the study the targets come from
BATCH = 10
CHECKED = 3 * 4096 + 1000  # weights compared with the slow oracle before anything is timed


@dataclass(frozen=True)
class Row:
    """One operation at one bit error rate."""

    operation: str
    beside: str  #: what it is compared with
    path: str  #: vector path of the CPU, or "cuda"
    threads: int
    weights: int
    bit_error_rate: float
    milliseconds: float  #: median of one call
    spread: float  #: half the distance of the quartiles over the median
    gigabytes_per_second: float  #: bytes read and written, once each
    ratio: float  #: time of the plain operation / time of this one: 1 is as fast


def _launcher(
    source: Tensor, output: Tensor, rate: float, model: FaultModel, path: str | None, chips: Tensor, **rest
):
    table, rule, place = ops.table(rate, source.device), ops.rule(model), ops.place(model)
    return lambda: ops._launch(source, output, chips, table, rule, place, None, None, path=path, **rest)


def _check(path: str | None, device: torch.device, model: FaultModel, rate: float) -> None:
    """The first arrays against the oracle, bit for bit."""
    source = torch.from_numpy(np.random.default_rng(1).integers(-128, 128, CHECKED).astype(np.int8))
    output = torch.empty([2, CHECKED], dtype=torch.int8, device=device)
    _launcher(source.to(device), output, rate, model, path, ops.seeds([1, 2], device))()
    kind = {0: "flip", 1: "stuck", 2: "transient"}[ops.rule(model)[0]]
    layout = model.memory.layout
    expected = reference.corrupt(
        source.numpy(), [1, 2], rate, kind, arrays=layout.blocks, word=layout.word, repeat=layout.repeat
    )
    if not np.array_equal(output.cpu().numpy(), expected):
        raise FaultsimError(
            f"the kernel ({path or device}) and the oracle disagree at {rate}: nothing was timed"
        )


def _copy(source: Tensor, output: Tensor, threads: int) -> Callable[[], object]:
    if source.device.type == "cpu" and threads == 1:
        a, b = output.numpy(), source.numpy()
        return lambda: np.copyto(a, b)  # memcpy
    return lambda: output.copy_(source)


def kernel_rows(device: torch.device, weights: int = WEIGHTS, seconds: float = 1.0) -> Iterator[Row]:
    """Every operation at every rate: on a CPU each vector path on one thread and the best one on all threads."""
    if device.type == "cuda":
        yield from _rows(device, None, 1, weights, seconds)
        return
    paths = native().cpu_paths()
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
    generator = torch.Generator().manual_seed(0)
    source = torch.randint(-127, 128, [weights], dtype=torch.int8, generator=generator).to(device)
    flips, old = FaultModel(), FaultModel.preset("neuralfuse_2022")
    stuck = FaultModel("stuck_at_random")
    one, many = ops.seeds([1], device), ops.seeds(range(BATCH), device)
    scale = torch.tensor([0.01], device=device)

    def measure(operation, beside, plain, output, model, chips, **rest):
        for rate in RATES:
            _check(path, device, model, rate)
        calls = [_launcher(source, output, rate, model, path, chips, **rest) for rate in RATES]
        base, *times = rivals([plain, *calls], device=device, seconds=seconds)
        moved = source.nbytes + output.nbytes
        for rate, time in zip(RATES, times, strict=True):
            yield Row(
                operation,
                beside,
                path or "cuda",
                threads,
                weights,
                rate,
                1e3 * time.median,
                time.spread,
                moved / time.median / 1e9,
                base.median / time.median,
            )

    output = torch.zeros([1, weights], dtype=torch.int8, device=device)
    copied = torch.zeros_like(source)
    copy = _copy(source, copied, threads)
    yield from measure("corrupt, flip", "copy", copy, output, flips, one)
    yield from measure("corrupt, stuck_at_random", "copy", copy, output, stuck, one)
    yield from measure("corrupt, neuralfuse_2022", "copy", copy, output, old, one)
    for dtype in ops.FLOATS:
        name = str(dtype).removeprefix("torch.")
        output = torch.zeros([1, weights], dtype=dtype, device=device)
        plain_output = torch.zeros([weights], dtype=dtype, device=device)

        def plain(plain_output=plain_output):
            torch.mul(source, scale, out=plain_output)

        yield from measure(
            f"corrupt_dequantize to {name}", "dequantize", plain, output, flips, one, scale=scale, axis=-1
        )
    batch = torch.zeros([BATCH, weights], dtype=torch.bfloat16, device=device)
    same_bytes = torch.zeros_like(batch)
    yield from measure(
        f"batch of {BATCH} chips to bfloat16",
        "copy of the bytes written",
        _copy(batch, same_bytes, 0),
        batch,
        flips,
        many,
        scale=scale,
        axis=-1,
    )


def rows_as_json(rows: list[Row]) -> list[dict]:
    """For results."""
    return [asdict(row) for row in rows]
