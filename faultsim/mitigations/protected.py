"""A model's weights in a memory with a mitigation."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from ..chips.measured_chip import AnyChip, MeasuredChip
from ..domains import Domain, check_domains, split_bits
from ..errors import FaultsimError
from ..faults import FaultModel
from ..formats import INT8, Format
from ..kernel import ops
from ..kernel.op_checks import Draw
from ..reading import find_table, read_chips
from ..sram import BLOCK_BYTES, SRAM
from ..stored import StoredLayer, StoredWeights
from ..voltage import VoltageCurve
from .codec import ALL_CELLS, Cells, Codec, ProtectedTensor, find_codec
from .ecc import OnError
from .mitigation import WORD, Decoded, MemoryMitigation

CHECK_BASE = 1 << 42
"""Address of the first byte of check bits: arrays that hold no weights. The check byte of a word lies at an eighth of
the word's address from here on (n check bytes: at n eighths); words that share cells share their check bits' cells."""


class ProtectedWeights(StoredWeights):
    """The weights of a model in a memory with a mitigation.

        protected = ProtectedWeights(StoredWeights.of(model), SECDED("zero"))
        faultsim.evaluate(model, data, chips, voltage=0.83, stored=protected)

    Parameters
    ----------
    stored
        The weights.
    mitigation
        What a read returns.
    curve
        Which bit error rates the voltages of its domains have. Default: the paper's SRAM.

    Raises
    ------
    FaultsimError
        For a pattern of boosted layers that matches no tensor, and a mitigation that needs int8 weights.
    """

    def __init__(
        self, stored: StoredWeights, mitigation: MemoryMitigation, curve: VoltageCurve | None = None
    ) -> None:
        super().__init__(stored.layers, stored.left_out)
        self.mitigation = mitigation
        self.curve = curve or VoltageCurve.default()
        names = [layer.tensors for layer in self.layers]
        check_domains(mitigation.find_domains(self.curve), names, stored.format.width)
        mitigation.check_format(stored.format)
        self.codec = find_codec(mitigation.decoder, stored.format)
        """What the kernel does; None where the mitigation decodes in Python."""
        encode = mitigation.encode if self.codec is None else self.codec.encode
        self.written = tuple(encode(into_words(layer.image)) for layer in self.layers)
        """What the memory holds of each tensor."""
        codec = self.codec or Codec()
        self._tensors = tuple(map(partial(ProtectedTensor, codec), self.layers, self.written))

    @property
    def reads_again(self) -> bool:
        """Whether the mitigation reads some words again, at Vmin."""
        if self.codec is not None:
            return self.codec.reads_again
        return getattr(self.mitigation.decoder, "policy", None) == OnError.REREAD

    def with_layers(self, layers: Iterable[StoredLayer]) -> "ProtectedWeights":
        """Return the weights of the same model with other values or scales, in the same memory."""
        return ProtectedWeights(super().with_layers(layers), self.mitigation, self.curve)

    def read(self, *_: object, **__: object) -> None:
        """Raise FaultsimError: what is captured in a CUDA graph reads a memory without mitigations."""
        raise FaultsimError("training cannot read a memory with a mitigation: give it plain stored weights")

    def read_chips(
        self,
        chips: Sequence[AnyChip],
        bit_error_rate: float | None,
        voltage: float | None,
        faults: FaultModel,
        access: int = 0,
    ) -> list[Tensor]:
        """Return what chips read through the mitigation, decoded; as StoredWeights.read_chips."""
        if self._kernel_reads(chips) and self.layers[0].values.device.type == "cpu":
            floats = self.empty(len(chips))
            self._read_by_kernel(chips, bit_error_rate, faults, access, floats)
            return self._as_held(floats)
        out = []
        for layer, images in zip(
            self.layers, self.read_images(chips, bit_error_rate, voltage, faults, access), strict=True
        ):
            weights = torch.stack([layer.with_image(image).decode() for image in images])
            out.append(layer.as_held(weights))
        return out

    def read_images(
        self,
        chips: Sequence[AnyChip],
        bit_error_rate: float | None,
        voltage: float | None,
        faults: FaultModel,
        access: int = 0,
    ) -> list[Tensor]:
        """Return the bytes that chips read through the mitigation.

        Parameters
        ----------
        chips, bit_error_rate, voltage, faults, access
            As for StoredWeights.read_chips.

        Returns
        -------
        list[Tensor]
            int8 [len(chips), ...] of each tensor, as StoredLayer.image: for int8 weights in the shape of the tensor.
        """
        found = self._decode(chips, bit_error_rate, voltage, faults, access)
        return [
            decoded.weights.flatten(1)[:, : layer.image.numel()].reshape(len(chips), *layer.image.shape)
            for layer, decoded in zip(self.layers, found, strict=True)
        ]

    def measure_flagged(
        self,
        chips: Sequence[AnyChip],
        bit_error_rate: float | None,
        voltage: float | None,
        faults: FaultModel,
    ) -> list[float]:
        """Return the share of each tensor's words that chips read again, on average over the chips."""
        return [
            0.0 if decoded.flagged is None else float(decoded.flagged.double().mean())
            for decoded in self._decode(chips, bit_error_rate, voltage, faults, 0)
        ]

    def _kernel_reads(self, chips: Sequence[AnyChip]) -> bool:
        return self.codec is not None and not any(isinstance(chip, MeasuredChip) for chip in chips)

    def _resolve(self, faults: FaultModel) -> FaultModel:
        """Return the fault model with the domains of the mitigation, which take their cells first."""
        domains = (*self.mitigation.find_domains(self.curve), *faults.domains)
        return replace(faults, domains=domains).resolve(self.curve)

    def _decode(
        self,
        chips: Sequence[AnyChip],
        rate: float | None,
        voltage: float | None,
        faults: FaultModel,
        access: int,
    ) -> list[Decoded]:
        if self._kernel_reads(chips):
            return self._decode_by_kernel(chips, rate, faults, access)
        decode = self.mitigation.decode if self.codec is None else self.codec.decode
        memory = _Memory(chips, rate, voltage, self._resolve(faults), access)
        found = []
        for layer, base, written in zip(self.layers, self.bases(faults), self.written, strict=True):
            read = memory.read(written.weights, base, layer.tensors, layer.format)
            checks = (
                None if written.checks is None else memory.read_checks(written.checks, base, layer.tensors)
            )
            found.append(decode(read, checks, written))
        return found

    def _decode_by_kernel(
        self, chips: Sequence[AnyChip], rate: float | None, faults: FaultModel, access: int
    ) -> list[Decoded]:
        words = [written.weights for written in self.written]
        out = [word.new_empty([len(chips), *word.shape]) for word in words]
        again = (
            [torch.empty(one.shape[:-1], dtype=torch.bool, device=one.device) for one in out]
            if self.reads_again
            else [None for _ in out]
        )
        self._read_by_kernel(chips, rate, faults, access, out, again)
        return [Decoded(weights, flagged) for weights, flagged in zip(out, again, strict=True)]

    def _read_by_kernel(
        self,
        chips: Sequence[AnyChip],
        rate: float | None,
        faults: FaultModel,
        access: int,
        out: Sequence[Tensor],
        again: Sequence[Tensor | None] | None = None,
    ) -> None:
        """Write what simulated chips read into `out`, as of ProtectedTensor.read."""
        device, resolved = self.layers[0].values.device, self._resolve(faults)
        table, seeds = ops.encode_rate(rate, device), ops.encode_chips(chips, device)
        kind, reads = ops.encode_kind(resolved), ops.encode_access(access, device)
        for i, (tensor, base) in enumerate(zip(self._tensors, self.bases(faults), strict=True)):
            cells, checks = _divide_cells(resolved.domains, tensor.layer, table)
            draw = Draw(seeds, table, kind, ops.encode_addresses(resolved, base), None, reads)
            tensor.read(draw, cells, CHECK_BASE, checks, out[i], None if again is None else again[i])


