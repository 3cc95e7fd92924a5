"""A model's weights in a memory with a mitigation."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..domains import check_domains
from ..errors import FaultsimError
from ..faults import FaultModel
from ..formats import INT8, Format
from ..measured_chip import AnyChip, MeasuredChip
from ..reading import read_chips
from ..sram import BLOCK_BYTES, SRAM
from ..stored import StoredLayer, StoredWeights
from ..voltage import VoltageCurve
from .ecc import OnError
from .mitigation import WORD, Decoded, MemoryMitigation

CHECK_BASE = 1 << 42
"""Address of the first byte of check bits: arrays that hold no weights. The check bits of a word lie at an eighth of
the word's address from here on; words that share cells share their check bits' cells."""


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
        if stored.format != INT8 and not mitigation.any_format:
            raise FaultsimError(f"{mitigation.label} is for int8 weights, and these are {stored.format}")
        self.written = tuple(mitigation.encode(into_words(layer.image)) for layer in self.layers)
        """What the memory holds of each tensor."""

    @property
    def reads_again(self) -> bool:
        """Whether the mitigation reads some words again, at Vmin."""
        return getattr(self.mitigation, "policy", None) == OnError.REREAD

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

    def _decode(
        self,
        chips: Sequence[AnyChip],
        rate: float | None,
        voltage: float | None,
        faults: FaultModel,
        access: int,
    ) -> list[Decoded]:
        domains = (*self.mitigation.find_domains(self.curve), *faults.domains)
        memory = _Memory(chips, rate, voltage, replace(faults, domains=domains).resolve(self.curve), access)
        found = []
        for layer, base, written in zip(self.layers, self.bases(faults), self.written, strict=True):
            read = memory.read(written.weights, base, layer.tensors, layer.format)
            checks = (
                None if written.checks is None else memory.read_checks(written.checks, base, layer.tensors)
            )
            found.append(self.mitigation.decode(read, checks, written))
        return found


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
        if not layout.blocks:
            return arrays.read(stored, CHECK_BASE + base // WORD, names, INT8).view(torch.uint8)
        at = base + WORD * torch.arange(len(checks), device=checks.device)
        if layout.repeat > 1:
            at = at // (layout.word * layout.repeat) * layout.word + at % layout.word
        at = at % (layout.blocks * BLOCK_BYTES) // WORD
        # many words share these cells: what the cells return for a stored 0, and for a stored 1
        zeros = torch.zeros(layout.blocks * BLOCK_BYTES // WORD, dtype=torch.int8, device=checks.device)
        if_zero, if_one = (arrays.read(cells, CHECK_BASE, names, INT8)[:, at] for cells in (zeros, ~zeros))
        return ((stored & if_one) | (~stored & if_zero)).view(torch.uint8)


def into_words(values: Tensor) -> Tensor:
    """Return int8 weights of any shape as 64-bit words, int8 [words, 8], filled up with zeros."""
    flat = values.contiguous().view(-1)
    words = flat.new_zeros(-(-flat.numel() // WORD), WORD)
    words.view(-1)[: flat.numel()] = flat
    return words
