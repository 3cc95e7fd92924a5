"""float <-> int8: symmetric quantization of weights, and training that knows of it.

As in the paper (Appendix A.3): delta = max|w| / 127, q = round(w / delta) in [-127, 127], two's complement; one delta
for a whole tensor, or one for each output channel. Normalization layers and biases stay in float.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .errors import FaultsimError
from .inventory import Select, channel_axis, take_inventory
from .places import Hooked, held, settle_flat

LARGEST = 127
# Below it a float32 has fewer digits, and w / scale could round to more than 127: such weights are as good as zeros.
_LEAST_SCALE = torch.finfo(torch.float32).tiny


def quantize(weight: Tensor, axis: int = -1) -> tuple[Tensor, Tensor]:
    """weight (floating point, any shape) -> (int8 of the same shape in [-127, 127], scale float32).

    axis = -1: one scale, shape []; else one for each index of that dimension, shape [weight.shape[axis]]. A tensor or
    channel of zeros (all below 1.5e-36) gets the scale 1. Raises FaultsimError for weights that are not finite.
    """
    w = weight.detach().float()
    if not bool(torch.isfinite(w).all()):
        raise FaultsimError("weights with NaN or infinity cannot be quantized")
    if w.numel() == 0:
        largest = w.new_zeros([] if axis < 0 else [w.shape[axis]])
    elif axis < 0:
        largest = w.abs().amax()
    else:
        largest = w.abs().amax([d for d in range(w.dim()) if d != axis])
    scale = largest / LARGEST
    scale = torch.where(scale >= _LEAST_SCALE, scale, torch.ones_like(scale))
    return (w / _spread(scale, w.dim(), axis)).round_().to(torch.int8), scale


def dequantize(values: Tensor, scale: Tensor, axis: int = -1) -> Tensor:
    """int8 times scale, float32, same shape as `values`."""
    return values.float() * _spread(scale, values.dim(), axis)


def _spread(scale: Tensor, dimensions: int, axis: int) -> Tensor:
    return scale if axis < 0 else scale.reshape([-1 if d == axis else 1 for d in range(dimensions)])


class _StraightThrough(torch.autograd.Function):
    """Rounds to the int8 grid; the gradient passes as if it hadn't (Bengio et al., arXiv 1308.3432)."""

    @staticmethod
    def forward(ctx, weight: Tensor, axis: int) -> Tensor:
        # Not quantize(): its check for finite numbers would make the host wait for the device at every step.
        w = weight.float()
        largest = (
            w.abs().amax()
            if axis < 0
            else w.abs().amax([d for d in range(w.dim()) if d != axis], keepdim=True)
        )
        scale = largest / LARGEST
        scale = torch.where(scale >= _LEAST_SCALE, scale, torch.ones_like(scale))
        return ((w / scale).round_() * scale).to(weight.dtype)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class FakeQuantize(nn.Module):
    """Parametrization of a weight: forward sees what int8 memory would hold, the gradient passes straight through."""

    rounds_only = True
    """For faultsim.places: it computes with the parameter, but for rounding."""

    def __init__(self, axis: int = -1) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, weight: Tensor) -> Tensor:
        return _StraightThrough.apply(weight, self.axis)


def is_fake(module: nn.Module, attribute: str = "weight") -> bool:
    """Whether prepare_qat() was here."""
    return parametrize.is_parametrized(module, attribute) and any(
        isinstance(p, FakeQuantize) for p in module.parametrizations[attribute]
    )


def prepare_qat(model: nn.Module, per_channel: bool = False, select: Select = None) -> nn.Module:
    """Makes all weights of `model` that lie in the memory (faultsim.inventory; `select` as for StoredWeights.of)
    quantization-aware, in place; returns it. Doing it twice changes nothing. Raises FaultsimError for weights that are
    int8 already and for those that a hook computes (torch's pruning, or weight norm of the old kind)."""
    for weight in take_inventory(model, select).weights:
        kind = weight.held
        if isinstance(kind, Hooked) or kind.is_int8:
            how = "int8 already" if kind.is_int8 else "computed by a hook: make it permanent first"
            raise FaultsimError(f"{weight.tensors[0]} cannot be trained: it is {how}")
        for module, attribute in zip(weight.modules, weight.attributes, strict=True):
            if not is_fake(module, attribute):
                axis = channel_axis(module) if per_channel and weight.axis >= 0 else -1
                # unsafe: registration would otherwise insist that the parametrized weight equal the original
                parametrize.register_parametrization(module, attribute, FakeQuantize(axis), unsafe=True)
    return model


def finish_qat(model: nn.Module) -> nn.Module:
    """Undoes prepare_qat() in place, leaving the quantized values in the weights; returns the model. Layers that share
    a weight go on sharing it."""
    weights: dict[tuple[int, ...], nn.Parameter] = {}
    for module in list(model.modules()):
        if not parametrize.is_parametrized(module):
            continue
        for attribute in [name for name in module.parametrizations if is_fake(module, name)]:
            place = held(module, attribute)
            key = tuple(map(id, place.sources))
            if key not in weights:
                weights[key] = nn.Parameter(getattr(module, attribute).detach().clone())
            place.settle(weights[key])
        settle_flat(module)
    return model
