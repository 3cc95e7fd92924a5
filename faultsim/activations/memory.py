"""Activations as fault sites: what a chip's input memory makes of the numbers between the layers.

Each activation of one sample is a tensor in a memory of its own, with an address for every element; the samples of a
batch come one after the other and meet the same cells. A number x is stored as round(x / scale), clamped to the codes
of its format, and read through the cells: whatever a cell does, the bit that is read depends on the stored bit alone,
so a read of all zeros and one of all ones say what the chip makes of any number.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self, cast, get_args

import torch
from torch import Tensor, nn

from ..chips.measured_chip import AnyChip, MeasuredChip, as_chip
from ..errors import FaultsimError
from ..faults import FaultKind, FaultModel
from ..formats import IntegerFormat, as_format
from ..kernel import ops
from ..kernel.ops import ACCESS_END
from ..perturbation import resolve_operating_point
from ..sram import SRAM, WORD_BYTES, Placement
from ..support.integers import checked_integer
from ..voltage import VoltageCurve
from .ranges import ActivationRanges, SiteRange, hook_layer, layer_of

FaultSites = Literal["weights", "activations", "both"]
"""Which memory's cells fail."""
INPUT_SRAM = SRAM(Placement.TILED_PER_LAYER, capacity_bytes=256 * 1024)
"""The default: SCALE-Sim's 256 KiB, and the activations of each layer begin at address 0."""
INPUT_BLOCKS = 2**31
"""Where a chip's input memory begins, in blocks of 4,096 bytes: the blocks below are those of its weight memory."""


@dataclass(frozen=True)
class ActivationMemory:
    """What lies in the memory of a model's activations, and how.

    Raises
    ------
    FaultsimError
        For a format that is not an integer.
    """

    ranges: ActivationRanges
    """The activations, from `calibrate`."""
    format: IntegerFormat | str = "int8"
    """Integers of 2 to 8 bits: symmetric ("int8", "int4"), or with the range that was seen ("uint8-asymmetric")."""
    faults: FaultModel = field(default_factory=lambda: FaultModel(memory=INPUT_SRAM))
    """What a failing cell does, and the memory."""
    voltage: float | None = None
    """Its own supply voltage. Default: that of the weights."""

    def __post_init__(self) -> None:
        chosen = as_format(self.format)
        if not isinstance(chosen, IntegerFormat) or chosen.truncated:
            raise FaultsimError(
                f"activations cannot be stored as {chosen}: int2 to int8 and uint2 to uint8 can"
            )
        object.__setattr__(self, "format", chosen)

    @property
    def codes(self) -> IntegerFormat:
        """The format, parsed."""
        return cast(IntegerFormat, self.format)

    @property
    def bytes(self) -> int:
        """Bytes of all activations of one sample."""
        return sum(self._sizes())

    def _sizes(self) -> list[int]:
        return [WORD_BYTES * self.codes.words(site.elements) for site in self.ranges.sites.values()]

    def bases(self) -> dict[str, int]:
        """Return the address of the first element of each activation."""
        return dict(zip(self.ranges.sites, self.faults.memory.bases(self._sizes()), strict=True))

    def describe(self) -> dict[str, Any]:
        """Return all of it as JSON values, for results."""
        return {
            "ranges": self.ranges.as_dict(),
            "format": self.codes.name,
            "faults": self.faults.describe(),
            **({} if self.voltage is None else {"voltage": self.voltage}),
        }

    def __str__(self) -> str:
        """Return one line, such as "inputs of 7 layers as int8, flip, tiled_per_layer placement in 256 KiB"."""
        faults, sram = self.faults, self.faults.memory
        words = [
            f"{self.ranges} as {self.codes.name}",
            str(faults.kind),
            f"{sram.placement} placement",
        ]
        if sram.address_map.blocks:
            words[-1] += f" in {sram.capacity_bytes // 1024} KiB"
        if self.voltage is not None:
            words.append(f"at {self.voltage:g}")
        return ", ".join(words)

    def operating_point(
        self,
        chips: Sequence[AnyChip],
        voltage: float | None,
        bit_error_rate: float | None,
        curve: VoltageCurve | None,
    ) -> tuple[float | None, float | None]:
        """Return (voltage, bit error rate) of this memory, whose own voltage comes before that of the weights."""
        if self.voltage is not None:
            voltage, bit_error_rate = self.voltage, None
        return resolve_operating_point(chips, voltage, bit_error_rate, curve)


Reading = list[tuple[Tensor, Tensor | None]]
"""What a chip makes of each activation, codes [elements]: what stored zeros read as, and which bits reach the reader
(None: all); a stored code c reads as (c & reach) ^ zeros."""


