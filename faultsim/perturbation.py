"""A model, a chip, a voltage -> the perturbed model."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from . import ops
from .errors import FaultsimError
from .faults import FaultModel
from .hit_table import checked_rate
from .integers import checked_integer
from .inventory import Select
from .measured_chip import AnyChip, MeasuredChip, as_chip
from .ops import ACCESS_END, BASE_END
from .stored import StoredWeights
from .voltage import VoltageCurve


def operating_point(
    chips: Sequence[AnyChip],
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
    weights: Tensor | np.ndarray,
    chip: AnyChip | int,
    *,
    voltage: float | None = None,
    bit_error_rate: float | None = None,
    curve: VoltageCurve | None = None,
    faults: FaultModel | None = None,
    base: int = 0,
    access: int = 0,
) -> Tensor | np.ndarray:
    """int8 weights of any shape as `chip` reads them, same shape and device; the faults depend on the row-major order
    of the elements only. A NumPy array gives a NumPy array. For a measured chip give the voltage.

    base    address of the first weight, 0 to 2**43
    access  which read it is, 0 to 2**32 - 1 (transient faults)

    Raises FaultsimError for weights that aren't int8, and numbers out of range.
    """
    faults, chip = faults or FaultModel(), as_chip(chip)
    base = checked_integer(base, "base", 0, BASE_END)
    access = checked_integer(access, "access", 0, ACCESS_END - 1)
    given = weights
    if isinstance(weights, np.ndarray) and weights.dtype == np.int8:
        weights = torch.from_numpy(np.array(weights, order="C"))
    if not isinstance(weights, Tensor) or weights.dtype != torch.int8:
        kind = getattr(given, "dtype", type(given).__name__)
        raise FaultsimError(
            f"weights must be an int8 tensor or array, not {kind}: faultsim.quantize makes int8 of floats"
        )
    volts, rate = operating_point([chip], voltage, bit_error_rate, curve)
    if isinstance(chip, MeasuredChip):
        read = chip.read(weights, volts, faults, base)
    else:
        seeds, table = ops.seeds([chip], weights.device), ops.table(rate, weights.device)
        which = torch.tensor([access], device=weights.device) if access else None
        place = ops.place(faults, base)
        read = torch.ops.faultsim.corrupt(weights, seeds, table, ops.rule(faults), place, None, which)[0]
    return read.numpy() if isinstance(given, np.ndarray) else read


def stored_weights(
    model: nn.Module, stored: StoredWeights | None, per_channel: bool, select: Select
) -> StoredWeights:
    """`stored`, once they are found to be those of `model`, or its weights newly stored."""
    if stored is None:
        return StoredWeights.of(model, per_channel, select)
    if per_channel or select is not None:
        raise FaultsimError("per_channel and select have no meaning for weights that are stored already")
    stored.check(model)
    return stored


def corrupt_stored(
    stored: StoredWeights,
    chip: AnyChip,
    *,
    voltage: float | None = None,
    bit_error_rate: float | None = None,
    curve: VoltageCurve | None = None,
    faults: FaultModel | None = None,
) -> StoredWeights:
    """A model's stored weights as `chip` reads them: wrong int8 values, the same scales. Arguments as for corrupt()."""
    faults = faults or FaultModel()
    point = {"voltage": voltage, "bit_error_rate": bit_error_rate, "curve": curve}
    return stored.with_layers(
        replace(layer, values=corrupt(layer.values, chip, **point, faults=faults, base=base))
        for layer, base in zip(stored.layers, stored.bases(faults), strict=True)
    )


@contextlib.contextmanager
def perturbed(
    model: nn.Module,
    chip: AnyChip | int,
    *,
    voltage: float | None = None,
    bit_error_rate: float | None = None,
    curve: VoltageCurve | None = None,
    faults: FaultModel | None = None,
    per_channel: bool = False,
    select: Select = None,
    stored: StoredWeights | None = None,
    access: int = 0,
    straight_through: bool = False,
) -> Iterator[nn.Module]:
    """Inside, `model` computes with its weights as `chip` reads them at a voltage (or bit error rate):

        with perturbed(model, Chip(7), voltage=0.83):
            logits = model(images)

    The weights (which: `select`, as for StoredWeights.of) are quantized to int8, or taken from `stored`, which saves
    the time of doing it anew, corrupted and dequantized; the model's own parameters are put aside meanwhile, never
    written to, and are back afterwards bit for bit, whatever happens inside.

    Gradients reach the inputs and the parameters that aren't stored, and not the weights: their `grad` stays None.
    With `straight_through` they reach the model's own float weights as if these had been read, for training that knows
    of faults.

    Raises FaultsimError for bad rates, models without weights, `stored` of another model or from before it was changed,
    and straight_through of weights that are int8 already.
    """
    faults, chip = faults or FaultModel(), as_chip(chip)
    volts, rate = operating_point([chip], voltage, bit_error_rate, curve)
    stored = stored_weights(model, stored, per_channel, select)
    if straight_through and (fixed := [layer.tensors[0] for layer in stored.layers if layer.held.is_int8]):
        raise FaultsimError(f"straight_through: {fixed[0]} is int8 and cannot be trained")
    weights = stored.read_chips([chip], rate, volts, faults, access)
    with stored.replaced([w[0] for w in weights], straight_through):
        yield model


def perturb(
    model: nn.Module,
    chip: AnyChip | int,
    *,
    voltage: float | None = None,
    bit_error_rate: float | None = None,
    curve: VoltageCurve | None = None,
    faults: FaultModel | None = None,
    per_channel: bool = False,
    select: Select = None,
    access: int = 0,
) -> nn.Module:
    """A copy of `model` with the weights that `chip` reads, in float; arguments as for perturbed(). The copy's weights
    are plain parameters, also where the model's are computed (quantization-aware, weight norm, ...); int8 weights of
    torch.ao and torchao stay int8."""
    chip = as_chip(chip)
    volts, rate = operating_point([chip], voltage, bit_error_rate, curve)
    stored = StoredWeights.of(model, per_channel, select)
    weights = stored.read_chips([chip], rate, volts, faults or FaultModel(), access)
    return stored.copy(model, [weight[0] for weight in weights])