def _divide_cells(domains: Sequence[Domain], layer: StoredLayer, table: Tensor) -> tuple[list[Cells], Tensor]:
    """Return the cells of a word that can fail, and the table of the check bits.

    A domain of some bits is one of bits of weights: check bits have the domain of the whole tensor.
    """

    def find(domain: Domain | None) -> Tensor:
        never = domain is not None and domain.never_fails
        return ops.encode_rate(0.0, table.device) if never else find_table(domain, table)

    whole = tuple(domain for domain in domains if domain.bits is None)
    ((_, of_checks),) = split_bits(whole, layer.tensors, 1)
    parts = split_bits(tuple(domains), layer.tensors, layer.format.width)
    if len(parts) == 1:
        return [(ALL_CELLS, find(parts[0][1]))], find(of_checks)
    cells = [
        (int.from_bytes(layer.format.find_cells(mask), "little"), find(domain)) for mask, domain in parts
    ]
    return cells, find(of_checks)


class _Memory:
    """Chips at one operating point."""

    def __init__(
        self,
        chips: Sequence[AnyChip],
        rate: float | None,
        voltage: float | None,
        faults: FaultModel,
        access: int,
    ) -> None:
        self.chips, self.rate, self.voltage = chips, rate, voltage
        self.faults, self.access = faults, access

    def read(self, weights: Tensor, base: int, names: tuple[str, ...], layout: Format) -> Tensor:
        """Return words int8 [words, 8] from an address on as the chips read them, int8 [chips, words, 8]."""
        operating_point = self.chips, self.rate, self.voltage, self.faults
        return read_chips(weights, *operating_point, base, names, layout, self.access)

    def read_checks(self, checks: Tensor, base: int, names: tuple[str, ...]) -> Tensor:
        """Return the check bits of words from an address on, uint8 [chips, words]."""
        if any(isinstance(chip, MeasuredChip) for chip in self.chips):
            raise FaultsimError(
                "check bits lie in arrays of their own, and the fault map of a measured chip has none: use a "
                "mitigation without check bits"
            )
        layout = self.faults.memory.address_map
        # a domain of some bits is one of bits of weights
        whole = tuple(domain for domain in self.faults.domains if domain.bits is None)
        faults = replace(self.faults, domains=whole, memory=SRAM())
        arrays = _Memory(self.chips, self.rate, self.voltage, faults, self.access)
        stored = checks.view(torch.int8)
        of_word = stored[0].numel()
        if not layout.blocks:
            return arrays.read(stored, CHECK_BASE + base // WORD * of_word, names, INT8).view(torch.uint8)
        at = base + WORD * torch.arange(len(checks), device=checks.device)
        if layout.repeat > 1:
            at = at // (layout.word * layout.repeat) * layout.word + at % layout.word
        at = at % (layout.blocks * BLOCK_BYTES) // WORD
        # many words share these cells: what the cells return for a stored 0, and for a stored 1
        zeros = stored.new_zeros(layout.blocks * BLOCK_BYTES // WORD, *stored.shape[1:])
        if_zero, if_one = (arrays.read(cells, CHECK_BASE, names, INT8)[:, at] for cells in (zeros, ~zeros))
        return ((stored & if_one) | (~stored & if_zero)).view(torch.uint8)


def into_words(values: Tensor) -> Tensor:
    """Return int8 weights of any shape as 64-bit words, int8 [words, 8], filled up with zeros."""
    flat = values.contiguous().view(-1)
    words = flat.new_zeros(-(-flat.numel() // WORD), WORD)
    words.view(-1)[: flat.numel()] = flat
    return words
