"""float <-> int8: symmetric quantisation of weights, and training that knows of it.

As in the paper (Appendix A.3): delta = max|w| / 127, q = round(w / delta) in [-127, 127], two's complement; one delta
for a whole tensor, or one for each output channel. Normalisation layers and biases stay in float.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .errors import FaultsimError

WEIGHT_MODULES = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.Linear,
    nn.Embedding,
)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
LARGEST = 127
# Below it a float32 has fewer digits, and w / scale could round to more than 127: such weights are as good as zeros.
_LEAST_SCALE = torch.finfo(torch.float32).tiny


def channel_axis(module: nn.Module) -> int:
    """Dimension of `module.weight` that runs over output channels."""
    return 1 if isinstance(module, _TRANSPOSED) else 0


def quantize(weight: Tensor, axis: int = -1) -> tuple[Tensor, Tensor]:
    """weight (floating point, any shape) -> (int8 of the same shape in [-127, 127], scale float32).

    axis = -1: one scale, shape []; else one for each index of that dimension, shape [weight.shape[axis]]. A tensor or
    channel of zeros (all below 1.5e-36) gets the scale 1. Raises FaultsimError for weights that are not finite.
    """
    w = weight.detach().float()
    if not bool(torch.isfinite(w).all()):
        raise FaultsimError("weights with NaN or infinity cannot be quantised")
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
    """Parametrisation of a weight: forward sees what int8 memory would hold, the gradient passes straight through."""

    def __init__(self, axis: int = -1) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, weight: Tensor) -> Tensor:
        return _StraightThrough.apply(weight, self.axis)


def is_fake(module: nn.Module) -> bool:
    """Whether prepare_qat() was here."""
    return parametrize.is_parametrized(module, "weight") and any(
        isinstance(p, FakeQuantize) for p in module.parametrizations.weight
    )


def prepare_qat(model: nn.Module, per_channel: bool = False) -> nn.Module:
    """Makes the weights of all convolutions, linear layers and embeddings of `model` quantisation-aware, in place;
    returns it. Doing it twice changes nothing."""
    for module in list(model.modules()):
        if isinstance(module, WEIGHT_MODULES) and not is_fake(module):
            axis = channel_axis(module) if per_channel else -1
            # unsafe: registration would otherwise insist that the parametrised weight equal the original
            parametrize.register_parametrization(module, "weight", FakeQuantize(axis), unsafe=True)
    return model


def finish_qat(model: nn.Module) -> nn.Module:
    """Undoes prepare_qat() in place, leaving the quantised values in the weights; returns the model. Layers that share
    a weight go on sharing it."""
    return _made_plain(model, is_fake)


def plain(model: nn.Module) -> nn.Module:
    """Makes every weight that is computed by parametrisations (quantisation-aware, weight norm, ...) an ordinary
    parameter of the same value, in place; returns the model. Layers that share a weight go on sharing it."""
    return _made_plain(model, lambda module: parametrize.is_parametrized(module, "weight"))


def _made_plain(model: nn.Module, wanted: Callable[[nn.Module], bool]) -> nn.Module:
    weights: dict[tuple[int, ...], nn.Parameter] = {}
    for module in list(model.modules()):
        if not (isinstance(module, WEIGHT_MODULES) and wanted(module)):
            continue
        key = owners(module)
        if key not in weights:
            weights[key] = nn.Parameter(module.weight.detach().clone())
        # torch's remove_parametrizations() takes the property off the class, which deep copies share.
        cls = type(module)
        del module.parametrizations["weight"]
        if len(module.parametrizations):
            rest = {name: value for name, value in vars(cls).items() if name != "weight"}
            module.__class__ = type(cls.__name__, cls.__bases__, rest)
        else:
            del module.parametrizations
            module.__class__ = cls.__bases__[0]
        module.weight = weights[key]
    return model


def owners(module: nn.Module) -> tuple[int, ...]:
    """Identity of the parameters that hold `module.weight`: equal for layers that share it."""
    if parametrize.is_parametrized(module, "weight"):
        return tuple(id(p) for p in module.parametrizations.weight.parameters(recurse=False))
    return (id(module.weight),)
