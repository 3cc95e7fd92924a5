"""Weights of each format, read and decoded in one pass, beside a copy of as many bytes."""

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import torch

from ..errors import FaultsimError
from ..faults import FaultModel
from ..formats import Format
from ..formats.operators import describe_image
from ..kernel import ops
from .kernel import WEIGHTS
from .timing import Times, time_rivals

RATE = 1e-3
CASES = (
    ("int8", torch.float32),
    ("int4", torch.float32),
    ("float32", torch.float32),
    ("float32-zero", torch.float32),
    ("float32-clamp", torch.float32),
    ("bfloat16", torch.bfloat16),
    ("bfloat16-clamp", torch.bfloat16),
    ("float16", torch.float16),
    ("bfloat16", torch.float32),
    ("bfloat16-zero", torch.float32),
    ("bfloat16-clamp", torch.float32),
    ("float16", torch.float32),
    ("float8_e4m3fn", torch.float32),
    ("float8_e5m2", torch.float32),
)
"""Formats, and what they are decoded to."""
_CHECKED = 3 * 4096 + 1000  # weights whose bits are compared before anything is timed


@dataclass(frozen=True)
class FormatRow:
    """Reads of one format."""

    operation: str
    """ "decode": corrupt and decode in one pass; "corrupt": the memory's bytes alone."""
    format: str
    """Of the stored weights."""
    output: str
    """Type of the result; "bytes" for "corrupt"."""
    path: str
    """Vector path of the CPU, or "cuda"."""
    weights: int
    stored_bytes: int
    """Bytes of the memory image."""
    milliseconds: float
    """The shortest call, on a CPU in processor time: others meet other work of the machine."""
    copy: float
    """The shortest copy of as many bytes as the result has, in milliseconds, measured in turn with it."""
    ratio: float
    """copy / milliseconds: 1 is as fast."""


class FormatBench:
    """Reads of random weights of one format by one chip.

    Parameters
    ----------
    name : str
        Format.
    weights : int
        How many.
    output : torch.dtype
        What they are decoded to; torch.int8: the bytes alone.
    device : torch.device
        Where.
    """

    def __init__(self, name: str, weights: int, output: torch.dtype, device: torch.device) -> None:
        self.format, self.weights, self.raw = Format.parse(name), weights, output == torch.int8
        generator = torch.Generator(device).manual_seed(0)
        weight = torch.randn(weights, generator=generator, device=device)
        self.codes, self.grid = self.format.encode(weight)
        self.image = self.format.pack(self.codes).view(torch.int8)
        self.output = torch.zeros(1, self.image.numel() if self.raw else weights, dtype=output, device=device)
        self.draw = ops.Draw(
            ops.encode_chips([7], device),
            ops.encode_rate(RATE, device),
            ops.encode_kind(FaultModel()),
            ops.encode_addresses(FaultModel()),
        )

    def call(self) -> None:
        """Read the weights once."""
        if self.raw:
            ops.launch(self.image, self.output, self.draw)
            return
        used = self.weights * self.format.cells // 8 if self.format.cells >= 8 else self.image.numel()
        about = describe_image(self.format, self.weights)
        ops.launch(self.image[:used], self.output, self.draw, scale=self.grid.scale, image=about)

    def copy(self) -> Callable[[], object]:
        """Return a copy of as many bytes into the same memory."""
        source = torch.ones_like(self.output)  # written, so that each page has memory of its own
        return lambda: self.output.copy_(source)

    def check(self) -> None:
        """Compare the result with three passes: corrupt, unpack, decode. Raises FaultsimError where they disagree."""
        self.call()
        read = torch.ops.faultsim.corrupt(self.image, *self.draw)
        if self.raw:
            same = torch.equal(self.output, read)
        else:
            expected = self.format.decode(
                self.format.unpack(read, [self.weights]), self.grid, self.output.dtype
            )
            same = torch.equal(self.output.view(torch.uint8), expected.view(torch.uint8))
        if not same:
            raise FaultsimError(f"{self.format} and its three passes disagree: nothing was timed")


def time_formats(
    device: torch.device, weights: int = WEIGHTS, seconds: float = 1.0, path: str | None = None
) -> Iterator[FormatRow]:
    """Time reads of each format on one thread, at a bit error rate of 1e-3.

    Parameters
    ----------
    device : torch.device
        Where.
    weights : int
        Weights of the buffer.
    seconds : float
        How long each format is repeated.
    path : str, optional
        Vector path of the CPU. Default: the best one.

    Yields
    ------
    FormatRow
        First int8 and int4 as bytes alone, int4 with as many bytes and with as many weights; then all CASES.

    Raises
    ------
    FaultsimError
        Where one pass and three disagree.
    """
    cases: list[tuple[str, int, torch.dtype]] = [
        ("int8", weights, torch.int8),
        ("int4", 2 * weights, torch.int8),
        ("int4", weights, torch.int8),
        *((name, weights, output) for name, output in CASES),
    ]
    where = "cuda" if device.type == "cuda" else path or ops.list_cpu_paths()[0]
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with nullcontext() if where == "cuda" else ops.use_cpu_path(where):
            for name, count, output in cases:
                FormatBench(name, min(count, _CHECKED), output, device).check()
                bench = FormatBench(name, count, output, device)
                copy, read = time_rivals(
                    [bench.copy(), bench.call],
                    device=device,
                    seconds=seconds,
                    graphs=True,
                    clock=time.thread_time,
                )
                yield _make_row(bench, where, _least(read), _least(copy))
    finally:
        torch.set_num_threads(before)


def _least(times: Times) -> float:
    return 1e3 * min(times.samples)


def _make_row(bench: FormatBench, path: str, read: float, copy: float) -> FormatRow:
    return FormatRow(
        "corrupt" if bench.raw else "decode",
        bench.format.name,
        "bytes" if bench.raw else str(bench.output.dtype).removeprefix("torch."),
        path,
        bench.weights,
        bench.image.numel(),
        read,
        copy,
        copy / read,
    )
