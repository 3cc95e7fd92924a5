"""Fault-aware quantization: weights are written so that one known chip reads them as right as its cells allow.

"FAQ: Mitigating the Impact of Faults in the Weight Memory of DNN Accelerators through Fault-Aware Quantization"
(arXiv:2305.12590): for each weight, of all values that its stuck bits allow, the nearest one is stored. There it is a
table; here it is computed, exactly, for any integer format.

It needs a test of each chip at each voltage, and weights of its own for each. It says nothing about other chips. A cell
that inverts does no harm at all, for the inverse can be written; only stuck cells do.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from .chips.measured_chip import AnyChip, as_chip
from .errors import FaultsimError
from .faults import Chip, FaultKind, FaultModel
from .formats import Format, Grid, IntegerFormat
from .perturbation import resolve_faults, resolve_operating_point
from .reading import read_chips
from .stored import StoredLayer, StoredWeights
from .voltage import VoltageCurve


def fit_to_chip(
    stored: StoredWeights,
    chip: AnyChip | int,
    *,
    voltage: float | None = None,
    bit_error_rate: float | None = None,
    curve: VoltageCurve | None = None,
    faults: FaultModel | None = None,
) -> StoredWeights:
    """Choose what the memory of one chip holds, so that it reads each weight as near as its cells allow.

    Parameters
    ----------
    stored
        The weights, in an integer format. Their scales stay.
    chip
        A measured chip, a simulated one, or its seed.
    voltage, bit_error_rate, curve, faults
        The operating point, and what a failing cell does, as for `faultsim.perturbed`.

    Returns
    -------
    StoredWeights
        What to write. The chip's `read` of a weight without failing cells is what it was.

    Raises
    ------
    FaultsimError
        For floating-point formats, and for transient faults, which nobody can know.

    Examples
    --------
    >>> from faultsim import MeasuredChip, StoredWeights, evaluate
    >>> from faultsim.fault_aware import fit_to_chip
    >>> chip = MeasuredChip.load("chip.csv")  # doctest: +SKIP
    >>> fitted = fit_to_chip(StoredWeights.of(model), chip, voltage=0.83)  # doctest: +SKIP
    >>> evaluate(model, data, [chip], voltage=0.83, stored=fitted)  # doctest: +SKIP
    """
    faults, chip = resolve_faults(faults, stored, curve), as_chip(chip)
    volts, rate = resolve_operating_point([chip], voltage, bit_error_rate, curve)
    return _fit(stored, chip, rate, volts, faults)


class FaultAwareWeights(StoredWeights):
    """The weights of a model, written anew for each chip that reads them, at each operating point.

        evaluate(model, data, chips, voltage=0.83, stored=FaultAwareWeights(StoredWeights.of(model)))

    Parameters
    ----------
    stored
        The weights, in an integer format.

    Raises
    ------
    FaultsimError
        For floating-point formats.
    """

    def __init__(self, stored: StoredWeights) -> None:
        super().__init__(stored.layers, stored.left_out)
        _checked(stored.format)

    def with_layers(self, layers: Iterable[StoredLayer]) -> "FaultAwareWeights":
        """Return the weights of the same model with other values or scales."""
        return FaultAwareWeights(super().with_layers(layers))

    def read(self, *_: object, **__: object) -> None:
        """Raise FaultsimError: what is captured in a CUDA graph reads weights that are the same for all chips."""
        raise FaultsimError("training cannot read fault-aware weights: give it plain stored weights")

    def read_chips(
        self,
        chips: Sequence[AnyChip],
        bit_error_rate: float | None,
        voltage: float | None,
        faults: FaultModel,
        access: int = 0,
    ) -> list[Tensor]:
        """Return what each chip reads of the weights that were written for it; as StoredWeights.read_chips."""
        plain = StoredWeights(self.layers, self.left_out)
        found = [
            _fit(plain, chip, bit_error_rate, voltage, faults).read_chips(
                [chip], bit_error_rate, voltage, faults, access
            )
            for chip in chips
        ]
        return [torch.cat(weights) for weights in zip(*found, strict=True)]


def choose_codes(wanted: Tensor, layer: StoredLayer, zeros: Tensor, ones: Tensor) -> Tensor:
    """Choose the code of each weight that is read nearest to what is wanted.

    Parameters
    ----------
    wanted
        float32, the shape of the tensor.
    layer
        Its codes, and their scale. Weights without stuck cells keep their code.
    zeros, ones
        What the cells return where all of them hold 0, or 1: codes as `layer.values`.

    Returns
    -------
    Tensor
        Codes to write.
    """
    stored = _checked(layer.format)
    most, sign = (1 << stored.bits) - 1, 0 if stored.offset else stored.zero
    low, high, kept = (codes.to(torch.int16) & most for codes in (zeros, ones, layer.values))
    flipped, stuck = low & ~high, ~(low ^ high) & most
    chosen = kept ^ flipped
    at = stuck.ne(0).nonzero(as_tuple=True)
    fixed, bits = stuck[at], (low ^ sign)[at] & stuck[at]  # in the order of the numbers: 0 is the least
    target = wanted[at]
    scale = layer.grid.scale.expand(wanted.shape)[at]
    center = None if layer.grid.center is None else layer.grid.center.expand(wanted.shape)[at]
    steps = ((target if center is None else target - center) / scale).floor() + stored.zero
    floor = steps.clamp(-1, most).to(torch.int16)
    below = _round_down(floor, fixed, bits, stored.bits)
    above = most - _round_down(most - 1 - floor, fixed, ~bits & fixed, stored.bits)
    numbers = Grid(scale, center)
    errors = [
        (stored.decode(_as_codes((code ^ sign).clamp(0, most), stored), numbers) - target).abs()
        for code in (below, above)
    ]
    take_below = (below >= 0) & ((above > most) | (errors[0] <= errors[1]))
    chosen[at] = (torch.where(take_below, below, above) ^ sign) ^ flipped[at]
    return _as_codes(chosen, stored)


def _round_down(code: Tensor, fixed: Tensor, bits: Tensor, width: int) -> Tensor:
    """Return the largest number up to `code` whose `fixed` bits are `bits`; -1 where there is none.

    It is `code` itself; or it has the bits of `code` above some bit, a 0 there where `code` has a 1, and below it ones
    wherever they are not fixed.
    """
    best = torch.where((code >= 0) & ((code ^ bits) & fixed == 0), code, -1)
    for bit in range(width):
        below = (1 << bit) - 1
        lower = (code & ~(2 * below + 1)) | (below & (~fixed | bits))
        fits = (code >= 0) & (code >> bit & 1 == 1) & ((lower ^ bits) & fixed == 0)
        best = torch.where(fits & (lower > best), lower, best)
    return best


def _as_codes(patterns: Tensor, stored: IntegerFormat) -> Tensor:
    """Return bit patterns as codes of the format."""
    return (patterns if stored.offset else (patterns ^ stored.zero) - stored.zero).to(stored.dtype)


def _checked(stored: Format) -> IntegerFormat:
    """Return the format; FaultsimError unless it is one of integers."""
    if not isinstance(stored, IntegerFormat):
        raise FaultsimError(f"fault-aware quantization is for integers, and these weights are {stored}")
    return stored


def _fit(
    stored: StoredWeights, chip: AnyChip, rate: float | None, voltage: float | None, faults: FaultModel
) -> StoredWeights:
    """Write the weights for a chip; the arguments as of StoredWeights.read_chips."""
    _checked(stored.format)
    if faults.kind is FaultKind.TRANSIENT and isinstance(chip, Chip):
        raise FaultsimError("transient faults are new at every read: no weight can be written to fit them")
    layers = []
    for layer, base in zip(stored.layers, stored.bases(faults), strict=True):
        zeros = torch.zeros_like(layer.image)
        read = [
            read_chips(image, [chip], rate, voltage, faults, base, layer.tensors, layer.format)[0]
            for image in (zeros, ~zeros)
        ]
        low, high = (layer.with_image(image).values for image in read)
        place = layer.held
        wanted = layer.decode() if place.is_int8 else place.value().float()
        layers.append(replace(layer, values=choose_codes(wanted, layer, low, high)))
    return stored.with_layers(layers)
