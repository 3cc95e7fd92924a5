"""Which tensors of a model lie where in the faulty memory, which do not, and the share of the weights that do."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .faults import FaultModel
from .formats import INT8, AnyFormat, Format, as_format
from .network.inventory import LeftOut
from .sram import BLOCK_BYTES, SRAM, WORD_BYTES
from .support.text_table import align_columns, format_html

_STORED = ("weight", "shape", "bytes", "arrays", "address")
_LEFT_OUT = ("not in the memory", "shape", "why")


@dataclass(frozen=True)
class Share:
    """How many weights of a model can fail: its weights are all matrices, and what else was selected."""

    stored: int
    """Weights in the faulty memory."""
    weights: int
    """All weights of the model."""

    @property
    def fraction(self) -> float:
        """Stored weights over all weights."""
        return self.stored / self.weights if self.weights else 1.0

    def __str__(self) -> str:
        part = "" if self.stored == self.weights else f" ({100 * self.fraction:.1f} %)"
        return f"{self.stored:,} of {self.weights:,} weights{part} lie in the faulty memory"

    def as_dict(self) -> dict[str, int | float]:
        """Return JSON values."""
        return {"stored": self.stored, "weights": self.weights, "share": self.fraction}


@dataclass(frozen=True)
class Stored:
    """One tensor in the memory."""

    names: tuple[str, ...]
    """Its names in the model; more than one where modules share it."""
    shape: tuple[int, ...]
    """Its shape."""
    bytes: int
    """Bytes of memory: one for each int8 weight, else whole words."""
    address: int
    """Address of the first byte."""
    arrays: tuple[tuple[int, int], ...]
    """Ranges, first and last, of the SRAM arrays that it touches."""


@dataclass(frozen=True)
class Summary:
    """All tensors of a model: a table, when it is printed or shown in a notebook."""

    stored: tuple[Stored, ...]
    """What lies in the memory, in the order of the addresses."""
    left_out: tuple[LeftOut, ...]
    """What does not, and why."""
    share: Share
    """How many of the weights can fail."""
    placement: str
    """How weights lie in the memory."""
    format: Format = INT8
    """What a stored weight is."""

    @property
    def words(self) -> int:
        """64-bit words of memory."""
        return sum(-(-tensor.bytes // WORD_BYTES) for tensor in self.stored)

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values; `format` and `words` only where weights are not int8."""
        other = {} if self.format == INT8 else {"format": self.format.name, "words": self.words}
        return {
            "share": self.share.as_dict(),
            "placement": self.placement,
            **other,
            "bytes": sum(tensor.bytes for tensor in self.stored),
            "stored": [asdict(tensor) for tensor in self.stored],
            "not_stored": [{**asdict(tensor), "count": tensor.count} for tensor in self.left_out],
        }

    def __str__(self) -> str:
        return self.text()

    def text(self, everything: bool = False) -> str:
        """Return the table as text.

        Parameters
        ----------
        everything
            Also list biases, normalization and the like by name; otherwise they are counted by reason.
        """
        lines = align_columns(_STORED, self._stored_rows, right=(2, 4))
        if self.left_out:
            lines += ["", *align_columns(_LEFT_OUT, self._left_out_rows(everything))]
        return "\n".join([*lines, "", self._note])

    def _repr_html_(self) -> str:
        """Show both tables in a notebook."""
        tables = format_html(_STORED, self._stored_rows, (2, 4), self._note)
        return tables + (format_html(_LEFT_OUT, self._left_out_rows(False)) if self.left_out else "")

    @property
    def _note(self) -> str:
        note = f"{self.share}; placement {self.placement}"
        if self.format == INT8:
            return note
        count = sum(tensor.bytes for tensor in self.stored)
        return f"{note}; {count:,} bytes, {self.words:,} words of 64 bits\n{self.format.describe()}"

    @property
    def _stored_rows(self) -> list[tuple[str, ...]]:
        return [
            (
                " = ".join(tensor.names),
                _shape(tensor.shape),
                f"{tensor.bytes:,}",
                ", ".join(f"{first}-{last}" if last > first else f"{first}" for first, last in tensor.arrays),
                f"{tensor.address:,}",
            )
            for tensor in self.stored
        ]

    def _left_out_rows(self, everything: bool) -> list[tuple[str, ...]]:
        listed = [tensor for tensor in self.left_out if everything or tensor.matrix]
        others: dict[str, list[int]] = {}
        for tensor in self.left_out:
            if tensor not in listed:
                others.setdefault(tensor.reason, []).append(tensor.count)
        rows: list[tuple[str, ...]] = [
            (tensor.name, _shape(tensor.shape), tensor.reason) for tensor in listed
        ]
        rows += [
            (f"{len(counts)} tensor{'s' if len(counts) > 1 else ''}", f"{sum(counts):,} in all", reason)
            for reason, counts in others.items()
        ]
        return rows


def measure_share(stored: Iterable[int], left_out: Iterable[LeftOut]) -> Share:
    """Return the share of weights that can fail, from the sizes of the stored tensors and what was left out."""
    inside = sum(stored)
    return Share(inside, inside + sum(tensor.count for tensor in left_out if tensor.matrix))


def summarize(
    tensors: Sequence[tuple[Sequence[str], Sequence[int]]],
    left_out: Sequence[LeftOut],
    faults: FaultModel | None = None,
    format: AnyFormat = INT8,
) -> Summary:
    """Lay tensors out in a memory.

    Parameters
    ----------
    tensors
        (names, shape) of each, in their order in the memory.
    left_out
        Tensors of the model that are not stored.
    faults
        Its memory says where the tensors lie. Default: the paper's memory, every weight in cells of its own.
    format
        What a stored weight is, or its name.
    """
    memory, held = (faults or FaultModel()).memory, as_format(format)
    counts = [_size(shape) for _, shape in tensors]
    sizes = counts if held == INT8 else [held.image_bytes(count) for count in counts]
    stored = tuple(
        Stored(tuple(names), tuple(shape), size, base, _arrays(memory, base, size))
        for (names, shape), size, base in zip(tensors, sizes, memory.bases(sizes), strict=True)
    )
    return Summary(stored, tuple(left_out), measure_share(counts, left_out), str(memory.placement), held)


def _size(shape: Sequence[int]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size


def _arrays(memory: SRAM, base: int, size: int) -> tuple[tuple[int, int], ...]:
    """Return the ranges of SRAM arrays that `size` weights from an address on touch."""
    layout, array = memory.address_map, memory.array.bytes
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
