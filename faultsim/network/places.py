"""How a module holds a tensor that it computes with, and how it is made to compute with another one.

It is a parameter; or computed from parameters before each use (torch.nn.utils.parametrize, or a hook of torch's weight
norm, spectral norm or pruning); or an int8 weight of torch.ao's quantized modules or of torchao.
"""

import contextlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from ..errors import FaultsimError
from .modes import evaluation_mode
from .torch_internals import (
    Hook,
    find_hooks,
    is_packed,
    list_hook_parameters,
    pack_int8,
    remove_hook,
    remove_parametrization,
    set_packed_weight,
    swap_cached,
    swap_flat_weight,
    unpack_int8,
)

Undo = contextlib.ExitStack
Int8 = tuple[Tensor, Tensor, int]  # values, scale float32, axis of the channels or -1


class _Pass(torch.autograd.Function):
    """Compute with `read`; the gradient goes to `own` as if it had been that."""

    @staticmethod
    def forward(ctx, own: Tensor, read: Tensor) -> Tensor:
        return read.view_as(read)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class _Replace(nn.Module):
    """Takes the place of a parametrization; with `own`, that parametrization, the gradient passes on to it."""

    def __init__(self, weight: Tensor, own: nn.Module | None) -> None:
        super().__init__()
        # not buffers or submodules: nothing is to be saved, moved, or listed
        self.weight: Tensor
        object.__setattr__(self, "weight", weight)
        object.__setattr__(self, "own", own)

    def forward(self) -> Tensor:
        own: Any = self.own
        return self.weight if own is None else _Pass.apply(own(), self.weight)


class Held(ABC):
    """A tensor of a module, under the name `attribute`."""

    is_int8 = False
    """Whether it is int8 already; then there are no gradients."""

    def __init__(self, module: nn.Module, attribute: str) -> None:
        # Any: to a type checker each attribute of a module is a tensor or a module
        self.module: Any = module
        self.attribute = attribute

    @property
    def int8(self) -> Int8:
        """Values, scale and axis, where `is_int8`."""
        raise TypeError(f"{self.attribute} is not int8")

    @property
    @abstractmethod
    def sources(self) -> tuple[Tensor, ...]:
        """The parameters that hold it."""

    @abstractmethod
    def value(self) -> Tensor:
        """Return what the module computes with in evaluation mode; nothing of the module changes."""

    @abstractmethod
    def swap(self, weight: Tensor, undo: Undo, straight_through: bool) -> None:
        """Let the module compute with `weight` until `undo` is closed."""

    def in_copies(self, weight: nn.Parameter) -> dict[int, object]:
        """Return the memo with which copy.deepcopy() puts `weight` in its place (or does not fail on it)."""
        return {}

    @abstractmethod
    def settle(self, weight: nn.Parameter) -> None:
        """Make it an ordinary parameter for good; one that was int8 stays int8."""


class Parameter(Held):
    """An entry of the module's parameters."""

    @property
    def sources(self) -> tuple[Tensor, ...]:
        return (self.module._parameters[self.attribute],)

    def value(self) -> Tensor:
        return self.sources[0].detach()

    def swap(self, weight: Tensor, undo: Undo, straight_through: bool) -> None:
        own = self.sources[0]
        weight = _Pass.apply(own, weight) if straight_through else weight
        undo.callback(self.module._parameters.__setitem__, self.attribute, own)
        self.module._parameters[self.attribute] = weight
        swap_flat_weight(self.module, self.attribute, weight, undo)

    def in_copies(self, weight: nn.Parameter) -> dict[int, object]:
        return {id(self.sources[0]): weight}

    def settle(self, weight: nn.Parameter) -> None:
        self.module._parameters[self.attribute] = weight


