"""What chips read of one tensor in the memory, where its bits may belong to several voltage domains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from . import ops
from .domains import WIDTH, Domain, Part, split_word
from .errors import FaultsimError
from .faults import FaultModel
from .formats import INT8, Format
from .measured_chip import AnyChip, MeasuredChip

if TYPE_CHECKING:
    from .stored import StoredLayer


def merge_bits(stored: Tensor, parts: Sequence[Part], read: Callable[[Domain | None], Tensor]) -> Tensor:
    """Put together what each domain reads of its bits.

    Parameters
    ----------
    stored
        int8, what the memory holds.
    parts
        From split_word().
    read
        Returns the words as read at the voltage of a domain. It is not called for domains that never fail.

    Returns
    -------
    Tensor
        int8, as `read` returns it; in the shape of `stored` where nothing can fail.
    """
    merged: Tensor | None = None
    for mask, domain in parts:
        found = stored if domain is not None and domain.never_fails else read(domain)
        if mask == (1 << WIDTH) - 1:
            return stored.clone() if found is stored else found
        bits = found & (mask - 256 if mask > 127 else mask)
        merged = bits if merged is None else merged | bits
    return stored.clone() if merged is None else merged


def read_simulated(
    values: Tensor,
    chips: Tensor,
    table: Tensor,
    faults: FaultModel,
    base: int,
    names: tuple[str, ...],
    access: Tensor | None = None,
) -> Tensor:
    """Return int8 [chips, *shape], a tensor as simulated chips read it; arguments as of `StoredWeights.read`."""
    kind, place = ops.encode_kind(faults), ops.encode_addresses(faults, base)

    def read(domain: Domain | None) -> Tensor:
        found: Tensor = torch.ops.faultsim.corrupt(
            values, chips, find_table(domain, table), kind, place, None, access
        )
        return found

    merged = merge_bits(values, split_word(faults.domains, names), read)
    return merged if merged.dim() > values.dim() else merged.expand(chips.numel(), *values.shape)


def read_chips(
    values: Tensor,
    chips: Sequence[AnyChip],
    bit_error_rate: float | None,
    voltage: float | None,
    faults: FaultModel,
    base: int,
    names: tuple[str, ...],
    access: int = 0,
) -> Tensor:
    """Return int8 [chips, *shape], a tensor as chips read it from an address on.

    The chips are all simulated (at a bit error rate) or all measured (at a voltage).
    """
    if measured := [chip for chip in chips if isinstance(chip, MeasuredChip)]:
        return torch.stack([read_measured(values, chip, voltage, faults, base, names) for chip in measured])
    seeds = ops.encode_chips(chips, values.device)
    table = ops.encode_rate(bit_error_rate, values.device)
    return read_simulated(values, seeds, table, faults, base, names, ops.encode_access(access, values.device))


def check_bits(stored: Format, domains: Sequence[Domain]) -> None:
    """Raise FaultsimError for a domain of some bits of a weight, where weights are not int8."""
    for domain in domains:
        if domain.bits is not None and stored != INT8:
            raise FaultsimError(
                f"domain {domain.name!r} has bits of int8 weights, and these are {stored}: give it layers only"
            )


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
    kind, place = ops.encode_kind(faults), ops.encode_addresses(faults, base)
    check_bits(layer.format, faults.domains)
    parts = split_word(faults.domains, layer.tensors)
    if layer.format != INT8:
        torch.ops.faultsim.corrupt_decode.out(
            layer.image.view(torch.uint8),
            layer.format.name,
            layer.scale,
            layer.center,
            layer.axis,
            chips,
            find_table(parts[0][1], table),
            kind,
            place,
            access=access,
            out=out,
        )
        return
    values, scale, axis = layer.values, layer.scale, layer.axis
    if len(parts) == 1:  # read and multiplied in one pass
        table = find_table(parts[0][1], table)
    else:
        values = read_simulated(values, chips, table, faults, base, layer.tensors, access)
        out, axis = out.unsqueeze(0), axis + 1 if axis >= 0 else axis
        chips, table, place = chips[:1], ops.encode_rate(0.0, values.device), ops.encode_addresses(faults)
    torch.ops.faultsim.corrupt_dequantize.out(
        values, scale, axis, chips, table, kind, place, access=access, out=out
    )


def read_measured(
    values: Tensor,
    chip: MeasuredChip,
    voltage: float | None,
    faults: FaultModel,
    base: int,
    names: tuple[str, ...],
) -> Tensor:
    """Return an int8 tensor as a measured chip reads it.

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

    return merge_bits(values, split_word(faults.domains, names), read)


def find_table(domain: Domain | None, table: Tensor) -> Tensor:
    """Return the table of thresholds of a domain's bit error rate; `table` where there is no domain."""
    if domain is None:
        return table
    if domain.bit_error_rate is None and domain.voltage is not None:
        raise FaultsimError(
            f"domain {domain.name!r} has a voltage, and its bit error rate is not known: use faults.resolve(curve)"
        )
    return ops.encode_rate(domain.bit_error_rate or 0.0, table.device)
