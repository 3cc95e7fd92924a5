"""What chips read of one tensor in the memory, where its bits may belong to several voltage domains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .chips.measured_chip import AnyChip, MeasuredChip
from .domains import Domain, Part, split_bits
from .errors import FaultsimError
from .faults import FaultModel
from .formats import INT8, Format
from .kernel import ops

if TYPE_CHECKING:
    from .stored import StoredLayer


def merge_bits(
    stored: Tensor,
    parts: Sequence[Part],
    read: Callable[[Domain | None], Tensor],
    layout: Format,
) -> Tensor:
    """Put together what each domain reads of its bits.

    Parameters
    ----------
    stored
        int8, what the memory holds: bytes of whole words, or weights of the format int8.
    parts
        From split_bits().
    read
        Returns the bytes as read at the voltage of a domain. It is not called for domains that never fail.
    layout
        How weights lie in a word.

    Returns
    -------
    Tensor
        int8, as `read` returns it; in the shape of `stored` where nothing can fail. Cells of several domains that hold
        no weight's bit read 0.
    """
    merged: Tensor | None = None
    for mask, domain in parts:
        found = stored if domain is not None and domain.never_fails else read(domain)
        if mask == (1 << layout.width) - 1:
            return stored.clone() if found is stored else found
        bits = _take_cells(found, layout.find_cells(mask))
        merged = bits if merged is None else merged | bits
    return stored.clone() if merged is None else merged


def _take_cells(image: Tensor, cells: bytes) -> Tensor:
    """Return bytes int8 with 0 in all cells but these of each 64-bit word."""
    if len(set(cells)) == 1:
        return image & (cells[0] - 256 if cells[0] > 127 else cells[0])
    return (image.unflatten(-1, (-1, len(cells))) & _cells_on(cells, image.device)).flatten(-2)


@lru_cache(maxsize=4096)
def _cells_on(cells: bytes, device: torch.device) -> Tensor:
    """Return masks of bytes, int8 [8]. They are cached: a CUDA graph that reads domains again copies nothing."""
    return torch.frombuffer(bytearray(cells), dtype=torch.int8).to(device)


def read_simulated(
    values: Tensor,
    chips: Tensor,
    table: Tensor,
    faults: FaultModel,
    base: int,
    names: tuple[str, ...],
    layout: Format,
    access: Tensor | None = None,
) -> Tensor:
    """Return int8 [chips, *shape], bytes as simulated chips read them; arguments as of `StoredWeights.read`.

    `layout` says how weights lie in a word, for domains of some bits.
    """
    kind, place = ops.encode_kind(faults), ops.encode_addresses(faults, base)

    def read(domain: Domain | None) -> Tensor:
        found: Tensor = torch.ops.faultsim.corrupt(
            values, chips, find_table(domain, table), kind, place, None, access
        )
        return found

    merged = merge_bits(values, split_bits(faults.domains, names, layout.width), read, layout)
    return merged if merged.dim() > values.dim() else merged.expand(chips.numel(), *values.shape)


def read_chips(
    values: Tensor,
    chips: Sequence[AnyChip],
    bit_error_rate: float | None,
    voltage: float | None,
    faults: FaultModel,
    base: int,
    names: tuple[str, ...],
    layout: Format,
    access: int = 0,
) -> Tensor:
    """Return int8 [chips, *shape], bytes as chips read them from an address on; `layout` as of read_simulated.

    The chips are all simulated (at a bit error rate) or all measured (at a voltage).
    """
    if measured := [chip for chip in chips if isinstance(chip, MeasuredChip)]:
        read = [read_measured(values, chip, voltage, faults, base, names, layout) for chip in measured]
        return torch.stack(read)
    seeds = ops.encode_chips(chips, values.device)
    table = ops.encode_rate(bit_error_rate, values.device)
    reads = ops.encode_access(access, values.device)
    return read_simulated(values, seeds, table, faults, base, names, layout, reads)


def read_decoded(
    layer: StoredLayer,
    chips: Tensor,
    table: Tensor,
    faults: FaultModel,
    base: int,
    access: Tensor | None,
    out: Tensor,
) -> None:
    """Write a tensor as simulated chips read it, decoded, into `out` [chips, *shape]."""
    parts = split_bits(faults.domains, layer.tensors, layer.format.width)
    if len(parts) > 1:
        read = read_simulated(layer.image, chips, table, faults, base, layer.tensors, layer.format, access)
        for image, target in zip(read, out, strict=True):
            target.copy_(layer.with_image(image).decode(target.dtype))
        return
    kind, place = ops.encode_kind(faults), ops.encode_addresses(faults, base)
    table = find_table(parts[0][1], table)
    if layer.format == INT8:
        torch.ops.faultsim.corrupt_dequantize.out(
            layer.values, layer.scale, layer.axis, chips, table, kind, place, access=access, out=out
        )
        return
    torch.ops.faultsim.corrupt_decode.out(
        layer.image.view(torch.uint8),
        layer.format.name,
        layer.scale,
        layer.center,
        layer.axis,
        chips,
        table,
        kind,
        place,
        access=access,
        out=out,
    )


def read_measured(
    values: Tensor,
    chip: MeasuredChip,
    voltage: float | None,
    faults: FaultModel,
    base: int,
    names: tuple[str, ...],
    layout: Format,
) -> Tensor:
    """Return an int8 tensor as a measured chip reads it; `layout` as of read_simulated.

    Raises
    ------
    FaultsimError
        For a domain with a bit error rate and no voltage: the fault map says which cells fail at a voltage.
    """

    def read(domain: Domain | None) -> Tensor:
        if domain is not None and domain.voltage is None:
            raise FaultsimError(
                f"domain {domain.name!r} has a bit error rate: a measured chip needs a voltage, for its fault map says "
                "which cells fail at it"
            )
        return chip.read(values, voltage if domain is None else domain.voltage, faults, base)

    return merge_bits(values, split_bits(faults.domains, names, layout.width), read, layout)


def read_measured_decoded(
    layer: StoredLayer,
    chip: MeasuredChip,
    voltage: float | None,
    faults: FaultModel,
    base: int,
    out: Tensor,
) -> None:
    """Write a tensor as a measured chip reads it, decoded, into `out`."""
    parts = split_bits(faults.domains, layer.tensors, layer.format.width)
    if layer.format == INT8 and len(parts) == 1 and parts[0][1] is None:
        chip.read_dequantized(layer.values, layer.scale, layer.axis, out, voltage, faults, base)
        return
    image = read_measured(layer.image, chip, voltage, faults, base, layer.tensors, layer.format)
    out.copy_(layer.with_image(image).decode())


def find_table(domain: Domain | None, table: Tensor) -> Tensor:
    """Return the table of thresholds of a domain's bit error rate; `table` where there is no domain."""
    if domain is None:
        return table
    if domain.bit_error_rate is None and domain.voltage is not None:
        raise FaultsimError(
            f"domain {domain.name!r} has a voltage, and its bit error rate is not known: use faults.resolve(curve)"
        )
    return ops.encode_rate(domain.bit_error_rate or 0.0, table.device)
