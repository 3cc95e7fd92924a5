"""Which tensors lie where in the memory, what doesn't lie there, and the share of the weights that does."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from .faults import FaultModel
from .inventory import LeftOut
from .sram import BLOCK_BYTES, SRAM


@dataclass(frozen=True)
class Share:
    """How many weights of a model can fail: all matrices, and what else was selected, are its weights."""

    stored: int  #: weights in the faulty memory
    weights: int

    @property
    def fraction(self) -> float:
        return self.stored / self.weights if self.weights else 1.0

    def __str__(self) -> str:
        part = "" if self.stored == self.weights else f" ({100 * self.fraction:.1f} %)"
        return f"{self.stored:,} of {self.weights:,} weights{part} lie in the faulty memory"

    def as_dict(self) -> dict[str, int | float]:
        """For JSON."""
        return {"stored": self.stored, "weights": self.weights, "share": self.fraction}


@dataclass(frozen=True)
class Stored:
    """One tensor of the memory."""

    names: tuple[str, ...]  #: more than one where modules share it
    shape: tuple[int, ...]
    bytes: int  #: one a weight
    address: int  #: of the first weight
    arrays: tuple[tuple[int, int], ...]  #: ranges, first and last, of the SRAM arrays that it touches


@dataclass(frozen=True)
class Summary:
    """All tensors of a model; printed it is a table."""

    stored: tuple[Stored, ...]
    left_out: tuple[LeftOut, ...]
    share: Share
    placement: str

    def as_dict(self) -> dict:
        """For JSON."""
        return {
            "share": self.share.as_dict(),
            "placement": self.placement,
            "bytes": sum(tensor.bytes for tensor in self.stored),
            "stored": [asdict(tensor) for tensor in self.stored],
            "not_stored": [{**asdict(tensor), "count": tensor.count} for tensor in self.left_out],
        }

    def __str__(self) -> str:
        return self.text()

    def text(self, everything: bool = False) -> str:
        """A table. What isn't stored and isn't a matrix of weights is counted by reason, or, with `everything`, listed
        by name too."""
        lines = _aligned(
            ("weight", "shape", "bytes", "arrays", "address"),
            [
                (
                    " = ".join(tensor.names),
                    _shape(tensor.shape),
                    f"{tensor.bytes:,}",
                    ", ".join(
                        f"{first}-{last}" if last > first else f"{first}" for first, last in tensor.arrays
                    ),
                    f"{tensor.address:,}",
                )
                for tensor in self.stored
            ],
            right=(2, 4),
        )
        listed = [tensor for tensor in self.left_out if everything or tensor.matrix]
        others: dict[str, list[int]] = {}
        for tensor in self.left_out:
            if tensor not in listed:
                others.setdefault(tensor.reason, []).append(tensor.count)
        if self.left_out:
            rows = [(tensor.name, _shape(tensor.shape), tensor.reason) for tensor in listed]
            rows += [
                (f"{len(counts)} tensor{'s' if len(counts) > 1 else ''}", f"{sum(counts):,} in all", reason)
                for reason, counts in others.items()
            ]
            lines += ["", *_aligned(("not in the memory", "shape", "why"), rows)]
        return "\n".join([*lines, "", f"{self.share}; placement {self.placement}"])


def share(stored: Iterable[int], left_out: Iterable[LeftOut]) -> Share:
    """From the numbers of weights of what is stored, and what isn't."""
    inside = sum(stored)
    return Share(inside, inside + sum(tensor.count for tensor in left_out if tensor.matrix))


def summarize(
    tensors: Sequence[tuple[Sequence[str], Sequence[int]]],
    left_out: Sequence[LeftOut],
    faults: FaultModel | None = None,
) -> Summary:
    """`tensors` are (names, shape), in their order in the memory of `faults`."""
    memory = (faults or FaultModel()).memory
    sizes = [_size(shape) for _, shape in tensors]
    stored = tuple(
        Stored(tuple(names), tuple(shape), size, base, _arrays(memory, base, size))
        for (names, shape), size, base in zip(tensors, sizes, memory.bases(sizes), strict=True)
    )
    return Summary(stored, tuple(left_out), share(sizes, left_out), str(memory.placement))


def _size(shape: Sequence[int]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size


def _arrays(memory: SRAM, base: int, size: int) -> tuple[tuple[int, int], ...]:
    """Ranges of the arrays that `size` weights from an address on touch."""
    layout, array = memory.layout, memory.array.bytes
    if not size:
        return ()
    run = layout.word * layout.repeat
    if layout.repeat > 1:  # a run of weights shares one word
        base, size = (
            base // run * layout.word,
            -(-(base + size) // run) * layout.word - base // run * layout.word,
        )
    capacity = layout.blocks * BLOCK_BYTES
    if not capacity:
        return ((base // array, (base + size - 1) // array),)
    last = -(-capacity // array) - 1
    if size >= capacity:
        return ((0, last),)
    start = base % capacity
    end = start + size - 1
    if end < capacity:
        return ((start // array, end // array),)
    return ((start // array, last), (0, (end - capacity) // array))


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "-"


def _aligned(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Lines of columns, as wide as they have to be: names are never cut."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    return [
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (header, *rows)
    ]
