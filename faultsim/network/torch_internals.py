"""Everything here relies on names or behavior that torch does not document. Checked with torch 2.13.

A new version of torch is checked by tests/torch/test_faulty_weights.py and test_quantization.py, which replace and
restore the weights of modules of every kind below.
"""

import contextlib
import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

Hook = WeightNorm | SpectralNorm | prune.BasePruningMethod
"""A forward pre-hook of torch that computes a tensor before each call and keeps it as a plain attribute."""

NORMALIZATIONS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
"""Modules whose parameters scale and shift channels."""
CONVOLUTIONS = nn.modules.conv._ConvNd
"""Base class of all convolutions, transposed ones included."""

_PER_TENSOR = (torch.per_tensor_affine, torch.per_tensor_symmetric)


# -- parametrizations -------------------------------------------------------------------------------------------


def remove_parametrization(module: nn.Module, attribute: str) -> None:
    """Take a parametrization off one module, and the tensor with it.

    torch's remove_parametrizations() removes the property from the class, which deep copies share.
    """
    cls = type(module)
    chains: Any = module.parametrizations
    del chains[attribute]
    if len(chains):
        rest = {name: value for name, value in vars(cls).items() if name != attribute}
        module.__class__ = type(cls.__name__, cls.__bases__, rest)
    else:
        del module.parametrizations
        module.__class__ = cls.__bases__[0]


def swap_cached(module: nn.Module, attribute: str, tensor: Tensor | None = None) -> Tensor | None:
    """Take a tensor out of what parametrize.cached() keeps and return it; put `tensor` in instead, if it is given."""
    key = id(module), attribute
    known: Tensor | None = parametrize._cache.pop(key, None)
    if tensor is not None and parametrize._cache_enabled:
        parametrize._cache[key] = tensor
    return known


# -- hooks ------------------------------------------------------------------------------------------------------


def find_hooks(module: nn.Module) -> dict[str, Hook]:
    """Find the hooks that compute a tensor of the module before each call, by the tensor's name."""
    return {
        name: hook
        for hook in module._forward_pre_hooks.values()
        if isinstance(hook, Hook) and (name := _hooked_name(hook)) in module.__dict__
    }


def list_hook_parameters(hook: Hook) -> tuple[str, ...]:
    """List the parameters that a hook computes its tensor from."""
    if isinstance(hook, WeightNorm):
        return f"{hook.name}_g", f"{hook.name}_v"
    return (f"{_hooked_name(hook)}_orig",)


def _hooked_name(hook: Hook) -> str:
    return str(hook._tensor_name if isinstance(hook, prune.BasePruningMethod) else hook.name)


def remove_hook(module: nn.Module, hook: Hook, undo: contextlib.ExitStack) -> None:
    """Take a hook off the module until `undo` is closed; the order of the hooks is kept."""
    hooks, before = module._forward_pre_hooks, dict(module._forward_pre_hooks)

    def put_back() -> None:
        inside = dict(hooks)
        hooks.clear()
        hooks.update(before | inside)

    undo.callback(put_back)
    for key, value in before.items():
        if value is hook:
            del hooks[key]
            break


# -- recurrent layers ---------------------------------------------------------------------------------------------


def swap_flat_weight(module: nn.Module, attribute: str, weight: Tensor, undo: contextlib.ExitStack) -> None:
    """Put a weight into the list that a recurrent layer computes with, until `undo` is closed.

    The layer would make a new list, with all weights flattened into one piece of memory, when it sees another weight.
    """
    if not isinstance(module, nn.RNNBase) or attribute not in module._flat_weights_names:
        return
    at = module._flat_weights_names.index(attribute)
    for name, entry in (("_flat_weights", weight), ("_flat_weight_refs", weakref.ref(weight))):
        own = module.__dict__[name]
        undo.callback(module.__dict__.__setitem__, name, own)
        module.__dict__[name] = [*own[:at], entry, *own[at + 1 :]]


def memo_flat_weights(module: nn.Module) -> dict[int, object]:
    """Return what copy.deepcopy() has to know of a recurrent layer's list of weights: its memo.

    Computed weights are results of autograd, which cannot be copied.
    """
    flat = module._flat_weights if isinstance(module, nn.RNNBase) else ()
    return {id(w): w.detach() for w in flat if isinstance(w, Tensor) and not w.is_leaf}


def rebuild_flat_weights(module: nn.Module) -> None:
    """Let a recurrent layer make its list of weights anew, after its parameters were replaced."""
    if isinstance(module, nn.RNNBase):
        module._init_flat_weights()


# -- int8 weights ---------------------------------------------------------------------------------------------------


def is_packed(module: nn.Module) -> bool:
    """Whether it is one of torch.ao's quantized modules with one weight."""
    name = type(module).__module__
    quantized = ".nn.quantized" in name or ".nn.intrinsic.quantized" in name
    return quantized and callable(getattr(module, "weight", None)) and hasattr(module, "set_weight_bias")


def unpack_int8(weight: Tensor) -> tuple[Tensor, Tensor, int]:
    """Return values int8, scale float32 and axis (-1: one scale) of a tensor of torch's type qint8."""
    if weight.qscheme() in _PER_TENSOR:
        return weight.int_repr(), torch.tensor(weight.q_scale(), dtype=torch.float32), -1
    return weight.int_repr(), weight.q_per_channel_scales().float(), weight.q_per_channel_axis()


def pack_int8(values: Tensor, like: Tensor) -> Tensor:
    """Return int8 values as a tensor of type qint8, with the scales and zero points of another one."""
    if like.qscheme() in _PER_TENSOR:
        packed = torch._make_per_tensor_quantized_tensor(values, like.q_scale(), like.q_zero_point())
    else:
        packed = torch._make_per_channel_quantized_tensor(
            values, like.q_per_channel_scales(), like.q_per_channel_zero_points(), like.q_per_channel_axis()
        )
    return packed


def set_packed_weight(module: Any, weight: Tensor, undo: contextlib.ExitStack | None) -> None:
    """Give one of torch.ao's modules another weight of type qint8, until `undo` is closed; None: for good."""
    holder = getattr(module, "_packed_params", module)
    if undo is not None:
        # linear layers keep it in a module of its own
        owner = holder if isinstance(holder, nn.Module) else module
        undo.callback(setattr, owner, "_packed_params", owner._packed_params)
    module.set_weight_bias(weight, module.bias())


# -- tensor subclasses ------------------------------------------------------------------------------------------------


def computes_as_tensor(kind: type[Tensor]) -> bool:
    """Whether a subclass of Tensor computes as Tensor does."""
    functions = [getattr(k.__torch_function__, "__func__", k.__torch_function__) for k in (kind, Tensor)]
    own = functions[0] not in (functions[1], torch._C._disabled_torch_function_impl)
    return not own and kind.__torch_dispatch__ is Tensor.__torch_dispatch__


# -- the exporter to ONNX ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def quiet_exporter() -> Iterator[None]:
    """Keep the exporter's log off: it turns that on, whatever it was, and prints the whole graph when it fails."""
    turn_on = torch._C._jit_set_onnx_log_enabled
    torch._C._jit_set_onnx_log_enabled = lambda enabled: None
    try:
        yield
    finally:
        torch._C._jit_set_onnx_log_enabled = turn_on
