"""A model, a chip, a voltage -> the perturbed model."""

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from .chips.measured_chip import AnyChip, MeasuredChip, as_chip
from .errors import FaultsimError
from .faults import FaultModel
from .formats import INT8, AnyFormat, as_format
from .hit_table import checked_rate
from .kernel.ops import ACCESS_END, BASE_END
from .mitigations.protected import ProtectedWeights
from .network.inventory import Select
from .reading import read_chips
from .stored import StoredWeights
from .support.integers import checked_integer
from .voltage import VoltageCurve


def resolve_operating_point(
    chips: Sequence[AnyChip],
    voltage: float | None,
    bit_error_rate: float | None,
    curve: VoltageCurve | None,
) -> tuple[float | None, float | None]:
    """Turn a voltage or a bit error rate into both.

    Returns
    -------
    voltage : float or None
        None where the bit error rate was given.
    bit_error_rate : float or None
        None for measured chips, whose fault maps say which cells fail.

    Raises
    ------
    FaultsimError
        Unless one of both is given, and the one that the chips need.
    """
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
    """Return int8 weights as a chip reads them.

    Parameters
    ----------
    weights
        int8 tensor or NumPy array of any shape; the faults depend on the row-major order of its elements only.
    chip
        A simulated chip, its seed, or a measured chip.
    voltage, bit_error_rate
        The operating point: one of both. A measured chip needs a voltage.
    curve
        Bit error rate against voltage. Default: the paper's SRAM.
    faults
        Kind of fault and memory. Default: flips, every weight in cells of its own.
    base
        Address of the first weight, 0 to 2**43.
    access
        Which read it is, 0 to 2**32 - 1 (transient faults).

    Returns
    -------
    Tensor or ndarray
        Of the type, shape and device of `weights`.

    Raises
    ------
    FaultsimError
        For weights that are not int8, and numbers out of range.
    """
    faults, chip = (faults or FaultModel()).resolve(curve), as_chip(chip)
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
    volts, rate = resolve_operating_point([chip], voltage, bit_error_rate, curve)
    read = read_chips(weights, [chip], rate, volts, faults, base, ("",), INT8, access)[0]
    return read.numpy() if isinstance(given, np.ndarray) else read


def resolve_stored(
    model: nn.Module,
    stored: StoredWeights | None,
    per_channel: bool,
    select: Select,
    format: AnyFormat = INT8,
) -> StoredWeights:
    """Return `stored`, after checking that they are the weights of `model`, or store its weights."""
    if stored is None:
        return StoredWeights.of(model, per_channel, select, format)
    if per_channel or select is not None or as_format(format) != INT8:
        raise FaultsimError(
            "per_channel, select and format cannot be combined with stored weights: give them to StoredWeights.of"
        )
    stored.check(model)
    return stored


def resolve_faults(
    faults: FaultModel | None, stored: StoredWeights, curve: VoltageCurve | None
) -> FaultModel:
    """Return the fault model with the bit error rates of its voltage domains, after checking that they fit."""
    faults = (faults or FaultModel()).resolve(curve)
    stored.check_domains(faults)
    return faults


def corrupt_stored(
    stored: StoredWeights,
    chip: AnyChip | int,
    *,
    voltage: float | None = None,
    bit_error_rate: float | None = None,
    curve: VoltageCurve | None = None,
    faults: FaultModel | None = None,
) -> StoredWeights:
    """Return a model's stored weights as a chip reads them: other values, the same scales.

    Parameters
    ----------
    stored
        The weights in memory, from `StoredWeights.of`.
    chip
        A simulated chip, its seed, or a measured chip.
    voltage, bit_error_rate
        The operating point: one of both. A measured chip needs a voltage.
    curve
        Bit error rate against voltage. Default: the paper's SRAM.
    faults
        Kind of fault and memory. Default: flips, every weight in cells of its own.
    """
    faults = resolve_faults(faults, stored, curve)
    chip = as_chip(chip)
    volts, rate = resolve_operating_point([chip], voltage, bit_error_rate, curve)
    if isinstance(stored, ProtectedWeights):
        read = stored.read_images([chip], rate, volts, faults)
        return StoredWeights(
            (layer.with_image(image[0]) for layer, image in zip(stored.layers, read, strict=True)),
            stored.left_out,
        )
    return stored.with_layers(
        layer.with_image(
            read_chips(layer.image, [chip], rate, volts, faults, base, layer.tensors, layer.format)[0]
        )
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
    format: AnyFormat = INT8,
    stored: StoredWeights | None = None,
    access: int = 0,
    straight_through: bool = False,
) -> Iterator[nn.Module]:
    """Run a model with its weights as a chip reads them, inside a `with` block.

        with perturbed(model, Chip(7), voltage=0.83):
            logits = model(images)

    The weights are quantized to int8 (or what `format` says), corrupted and dequantized. The model's own parameters are
    put aside meanwhile, never written to, and are back afterwards bit for bit, whatever happens inside.

    Gradients reach the inputs and the parameters that are not stored; the `grad` of stored weights stays None, unless
    `straight_through` is set.

    Parameters
    ----------
    model
        Any module.
    chip
        A simulated chip, its seed, or a measured chip.
    voltage, bit_error_rate
        The operating point: one of both. A measured chip needs a voltage.
    curve
        Bit error rate against voltage. Default: the paper's SRAM.
    faults
        Kind of fault and memory. Default: flips, every weight in cells of its own.
    per_channel, select, format
        How the weights are stored, and which of them lie in the memory; see `StoredWeights.of`.
    stored
        The model's weights, stored already; saves the time to quantize them again.
    access
        Which read it is (transient faults).
    straight_through
        Gradients reach the model's own float weights as if these had been read: for training with faults.

    Raises
    ------
    FaultsimError
        For operating points out of range, models without weights, `stored` of another model or from before it was
        changed, and `straight_through` with weights that are int8 already.
    """
    chip = as_chip(chip)
    volts, rate = resolve_operating_point([chip], voltage, bit_error_rate, curve)
    stored = resolve_stored(model, stored, per_channel, select, format)
    faults = resolve_faults(faults, stored, curve)
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
    format: AnyFormat = INT8,
    access: int = 0,
) -> nn.Module:
    """Copy a model with the weights that a chip reads, in float.

    Parameters
    ----------
    model
        Any module. It is not changed.
    chip
        A simulated chip, its seed, or a measured chip.
    voltage, bit_error_rate
        The operating point: one of both. A measured chip needs a voltage.
    curve
        Bit error rate against voltage. Default: the paper's SRAM.
    faults
        Kind of fault and memory. Default: flips, every weight in cells of its own.
    per_channel, select, format
        How the weights are stored, and which of them lie in the memory; see `StoredWeights.of`.
    access
        Which read it is (transient faults).

    Returns
    -------
    Module
        Its weights are plain parameters, also where the model's are computed (quantization-aware, weight norm, ...);
        int8 weights of torch.ao and torchao stay int8.
    """
    chip = as_chip(chip)
    volts, rate = resolve_operating_point([chip], voltage, bit_error_rate, curve)
    stored = StoredWeights.of(model, per_channel, select, format)
    weights = stored.read_chips([chip], rate, volts, resolve_faults(faults, stored, curve), access)
    return stored.copy(model, [weight[0] for weight in weights])