class Parametrized(Held):
    """Computed by torch.nn.utils.parametrize."""

    @property
    def chain(self) -> Any:
        """The module that computes it."""
        return self.module.parametrizations[self.attribute]

    @property
    def sources(self) -> tuple[Tensor, ...]:
        if isinstance(self.chain, _Replace):
            return (self.chain.weight,)
        return tuple(self.chain.parameters(recurse=False))

    @property
    def rounds_only(self) -> bool:
        """Whether it is the parameter but for rounding (prepare_qat)."""
        parts = [part for name, part in self.chain.named_children()]
        return bool(parts) and all(getattr(part, "rounds_only", False) for part in parts)

    def value(self) -> Tensor:
        with evaluation_mode(self.chain), torch.no_grad():
            return self.chain()  # not the attribute: parametrize.cached() may hold what training mode gave

    def swap(self, weight: Tensor, undo: Undo, straight_through: bool) -> None:
        parts, own = self.module.parametrizations._modules, self.chain
        undo.callback(swap_cached, self.module, self.attribute, swap_cached(self.module, self.attribute))
        undo.callback(parts.__setitem__, self.attribute, own)
        parts[self.attribute] = _Replace(weight, own if straight_through else None)
        if not straight_through:
            swap_flat_weight(self.module, self.attribute, weight, undo)

    def settle(self, weight: nn.Parameter) -> None:
        remove_parametrization(self.module, self.attribute)
        self.module.register_parameter(self.attribute, weight)


class Hooked(Held):
    """Computed by a hook of torch before each call, which keeps the result as a plain attribute."""

    @property
    def hook(self) -> Hook:
        """The hook."""
        return find_hooks(self.module)[self.attribute]

    @property
    def sources(self) -> tuple[Tensor, ...]:
        return tuple(self.module._parameters[name] for name in list_hook_parameters(self.hook))

    def value(self) -> Tensor:
        with torch.no_grad():
            match self.hook:
                case WeightNorm() as hook:
                    return hook.compute_weight(self.module)
                case SpectralNorm() as hook:
                    return hook.compute_weight(self.module, do_power_iteration=False)
                case hook:
                    return hook.apply_mask(self.module)

    def swap(self, weight: Tensor, undo: Undo, straight_through: bool) -> None:
        module, attribute = self.module, self.attribute
        if straight_through:
            after = module.register_forward_pre_hook(
                lambda module, _: setattr(module, attribute, _Pass.apply(getattr(module, attribute), weight))
            )
            undo.callback(after.remove)
            return
        remove_hook(module, self.hook, undo)
        undo.callback(module.__dict__.__setitem__, attribute, module.__dict__[attribute])
        module.__dict__[attribute] = weight
        swap_flat_weight(module, attribute, weight, undo)

    def in_copies(self, weight: nn.Parameter) -> dict[int, object]:
        return {id(self.module.__dict__[self.attribute]): weight}  # a result of autograd cannot be copied

    def settle(self, weight: nn.Parameter) -> None:
        match self.hook:
            case WeightNorm():
                remove_weight_norm(self.module, self.attribute)
            case SpectralNorm():
                remove_spectral_norm(self.module, self.attribute)
            case _:
                prune.remove(self.module, self.attribute)
        self.module._parameters[self.attribute] = weight


class Packed(Held):
    """The weight of one of torch.ao's quantized modules."""

    is_int8 = True

    @property
    def _weight(self) -> Tensor:
        weight: Tensor = self.module.weight()
        return weight

    @property
    def sources(self) -> tuple[Tensor, ...]:
        return ()

    @property
    def int8(self) -> Int8:
        weight = self._weight
        if weight.dtype != torch.qint8:
            raise FaultsimError(f"{weight.dtype} weights of {type(self.module).__name__} are not known")
        return unpack_int8(weight)

    def value(self) -> Tensor:
        return self._weight.dequantize()

    def swap(self, weight: Tensor, undo: Undo, straight_through: bool) -> None:
        self._set(weight, undo)

    def settle(self, weight: nn.Parameter) -> None:
        self._set(weight.detach(), None)

    def _set(self, weight: Tensor, undo: Undo | None) -> None:
        packed = pack_int8(_steps(weight, *self.int8[1:]), self._weight)
        set_packed_weight(self.module, packed, undo)


