"""Batch normalization as part of the convolution in front of it, for a frozen model that runs many times.

In evaluation mode batch normalization is y -> gain * y + shift, one pair a channel. Behind a convolution with weights
scale * q it needs no pass of its own over the maps, forward or backward: the int8 values stay as they are stored, and
gain * scale takes the place of their scale (one for each output channel).
"""

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..formats import IntegerFormat
from ..kernel import ops
from ..network.inventory import find_channel_axis
from ..stored import StoredLayer, StoredWeights
from .tracing import Tracer

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_NORMALIZATIONS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@contextlib.contextmanager
def folded(model: nn.Module, stored: StoredWeights) -> Iterator[StoredWeights]:
    """Let convolutions do the batch normalization that directly follows them, inside a `with` block.

    Each such normalization lets everything pass, and the convolution has the bias that this needs. With the weights
    that the StoredWeights of the block reads (the same int8 values, other scales) the model computes what it did, up to
    rounding. Afterwards it is as it was.

    The model has to be in evaluation mode. What cannot be folded stays as it is: layers in float64 (the kernel writes
    float32 at most) or stored in a floating-point format, modules with hooks or that are used more than once,
    convolutions whose output goes elsewhere too, and everything in a model whose forward method torch.fx cannot trace.

    Parameters
    ----------
    model
        Any module, in evaluation mode.
    stored
        Its weights.
    """
    followers = _followers(model)
    # with faults in a bias or a normalization too, both stay what they are
    several = Counter(module for layer in stored.layers for module in layer.modules)
    layers = []
    with contextlib.ExitStack() as undo:
        for layer in stored.layers:
            normalization = followers.get(layer.name)
            alone = len(layer.names) == 1 and several[layer.modules[0]] == 1
            scaled = isinstance(layer.format, IntegerFormat) and layer.dtype in ops.FLOATS
            if normalization is None or several[normalization] or not alone or not scaled:
                layers.append(layer)
                continue
            layer, bias = _fold(layer, normalization)
            convolution: Any = layer.modules[0]
            undo.callback(convolution._parameters.__setitem__, "bias", convolution._parameters["bias"])
            convolution._parameters["bias"] = bias
            undo.callback(delattr, normalization, "forward")
            normalization.forward = pass_on
            layers.append(layer)
        yield stored.with_layers(layers)


def _fold(layer: StoredLayer, normalization: Any) -> tuple[StoredLayer, Tensor]:
    """Return the layer with the scales, and the bias, of convolution and normalization together."""
    convolution: Any = layer.modules[0]
    with torch.no_grad():
        gain = (normalization.running_var.double() + normalization.eps).rsqrt()
        if normalization.weight is not None:
            gain *= normalization.weight
        bias = -normalization.running_mean.double()
        if convolution.bias is not None:
            bias += convolution.bias
        bias *= gain
        if normalization.bias is not None:
            bias += normalization.bias
        scale = (layer.scale * gain).float()
        center = None if layer.center is None else (layer.center * gain).float()
    axis = find_channel_axis(convolution)
    return replace(layer, scale=scale, center=center, axis=axis), bias.to(layer.dtype)


def pass_on(inputs: Tensor) -> Tensor:
    """Return the inputs: what a module does whose work another one has taken over."""
    return inputs


class _Tracer(Tracer):
    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, _CONVOLUTIONS + _NORMALIZATIONS) or super().is_leaf_module(module, name)


def _followers(model: nn.Module) -> dict[str, Any]:
    """Find the normalization behind each convolution that has one and nothing else behind it, by its name."""
    try:
        graph = _Tracer().trace(model)
    except Exception:  # whatever a forward method does that has no static graph: the model then runs as it is
        return {}
    modules: dict[Any, Any] = dict(model.named_modules())
    calls = [node for node in graph.nodes if node.op == "call_module"]
    uses = Counter(id(modules[node.target]) for node in calls)

    def plain(node: fx.Node | None, kinds: tuple[type, ...]) -> bool:
        if node is None or node.op != "call_module":
            return False
        module = modules[node.target]
        hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
        return isinstance(module, kinds) and uses[id(module)] == 1 and not any(hooks)

    found: dict[str, Any] = {}
    for node in calls:
        follower = next(iter(node.users), None)
        if len(node.users) != 1 or not plain(node, _CONVOLUTIONS):
            continue
        if follower is None or not plain(follower, _NORMALIZATIONS):
            continue
        normalization = modules[follower.target]
        if normalization.running_var is not None and follower.args == (node,):
            found[str(node.target)] = normalization
    return found