def read_cells(
    memory: ActivationMemory,
    chip: AnyChip,
    voltage: float | None,
    bit_error_rate: float | None,
    access: int = 0,
    device: torch.device | str = "cpu",
) -> Reading:
    """Return what a chip's input memory makes of each activation.

    Parameters
    ----------
    memory
        What lies where.
    chip
        A simulated chip (at a bit error rate) or a measured one (at a voltage), whose fault map is that of the input
        memory.
    access
        Which read it is (transient faults).
    device
        Of the model.
    """
    found: Reading = []
    inverts = not isinstance(chip, MeasuredChip) and memory.faults.kind in (
        FaultKind.FLIP,
        FaultKind.TRANSIENT,
    )
    for site, base in zip(memory.ranges.sites.values(), memory.bases().values(), strict=True):
        shape = [WORD_BYTES * memory.codes.words(site.elements)]
        zeros, ones = (
            memory.codes.unpack(
                _read_bytes(
                    torch.full(shape, value, dtype=torch.int8, device=device),
                    memory.faults,
                    chip,
                    voltage,
                    bit_error_rate,
                    base,
                    access,
                ),
                [site.elements],
            )
            for value in (0, -1)
        )
        found.append((zeros, None if inverts else zeros ^ ones))
    return found


def _read_bytes(
    stored: Tensor,
    faults: FaultModel,
    chip: AnyChip,
    voltage: float | None,
    rate: float | None,
    base: int,
    access: int,
) -> Tensor:
    """Return int8 bytes as a chip's input memory reads them."""
    if isinstance(chip, MeasuredChip):
        return chip.read(stored, voltage, faults, base)
    device = stored.device
    read: Tensor = torch.ops.faultsim.corrupt(
        stored,
        ops.encode_chips([chip], device),
        ops.encode_rate(rate, device),
        ops.encode_kind(faults),
        ops.encode_addresses(faults, base),
        torch.tensor([INPUT_BLOCKS], device=device),
        ops.encode_access(access, device),
    )[0]
    return read


class Site:
    """One activation: what its layer reads instead of it."""

    def __init__(self, name: str, seen: SiteRange, codes: IntegerFormat, device: torch.device) -> None:
        self.name, self.elements = name, seen.elements
        self.low, self.high, self.shift = -codes.largest, codes.largest, codes.zero if codes.offset else 0
        self.dtype, self.clamps = codes.dtype, codes.clamps
        grid = codes.find_grid(torch.tensor([seen.low, seen.high], dtype=torch.float32))
        self.scale = grid.scale.to(device)
        self.center = None if grid.center is None else grid.center.to(device)
        self.zeros: Tensor | None = None
        self.reach: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Store [samples, ...] and read it. Gradients pass as if x had been read."""
        read = self._read(x.detach()).to(x.dtype)
        if x.requires_grad and torch.is_grad_enabled():
            return read + (x - x.detach())
        return read

    def _read(self, x: Tensor) -> Tensor:
        w = x.float()
        steps = (w if self.center is None else w - self.center) / self.scale
        steps = steps.round_().clamp_(self.low, self.high).nan_to_num_()
        if self.zeros is not None:
            shape = x.shape[1:]
            if shape.numel() > self.elements:
                raise FaultsimError(
                    f"layer {layer_of(self.name)}: an activation of {shape.numel():,} elements, but the largest one of "
                    f"the calibration had {self.elements:,}: calibrate with samples as large as these"
                )
            codes = (steps.add_(self.shift) if self.shift else steps).to(self.dtype)
            if self.reach is not None:
                codes = codes & self.reach[: shape.numel()].view(shape)
            codes = codes ^ self.zeros[: shape.numel()].view(shape)
            clamped = self.shift or self.clamps
            steps = (codes.float() - self.shift).clamp_(min=self.low) if clamped else codes
        values = steps * self.scale
        return values if self.center is None else values + self.center


class Sites(contextlib.ExitStack):
    """The activations of a model, read through a memory inside a `with` block.

    Parameters
    ----------
    model, memory
        As for `perturbed_activations`.
    device
        Of the model.
    chips
        What take() chooses from. None: the activations are quantized, and read without errors.
    voltage, bit_error_rate, curve
        The operating point of the weights; the memory's own voltage comes before it.
    """

    def __init__(
        self,
        model: nn.Module,
        memory: ActivationMemory,
        device: torch.device,
        chips: Sequence[AnyChip] = (),
        voltage: float | None = None,
        bit_error_rate: float | None = None,
        curve: VoltageCurve | None = None,
    ) -> None:
        super().__init__()
        self.memory, self.device, self.chips = memory, device, chips
        if chips:
            self._point = memory.operating_point(chips, voltage, bit_error_rate, curve)
        self._taken: Sequence[AnyChip] = ()
        self._readings: list[Reading] = []
        self._layers: dict[str, nn.Module] = {}
        self._sites = {
            name: Site(name, seen, memory.codes, device) for name, seen in memory.ranges.sites.items()
        }
        named = dict(model.named_modules())
        for name in self._sites:
            layer = layer_of(name)
            if layer not in named:
                raise FaultsimError(
                    f"the activation ranges are of another model: this one has no layer {layer!r}"
                )
            self._layers[layer] = named[layer]

    @property
    def bytes(self) -> int:
        """Bytes that each chip's reading takes."""
        return 2 * self.memory.ranges.elements

    def take(self, first: int, count: int) -> None:
        """Choose chips: read() reads what they make of the activations, use() chooses one of them.

        As many chips as before are written into the same memory, where a CUDA graph finds them again.
        """
        if count != len(self._taken):
            self._readings = []
        self._taken = self.chips[first : first + count]

    def read(self, access: int = 0) -> None:
        """Read the cells of the taken chips, for the first time or, where reads differ, for another access."""
        if access and self._readings and self.memory.faults.kind is not FaultKind.TRANSIENT:
            return
        found = [read_cells(self.memory, chip, *self._point, access, self.device) for chip in self._taken]
        if not self._readings:
            self._readings = found
            return
        for mine, new in zip(self._readings, found, strict=True):
            for (zeros, reach), (new_zeros, new_reach) in zip(mine, new, strict=True):
                zeros.copy_(new_zeros)
                if reach is not None and new_reach is not None:
                    reach.copy_(new_reach)

    def use(self, index: int) -> None:
        """Let the model read through the cells of one of the taken chips from now on."""
        for at, site in enumerate(self._sites.values()):
            site.zeros, site.reach = self._readings[index][at] if self._readings else (None, None)

    def __enter__(self) -> Self:
        try:
            for name, layer in self._layers.items():
                mine = {
                    site.removeprefix(name): found
                    for site, found in self._sites.items()
                    if layer_of(site) == name
                }
                hook_layer(layer, self.memory.ranges.at, _visitor(mine), self)
        except BaseException:
            self.close()
            raise
        return self