class Int8Tensor(Parameter):
    """A parameter that is torchao's int8 tensor: `qdata` with a scale for each output channel, or one."""

    is_int8 = True

    def in_copies(self, weight: nn.Parameter) -> dict[int, object]:
        return {}

    @property
    def int8(self) -> Int8:
        weight: Any = self.sources[0]
        values, scale = weight.qdata, weight.scale.detach().float()
        zero = getattr(weight, "zero_point", None)
        if zero is not None and bool(torch.any(zero != 0)):
            raise FaultsimError("int8 weights with a zero point are not known")
        if scale.numel() == 1:
            return values, scale.reshape([]), -1
        axes = [d for d in range(values.dim()) if scale.dim() == values.dim() and scale.shape[d] > 1]
        if len(axes) != 1 or scale.numel() != values.shape[axes[0]]:
            raise FaultsimError(
                f"int8 weights {list(values.shape)} with scales {list(scale.shape)}: one for "
                "each channel, or one in all, is needed"
            )
        return values, scale.reshape(-1), axes[0]

    def value(self) -> Tensor:
        return self.sources[0].detach().dequantize()

    def _with(self, weight: Tensor) -> Tensor:
        own: Any = self.sources[0]
        names, context = own.__tensor_flatten__()
        parts = {name: getattr(own, name) for name in names}
        parts["qdata"] = _steps(weight, *self.int8[1:])
        return type(own).__tensor_unflatten__(parts, context, own.size(), own.stride())

    def swap(self, weight: Tensor, undo: Undo, straight_through: bool) -> None:
        super().swap(self._with(weight), undo, False)

    def settle(self, weight: nn.Parameter) -> None:
        super().settle(nn.Parameter(self._with(weight.detach()), requires_grad=False))


def find_held(module: nn.Module, attribute: str) -> Held:
    """Find how `module` holds the tensor of that name now."""
    own = module._parameters.get(attribute)
    if own is not None:
        return (Int8Tensor if is_int8_tensor(own) else Parameter)(module, attribute)
    if parametrize.is_parametrized(module, attribute):
        return Parametrized(module, attribute)
    if attribute in find_hooks(module):
        return Hooked(module, attribute)
    if attribute == "weight" and is_packed(module):
        return Packed(module, attribute)
    raise FaultsimError(f"{type(module).__name__} has no weight {attribute!r} any more")


def list_held(module: nn.Module) -> list[str]:
    """List the names of all tensors that a module holds in one of these ways, weights or not.

    Their order is by name, with numbers in it as numbers: the same whether or not a tensor is computed.
    """
    hooks = find_hooks(module)
    raw = {name for hook in hooks.values() for name in list_hook_parameters(hook)}
    found = {name for name, own in module._parameters.items() if own is not None} - raw | set(hooks)
    if parametrize.is_parametrized(module):
        chains: Any = module.parametrizations
        found |= set(chains.keys())
    if is_packed(module):
        found.add("weight")
    return sorted(found, key=lambda name: [int(p) if p.isdecimal() else p for p in re.split(r"(\d+)", name)])


def is_int8_tensor(tensor: Any) -> bool:
    """Whether it is torchao's: from outside a float tensor, inside int8 values and scales."""
    if type(tensor) in (Tensor, nn.Parameter) or not hasattr(tensor, "__tensor_flatten__"):
        return False
    names = tensor.__tensor_flatten__()[0]
    return (
        {"qdata", "scale"} <= set(names)
        and tensor.qdata.dtype == torch.int8
        and tensor.qdata.shape == tensor.shape
    )


def _steps(weight: Tensor, scale: Tensor, axis: int) -> Tensor:
    """Return the int8 values of weights that are integers times the scale."""
    if axis >= 0:
        scale = scale.reshape([-1 if d == axis else 1 for d in range(weight.dim())])
    return (weight.float() / scale).round().clamp(-128, 127).to(torch.int8)


def find_copies(module: nn.Module) -> Iterator[tuple[str, object, Tensor]]:
    """Yield tensors that a module keeps as plain attributes, or in plain lists and dictionaries.

    Each is (attribute, key, tensor); the key of an attribute is None.
    """
    for name, value in vars(module).items():
        if name in ("_parameters", "_buffers", "_modules", "_flat_weights"):
            continue
        if isinstance(value, Tensor):
            yield name, None, value
        elif isinstance(value, list | dict):
            pairs = enumerate(value) if isinstance(value, list) else value.items()
            yield from ((name, key, entry) for key, entry in pairs if isinstance(entry, Tensor))


def locate_copy(module: nn.Module, attribute: str, key: object) -> tuple[Any, Any]:
    """Return the container and the key of what find_copies() found."""
    return (vars(module), attribute) if key is None else (vars(module)[attribute], key)


def swap_copy(
    module: nn.Module, attribute: str, key: object, weight: Tensor, undo: Undo, straight_through: bool
) -> None:
    """Put a weight where find_copies() found one, until `undo` is closed."""
    container, key = locate_copy(module, attribute, key)
    undo.callback(container.__setitem__, key, container[key])
    container[key] = _Pass.apply(container[key], weight) if straight_through else weight
