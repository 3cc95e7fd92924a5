"""A model, a chip, a voltage -> the perturbed model."""

import contextlib
import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from . import ops
from .draw import checked_rate
from .errors import FaultsimError
from .faultmap import MeasuredChip
from .faults import Chip, FaultModel
from .quantization import plain
from .stored import StoredWeights
from .voltage import VoltageCurve


def operating_point(
    chips: Sequence[Chip | MeasuredChip],
    voltage: float | None,
    bit_error_rate: float | None,
    curve: VoltageCurve | None,
) -> tuple[float | None, float | None]:
    """(voltage or None, bit error rate) from whichever of the two is given; for measured chips, whose failing cells no
    curve knows, (voltage, None). FaultsimError unless it is just one of the two, and the one that the chips need."""
    measured = [isinstance(chip, MeasuredChip) for chip in chips]
    if any(measured):
        if not all(measured):
            raise FaultsimError("simulated and measured chips cannot be mixed in one evaluation")
        if voltage is None or bit_error_rate is not None:
            raise FaultsimError("a measured chip needs a voltage: its fault map says which cells fail at it")
        return float(voltage), None
    if (voltage is None) == (bit_error_rate is None):
        raise FaultsimError("give either a voltage or a bit error rate")
    if voltage is None:
        return None, checked_rate(bit_error_rate)
    return float(voltage), (curve or VoltageCurve.default()).bit_error_rate(voltage)


def corrupt(
    weights: Tensor,
    chip: Chip | MeasuredChip,
    *,
    voltage: float | None = None,
    bit_error_rate: float | None = None,
    curve: VoltageCurve | None = None,
    faults: FaultModel | None = None,
    base: int = 0,
) -> Tensor:
    """int8 weights of any shape as `chip` reads them, same shape and device; the faults depend on the row-major order
    of the elements only. `base` is the address of the first weight. For a measured chip give the voltage."""
    faults = faults or FaultModel()
    volts, rate = operating_point([chip], voltage, bit_error_rate, curve)
    if isinstance(chip, MeasuredChip):
        return chip.read(weights, volts, faults, base)
    seeds, table = ops.seeds([chip], weights.device), ops.table(rate, weights.device)
    return torch.ops.faultsim.corrupt(weights, seeds, table, ops.rule(faults), ops.place(faults, base))[0]


def corrupt_stored(
    stored: StoredWeights,
    chip: Chip | MeasuredChip,
    *,
    voltage: float | None = None,
    bit_error_rate: float | None = None,
    curve: VoltageCurve | None = None,
    faults: FaultModel | None = None,
) -> StoredWeights:
    """A model's stored weights as `chip` reads them: wrong int8 values, the same scales. Arguments as for corrupt()."""
    faults = faults or FaultModel()
    point = {"voltage": voltage, "bit_error_rate": bit_error_rate, "curve": curve}
    return StoredWeights(
        replace(layer, values=corrupt(layer.values, chip, **point, faults=faults, base=base))
        for layer, base in zip(stored.layers, stored.bases(faults), strict=True)
    )


@contextlib.contextmanager
def perturbed(
    model: nn.Module,
    chip: Chip | MeasuredChip,
    *,
    voltage: float | None = None,
    bit_error_rate: float | None = None,
    curve: VoltageCurve | None = None,
    faults: FaultModel | None = None,
    per_channel: bool = False,
    stored: StoredWeights | None = None,
    access: int = 0,
) -> Iterator[nn.Module]:
    """Inside, `model` computes with its weights as `chip` reads them at a voltage (or bit error rate):

        with perturbed(model, Chip(7), voltage=0.83):
            logits = model(images)

    The weights are quantised to int8 (or taken from `stored`, which saves the time of doing it anew), corrupted and
    dequantised; the model's own parameters are put aside meanwhile, never written to, and are back afterwards bit for
    bit, whatever happens inside. Raises FaultsimError for bad rates and models without weights.
    """
    faults = faults or FaultModel()
    volts, rate = operating_point([chip], voltage, bit_error_rate, curve)
    stored = stored or StoredWeights.of(model, per_channel)
    weights = stored.read_chips([chip], rate, volts, faults, access)
    with stored.replaced([w[0] for w in weights]):
        yield model


def perturb(
    model: nn.Module,
    chip: Chip | MeasuredChip,
    *,
    voltage: float | None = None,
    bit_error_rate: float | None = None,
    curve: VoltageCurve | None = None,
    faults: FaultModel | None = None,
    per_channel: bool = False,
    access: int = 0,
) -> nn.Module:
    """A copy of `model` with the weights that `chip` reads, in float; arguments as for perturbed(). The copy's weights
    are plain parameters, also where the model's were quantisation-aware."""
    volts, rate = operating_point([chip], voltage, bit_error_rate, curve)
    stored = StoredWeights.of(model, per_channel)
    weights = stored.read_chips([chip], rate, volts, faults or FaultModel(), access)
    copied = plain(copy.deepcopy(model))
    with torch.no_grad():
        for layer, weight in zip(stored.layers, weights, strict=True):
            copied.get_submodule(layer.name).weight.copy_(weight[0])
    return copied
