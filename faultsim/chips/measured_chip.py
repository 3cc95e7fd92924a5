"""A measured chip: weights are read through its fault map."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import FaultsimError
from ..faults import Chip, FaultKind, FaultModel
from ..sram import BLOCK_BYTES
from .fault_cells import TYPES
from .fault_map import FaultMap

if TYPE_CHECKING:
    import torch

_CHUNK = 64 * BLOCK_BYTES  # weights read at once with masks: an address has eight bytes, a weight one


class MeasuredChip:
    """A chip whose faults come from a fault map.

    The map says what its failing cells read, so only the memory (placement, capacity) of a fault model matters.

    Parameters
    ----------
    fault_map
        Its failing cells.
    label
        Its name in results. Default: the map's source.
    """

    def __init__(self, fault_map: FaultMap, label: str | None = None) -> None:
        self.fault_map = fault_map
        self.label = label or fault_map.source or "measured"
        # lists or masks of the latest voltage and device: a model asks layer by layer
        self._latest: tuple[tuple[float | None, torch.device], list[torch.Tensor]] | None = None

    @classmethod
    def load(cls, path: str | Path) -> "MeasuredChip":
        """Read a file of `FaultMap.save`; the label is the file's name without its suffix."""
        return cls(FaultMap.load(path), Path(path).stem)

    def __repr__(self) -> str:
        return (
            f"MeasuredChip({self.label!r}, {len(self.fault_map):,} cells in {self.fault_map.arrays:,} arrays)"
        )

    def _cells(self, voltage: float | None, device: "torch.device") -> "list[torch.Tensor]":
        """Return the lists of cells that a CPU's kernel reads, or the masks for another device."""
        import torch

        key = voltage, device
        if self._latest is None or self._latest[0] != key:
            failing = self.fault_map.at(voltage)
            if device.type == "cpu":
                # int16: torch has no uint16 on all of its versions, and the bits are the same
                lists = (*failing.list_cells((0, 1)), *failing.list_cells((-1,)))
                tensors = [
                    torch.from_numpy(x.view(np.int16) if x.dtype == np.uint16 else x).clone() for x in lists
                ]
            else:
                tensors = [torch.from_numpy(mask).view(torch.int8).to(device) for mask in failing.masks()]
            self._latest = key, tensors
        return self._latest[1]

    def read(
        self,
        weights: "torch.Tensor",
        voltage: float | None,
        faults: FaultModel | None = None,
        base: int = 0,
    ) -> "torch.Tensor":
        """Return int8 weights as the chip reads them.

        Parameters
        ----------
        weights
            int8 [...], in row-major order from the address `base` on, whatever their strides.
        voltage
            Supply voltage, in the unit of the map.
        faults
            Its memory says where the weights lie. Default: every weight in cells of its own.
        base
            Address of the first weight.

        Returns
        -------
        Tensor
            int8, same shape and device.

        Raises
        ------
        FaultsimError
            Where the weights reach beyond the memory that was measured.
        """
        import torch

        stored, faults = self._check(weights, faults, base), faults or FaultModel()
        out = torch.empty_like(stored)
        if stored.device.type == "cpu":
            self._read_by_kernel(stored, out, voltage, faults, base)
        else:
            self._read_by_masks(stored, out, voltage, faults, base)
        return out.view(weights.shape)

    def read_dequantized(
        self,
        weights: "torch.Tensor",
        scale: "torch.Tensor",
        axis: int,
        out: "torch.Tensor",
        voltage: float | None,
        faults: FaultModel | None = None,
        base: int = 0,
    ) -> None:
        """Write int8 weights as the chip reads them, times their scale, into a tensor: on a CPU in one pass.

        Parameters
        ----------
        weights, voltage, faults, base
            As of `read`.
        scale, axis
            float32: one number (axis -1), or one for each index of `axis`.
        out
            float32, bfloat16 or float16, contiguous, in the shape and on the device of the weights.

        Raises
        ------
        FaultsimError
            As of `read`.
        """
        stored, faults = self._check(weights, faults, base), faults or FaultModel()
        if stored.device.type == "cpu":
            rows, whole = out.unsqueeze(0), stored.view(weights.shape)
            self._read_by_kernel(whole, rows, voltage, faults, base, scale=scale, axis=axis)
        else:
            spread = [-1 if d == axis else 1 for d in range(weights.dim())] if axis >= 0 else []
            out.copy_(self.read(weights, voltage, faults, base).float() * scale.reshape(spread))

    def _check(self, weights: "torch.Tensor", faults: FaultModel | None, base: int) -> "torch.Tensor":
        """Return the weights as a dense list, after checking that they lie in the memory that was measured."""
        import torch

        if weights.dtype != torch.int8:
            raise TypeError(f"weights must be int8, not {weights.dtype}")
        stored = weights.contiguous().view(-1)
        layout = (faults or FaultModel()).memory.address_map
        capacity, run = layout.blocks * BLOCK_BYTES, layout.word * layout.repeat
        end = base + stored.numel()
        if layout.repeat > 1:
            end = -(-end // run) * layout.word
        needed = min(end, capacity) if capacity else end
        if stored.numel() and needed > self.fault_map.bytes:
            raise FaultsimError(
                f"fault map {self.label!r} covers {self.fault_map.bytes:,} bytes of memory, the weights take "
                f"{needed:,}: use tiled placement and a capacity that was measured"
            )
        return stored

    def _read_by_kernel(
        self,
        stored: "torch.Tensor",
        out: "torch.Tensor",
        voltage: float | None,
        faults: FaultModel,
        base: int,
        *,
        scale: "torch.Tensor | None" = None,
        axis: int = -1,
    ) -> None:
        from ..kernel import ops

        stuck, stuck_begin, inverted, inverted_begin = self._cells(voltage, stored.device)
        draw = ops.Draw(
            ops.encode_chips([0]),
            ops.encode_rate(0.0),
            ops.encode_kind(FaultModel(FaultKind.STUCK_AT_0)),
            ops.encode_addresses(faults, base),
        )
        cells = {
            "blocks": len(stuck_begin) - 1,
            "stuck": stuck.data_ptr(),
            "stuck_begin": stuck_begin.data_ptr(),
            "inverted": inverted.data_ptr(),
            "inverted_begin": inverted_begin.data_ptr(),
        }
        ops.launch(stored, out, draw, scale=scale, axis=axis, cells=cells)

    def _read_by_masks(
        self,
        stored: "torch.Tensor",
        out: "torch.Tensor",
        voltage: float | None,
        faults: FaultModel,
        base: int,
    ) -> None:
        import torch

        layout = faults.memory.address_map
        clear, ones, flip = self._cells(voltage, stored.device)
        for start in range(0, stored.numel(), _CHUNK):
            stop = min(start + _CHUNK, stored.numel())
            at = torch.arange(base + start, base + stop, device=stored.device)
            if layout.repeat > 1:
                run = layout.word * layout.repeat
                at = at // run * layout.word + at % layout.word
            if layout.blocks:
                at = at % (layout.blocks * BLOCK_BYTES)
            out[start:stop] = ((stored[start:stop] & ~clear[at]) | ones[at]) ^ flip[at]


AnyChip = Chip | MeasuredChip
"""A simulated or a measured chip."""


def as_chip(chip: AnyChip | int) -> AnyChip:
    """Return a chip as it is, and a seed as the simulated chip that it means."""
    return chip if isinstance(chip, AnyChip) else Chip(chip)


def describe_chip(chip: AnyChip) -> int | dict[str, str]:
    """Describe a chip for a configuration: everything that its faults follow from."""
    if not isinstance(chip, MeasuredChip):
        return chip.seed
    digest = hashlib.sha256(repr((chip.fault_map.arrays, chip.fault_map.geometry)).encode())
    for name in TYPES:
        digest.update(getattr(chip.fault_map, name).tobytes())
    return {"label": chip.label, "sha256": digest.hexdigest()}
