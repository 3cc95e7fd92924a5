"""Parameters and multiply-accumulates (MACs) of a model: the usual count, and the one of the paper's Table 8.

The usual count is PyTorch's own (`torch.utils.flop_counter`; one MAC is two FLOPs): convolutions and matrix
products, nothing else. The counter behind Table 8 differs from it in two ways; with both, its figures come
out to the digit printed, except for ResNet18's (0.014 % apart):

- It adds the other operations of the network's layers. Per element of its output, a bias counts 1 and an
  upsampling 1. Per element of its input, batch normalization counts 2, ReLU 1 and pooling 1. Tanh and the
  additions of shortcuts count nothing.
- It counts a transposed convolution as if its whole kernel met every pixel of its output, four times the
  real work at stride 2.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor, nn

from .dry_run import Example, dry_run
from .flops import Counter

_CONVOLUTIONS = (nn.modules.conv._ConvNd, nn.Linear)
_TRANSPOSED = nn.modules.conv._ConvTransposeNd
_POOLS = (
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
)


@dataclass(frozen=True)
class Costs:
    """Size and work of a model for one input."""

    parameters: int
    """Elements of all parameters, each tensor once."""
    macs: int
    """Multiply-accumulates of convolutions and matrix products."""
    table8_macs: int
    """The same by the convention of the paper's Table 8."""


def count_costs(model: nn.Module, input_shape: Sequence[int] | Example) -> Costs:
    """Count the parameters and multiply-accumulates of a model for one input.

    Parameters
    ----------
    model
        Any module. It is unchanged afterwards.
    input_shape
        Shape of one input without the batch, such as (3, 32, 32), or an example of the inputs.

    Raises
    ------
    EnergyError
        For a bad shape, and for a model that cannot run on it.
    """
    watch = dry_run(model, input_shape, lambda counter: _Watch(model, counter))
    macs = watch.flops.get_total_flops() // 2
    return Costs(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        macs=macs,
        table8_macs=macs + watch.extra,
    )


class _Watch(contextlib.ExitStack):
    """Counts what the model does: PyTorch's FLOPs, and Table 8's extra operations."""

    def __init__(self, model: nn.Module, flops: Counter) -> None:
        super().__init__()
        self.extra = 0
        self.flops = flops
        self._model = model

    def __enter__(self) -> Self:
        for module in self._model.modules():
            self.callback(module.register_forward_hook(self._add).remove)
        self.enter_context(self.flops)
        return self

    def _add(self, module: nn.Module, args: tuple[Any, ...], output: object) -> None:
        if not args or not isinstance(args[0], Tensor) or not isinstance(output, Tensor):
            return
        self.extra += _extra_operations(module, args[0], output)


def _extra_operations(module: Any, x: Tensor, y: Tensor) -> int:
    if isinstance(module, _CONVOLUTIONS):
        bias = y.numel() if module.bias is not None else 0
        if isinstance(module, _TRANSPOSED):
            pixels = y.numel() // module.out_channels - x.numel() // module.in_channels
            return bias + pixels * module.weight.numel()
        return bias
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return 2 * x.numel()
    if isinstance(module, (nn.ReLU, *_POOLS)):
        return x.numel()
    if isinstance(module, nn.Upsample):
        return y.numel()
    return 0