def _visitor(sites: dict[str, Site]) -> Any:
    def visit(place: str, x: Tensor) -> Tensor:
        return sites[place](x) if place in sites else x

    return visit


def check_sites(sites: FaultSites) -> None:
    """Raise FaultsimError for an unknown word."""
    if sites not in get_args(FaultSites):
        raise FaultsimError(f"unknown fault sites {sites!r}: they can be {', '.join(get_args(FaultSites))}")


def check_memories(sites: FaultSites, memory: ActivationMemory | None, chips: Sequence[AnyChip]) -> None:
    """Raise FaultsimError unless the memories of these sites are known, and measured chips are of one of them."""
    check_sites(sites)
    if sites != "weights" and memory is None:
        raise FaultsimError(f"fault sites {sites}: give activations=ActivationMemory(calibrate(model, data))")
    if sites == "both" and any(isinstance(chip, MeasuredChip) for chip in chips):
        raise FaultsimError(
            "a measured chip has the fault map of one memory: choose the fault sites weights or activations"
        )


def find_device(model: nn.Module) -> torch.device:
    """Return the device of a model: that of its first parameter or buffer."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")


@contextlib.contextmanager
def perturbed_activations(
    model: nn.Module,
    chip: AnyChip | int,
    memory: ActivationMemory | ActivationRanges,
    *,
    voltage: float | None = None,
    bit_error_rate: float | None = None,
    curve: VoltageCurve | None = None,
    access: int = 0,
) -> Iterator[nn.Module]:
    """Run a model with its activations as a chip's input memory reads them, inside a `with` block.

        ranges = calibrate(model, batches)
        with perturbed_activations(model, Chip(7), ranges, voltage=0.83):
            logits = model(images)

    All samples of a batch meet the same failing cells. Together with `perturbed` the weights fail too, in the same
    chip's weight memory. Afterwards the model is as it was, whatever happens inside. It may be compiled before, inside
    or after the block. Gradients pass as if the model had read its own activations.

    Parameters
    ----------
    model
        Any module. Of a compiled one (torch.compile) give the module that was compiled.
    chip
        A simulated chip, its seed, or a measured chip: the fault map is then that of the input memory.
    memory
        What lies in it; of ranges alone: int8, independent flips, 256 KiB.
    voltage, bit_error_rate
        The operating point: one of both, unless the memory has a voltage of its own. A measured chip needs a voltage.
    curve
        Bit error rate against voltage. Default: the paper's SRAM.
    access
        Which read it is (transient faults).

    Raises
    ------
    FaultsimError
        For operating points out of range, and ranges of another model.
    """
    memory = memory if isinstance(memory, ActivationMemory) else ActivationMemory(memory)
    chip = as_chip(chip)
    access = checked_integer(access, "access", 0, ACCESS_END - 1)
    sites = Sites(model, memory, find_device(model), [chip], voltage, bit_error_rate, curve)
    sites.take(0, 1)
    sites.read(access)
    sites.use(0)
    with sites:
        yield model
