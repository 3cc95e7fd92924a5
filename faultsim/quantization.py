"""Float <-> int8: symmetric quantization of weights, and quantization-aware training.

As in the paper (Appendix A.3): delta = max|w| / 127, q = round(w / delta) in [-127, 127], two's complement; one delta
for a whole tensor, or one for each output channel. Normalization layers and biases stay in float.
"""

from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .errors import FaultsimError
from .formats import INT8, AnyFormat, Format, as_format
from .network.inventory import Select, find_channel_axis, take_inventory
from .network.places import Hooked, find_held
from .network.torch_internals import rebuild_flat_weights

M = TypeVar("M", bound=nn.Module)


def quantize(weight: Tensor, axis: int = -1) -> tuple[Tensor, Tensor]:
    """Quantize weights to int8.

    Parameters
    ----------
    weight
        Floating point, any shape.
    axis
        Dimension with a scale for each index; -1: one scale.

    Returns
    -------
    values : Tensor
        int8 in [-127, 127], the shape of `weight`.
    scale : Tensor
        float32, shape [] or [weight.shape[axis]]: weight = values * scale but for rounding. A tensor or channel of
        zeros (all below 1.5e-36) has the scale 1.

    Raises
    ------
    FaultsimError
        For weights that are not finite.
    """
    values, grid = INT8.encode(weight, axis)
    return values, grid.scale.flatten() if axis >= 0 else grid.scale


def dequantize(values: Tensor, scale: Tensor, axis: int = -1) -> Tensor:
    """Return int8 values times their scale, float32, same shape; `axis` as for `quantize`."""
    if axis >= 0:
        scale = scale.reshape([-1 if d == axis else 1 for d in range(values.dim())])
    return values.float() * scale


class _StraightThrough(torch.autograd.Function):
    """Round to the grid of a format; the gradient passes as if it hadn't (Bengio et al., arXiv 1308.3432)."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, axis: int, stored: Format) -> Tensor:
        # Not encode(): its check for finite numbers would make the host wait for the device at every step.
        return stored.round(weight, axis).to(weight.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient, None, None


class FakeQuantize(nn.Module):
    """Parametrization of a weight: forward sees what the memory would hold, the gradient passes straight through."""

    rounds_only = True
    """It computes with the parameter but for rounding (see faultsim.network.places)."""

    def __init__(self, axis: int = -1, stored: Format = INT8) -> None:
        super().__init__()
        self.axis, self.stored = axis, stored

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight rounded to the format's grid."""
        rounded: Tensor = _StraightThrough.apply(weight, self.axis, self.stored)  # type: ignore[no-untyped-call]
        return rounded


def is_fake(module: nn.Module, attribute: str = "weight") -> bool:
    """Whether prepare_qat() made the weight quantization-aware."""
    chains: Any = getattr(module, "parametrizations", None)
    return parametrize.is_parametrized(module, attribute) and any(
        isinstance(part, FakeQuantize) for part in chains[attribute]
    )


def prepare_qat(model: M, per_channel: bool = False, select: Select = None, format: AnyFormat = INT8) -> M:
    """Make the weights of a model quantization-aware, in place: forward sees the grid of the format.

    Doing it twice changes nothing.

    Parameters
    ----------
    model
        Any module.
    per_channel, select, format
        As for `StoredWeights.of`.

    Returns
    -------
    Module
        The model itself.

    Raises
    ------
    FaultsimError
        For weights that are int8 already, and for those that a hook computes (pruning, the old weight norm).
    """
    stored = as_format(format)
    for weight in take_inventory(model, select).weights:
        kind = weight.held
        if isinstance(kind, Hooked) or kind.is_int8:
            how = "int8 already" if kind.is_int8 else "computed by a hook: make it permanent first"
            raise FaultsimError(f"{weight.tensors[0]} cannot be trained: it is {how}")
        for module, attribute in zip(weight.modules, weight.attributes, strict=True):
            if not is_fake(module, attribute):
                axis = find_channel_axis(module) if per_channel and weight.axis >= 0 else -1
                # unsafe: registration would otherwise insist that the parametrized weight equal the original
                parametrize.register_parametrization(
                    module, attribute, FakeQuantize(axis, stored), unsafe=True
                )
    return model


def finish_qat(model: M) -> M:
    """Undo `prepare_qat` in place, leaving the quantized values in the weights.

    Layers that share a weight go on sharing it. Returns the model itself.
    """
    weights: dict[tuple[int, ...], nn.Parameter] = {}
    for module in list(model.modules()):
        chains: Any = getattr(module, "parametrizations", ())
        for attribute in [name for name in chains if is_fake(module, name)]:
            place = find_held(module, attribute)
            key = tuple(map(id, place.sources))
            if key not in weights:
                weights[key] = nn.Parameter(getattr(module, attribute).detach().clone())
            place.settle(weights[key])
        rebuild_flat_weights(module)
    return model
