"""How a module holds a tensor that it computes with, and how it is made to compute with another one.

A parameter; a tensor that is computed from parameters before each use (torch.nn.utils.parametrize, or a hook of
torch's weight norm, spectral norm or pruning); an int8 weight of torch.ao's quantized modules or of torchao.
"""

import contextlib
import re
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from .errors import FaultsimError
from .modes import evaluation_mode

Undo = contextlib.ExitStack
Int8 = tuple[Tensor, Tensor, int]  # values, scale float32, axis of the channels or -1


class _Pass(torch.autograd.Function):
    """Computes with `read`; the gradient goes to `own` as if it had been that."""

    @staticmethod
    def forward(ctx, own: Tensor, read: Tensor) -> Tensor:
        return read.view_as(read)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class _Replace(nn.Module):
    """Stands where a parametrization stood; with `own`, that parametrization, the gradient passes on to it."""

    def __init__(self, weight: Tensor, own: nn.Module | None) -> None:
        super().__init__()
        # not buffers or submodules: nothing is to be saved, moved, or listed
        object.__setattr__(self, "weight", weight)
        object.__setattr__(self, "own", own)

    def forward(self) -> Tensor:
        return self.weight if self.own is None else _Pass.apply(self.own(), self.weight)


class Held(ABC):
    """A tensor of a module: `attribute` is its name there."""

    is_int8 = False
    """Whether it is int8 already: `int8` says what, and there are no gradients."""
    int8: Int8

    def __init__(self, module: nn.Module, attribute: str) -> None:
        self.module, self.attribute = module, attribute

    @property
    @abstractmethod
    def sources(self) -> tuple[Tensor, ...]:
        """The parameters that hold it."""

    @abstractmethod
    def value(self) -> Tensor:
        """What the module computes with in evaluation mode; nothing of the module changes."""

    @abstractmethod
    def swap(self, weight: Tensor, undo: Undo, straight_through: bool) -> None:
        """The module computes with `weight` until `undo` is closed."""

    def in_copies(self, weight: nn.Parameter) -> dict[int, object]:
        """What copy.deepcopy() has to know to put `weight` in its place (or not to fail on it): its memo."""
        return {}

    @abstractmethod
    def settle(self, weight: nn.Parameter) -> None:
        """Makes it an ordinary parameter for good; one that was int8 stays int8."""


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
        _swap_flat(self.module, self.attribute, weight, undo)

    def in_copies(self, weight: nn.Parameter) -> dict[int, object]:
        return {id(self.sources[0]): weight}

    def settle(self, weight: nn.Parameter) -> None:
        self.module._parameters[self.attribute] = weight


class Parametrized(Held):
    """Computed by torch.nn.utils.parametrize."""

    @property
    def chain(self) -> nn.Module:
        return self.module.parametrizations[self.attribute]

    @property
    def sources(self) -> tuple[Tensor, ...]:
        if isinstance(self.chain, _Replace):
            return (self.chain.weight,)
        return tuple(self.chain.parameters(recurse=False))

    @property
    def rounds_only(self) -> bool:
        """Whether it holds the parameter but for rounding (prepare_qat)."""
        parts = [part for name, part in self.chain.named_children()]
        return bool(parts) and all(getattr(part, "rounds_only", False) for part in parts)

    def value(self) -> Tensor:
        with evaluation_mode(self.chain), torch.no_grad():
            return self.chain()  # not the attribute: parametrize.cached() may hold what training mode gave

    def swap(self, weight: Tensor, undo: Undo, straight_through: bool) -> None:
        parts, own = self.module.parametrizations._modules, self.chain
        undo.callback(_forget, self.module, self.attribute, _forget(self.module, self.attribute))
        undo.callback(parts.__setitem__, self.attribute, own)
        parts[self.attribute] = _Replace(weight, own if straight_through else None)
        if not straight_through:
            _swap_flat(self.module, self.attribute, weight, undo)

    def settle(self, weight: nn.Parameter) -> None:
        # torch's remove_parametrizations() takes the property off the class, which deep copies share.
        module = self.module
        cls = type(module)
        del module.parametrizations[self.attribute]
        if len(module.parametrizations):
            rest = {name: value for name, value in vars(cls).items() if name != self.attribute}
            module.__class__ = type(cls.__name__, cls.__bases__, rest)
        else:
            del module.parametrizations
            module.__class__ = cls.__bases__[0]
        module.register_parameter(self.attribute, weight)


class Hooked(Held):
    """Computed by a hook of torch's before each call, which keeps the result as a plain attribute."""

    @property
    def hook(self) -> "WeightNorm | SpectralNorm | prune.BasePruningMethod":
        return _hooks(self.module)[self.attribute]

    @property
    def sources(self) -> tuple[Tensor, ...]:
        return tuple(self.module._parameters[name] for name in hook_parameters(self.hook))

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
        hooks, before = module._forward_pre_hooks, dict(module._forward_pre_hooks)

        def put_back() -> None:  # in the order in which they were
            inside = dict(hooks)
            hooks.clear()
            hooks.update(before | inside)

        undo.callback(put_back)
        for key, hook in before.items():
            if hook is self.hook:
                del hooks[key]
                break
        undo.callback(module.__dict__.__setitem__, attribute, module.__dict__[attribute])
        module.__dict__[attribute] = weight
        _swap_flat(module, attribute, weight, undo)

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
    def sources(self) -> tuple[Tensor, ...]:
        return ()

    @property
    def int8(self) -> Int8:
        weight = self.module.weight()
        if weight.dtype != torch.qint8:
            raise FaultsimError(f"{weight.dtype} weights of {type(self.module).__name__} are not known")
        if weight.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
            return weight.int_repr(), torch.tensor(weight.q_scale(), dtype=torch.float32), -1
        return weight.int_repr(), weight.q_per_channel_scales().float(), weight.q_per_channel_axis()

    def value(self) -> Tensor:
        return self.module.weight().dequantize()

    def swap(self, weight: Tensor, undo: Undo, straight_through: bool) -> None:
        module, own = self.module, self.module.weight()
        values = _steps(weight, *self.int8[1:])
        if own.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
            packed = torch._make_per_tensor_quantized_tensor(values, own.q_scale(), own.q_zero_point())
        else:
            packed = torch._make_per_channel_quantized_tensor(
                values, own.q_per_channel_scales(), own.q_per_channel_zero_points(), own.q_per_channel_axis()
            )
        holder = getattr(module, "_packed_params", module)
        if isinstance(holder, nn.Module):  # linear layers keep it in a module of its own
            undo.callback(setattr, holder, "_packed_params", holder._packed_params)
        else:
            undo.callback(setattr, module, "_packed_params", holder)
        module.set_weight_bias(packed, module.bias())

    def settle(self, weight: nn.Parameter) -> None:
        self.swap(weight.detach(), contextlib.ExitStack().pop_all(), False)


class Int8Tensor(Parameter):
    """A parameter that is torchao's int8 tensor: `qdata` with a scale for each output channel, or one."""

    is_int8 = True

    def in_copies(self, weight: nn.Parameter) -> dict[int, object]:
        return {}

    @property
    def int8(self) -> Int8:
        weight = self.sources[0]
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
        own = self.sources[0]
        names, context = own.__tensor_flatten__()
        parts = {name: getattr(own, name) for name in names}
        parts["qdata"] = _steps(weight, *self.int8[1:])
        return type(own).__tensor_unflatten__(parts, context, own.size(), own.stride())

    def swap(self, weight: Tensor, undo: Undo, straight_through: bool) -> None:
        super().swap(self._with(weight), undo, False)

    def settle(self, weight: nn.Parameter) -> None:
        super().settle(nn.Parameter(self._with(weight.detach()), requires_grad=False))


def held(module: nn.Module, attribute: str) -> Held:
    """How `module` holds the tensor of that name now."""
    own = module._parameters.get(attribute)
    if own is not None:
        return (Int8Tensor if is_int8_tensor(own) else Parameter)(module, attribute)
    if parametrize.is_parametrized(module, attribute):
        return Parametrized(module, attribute)
    if attribute in _hooks(module):
        return Hooked(module, attribute)
    if attribute == "weight" and is_packed(module):
        return Packed(module, attribute)
    raise FaultsimError(f"{type(module).__name__} has no weight {attribute!r} any more")


def attributes(module: nn.Module) -> list[str]:
    """Names of all tensors that a module holds as one of the above, weights or not, in their own order: by name,
    numbers in it as numbers, so that it is the same whether or not a tensor is computed."""
    hooks = _hooks(module)
    raw = {name for hook in hooks.values() for name in hook_parameters(hook)}
    found = {name for name, own in module._parameters.items() if own is not None} - raw | set(hooks)
    if parametrize.is_parametrized(module):
        found |= set(module.parametrizations.keys())
    if is_packed(module):
        found.add("weight")
    return sorted(found, key=lambda name: [int(p) if p.isdecimal() else p for p in re.split(r"(\d+)", name)])


def hook_parameters(hook: object) -> tuple[str, ...]:
    """Names of the parameters that one of torch's hooks computes a weight from."""
    if isinstance(hook, WeightNorm):
        return f"{hook.name}_g", f"{hook.name}_v"
    return (f"{_hooked(hook)}_orig",)


def is_packed(module: nn.Module) -> bool:
    """Whether it is one of torch.ao's quantized modules with one weight."""
    quantized = (
        ".nn.quantized" in type(module).__module__ or ".nn.intrinsic.quantized" in type(module).__module__
    )
    return quantized and callable(getattr(module, "weight", None)) and hasattr(module, "set_weight_bias")


def is_int8_tensor(tensor: Tensor) -> bool:
    """Whether it is torchao's: a float tensor to look at, int8 values and scales inside."""
    if type(tensor) in (Tensor, nn.Parameter) or not hasattr(tensor, "__tensor_flatten__"):
        return False
    names = tensor.__tensor_flatten__()[0]
    return (
        {"qdata", "scale"} <= set(names)
        and tensor.qdata.dtype == torch.int8
        and tensor.qdata.shape == tensor.shape
    )


def _steps(weight: Tensor, scale: Tensor, axis: int) -> Tensor:
    """The int8 values of weights that are integers times the scale."""
    if axis >= 0:
        scale = scale.reshape([-1 if d == axis else 1 for d in range(weight.dim())])
    return (weight.float() / scale).round().clamp(-128, 127).to(torch.int8)


def _hooks(module: nn.Module) -> dict[str, object]:
    """torch's hooks that compute a tensor of the module before each call, by the tensor's name."""
    return {
        name: hook
        for hook in module._forward_pre_hooks.values()
        if (name := _hooked(hook)) is not None and name in module.__dict__
    }


def _hooked(hook: object) -> str | None:
    if isinstance(hook, WeightNorm | SpectralNorm):
        return hook.name
    return hook._tensor_name if isinstance(hook, prune.BasePruningMethod) else None


def _forget(module: nn.Module, attribute: str, again: Tensor | None = None) -> Tensor | None:
    """Takes a tensor out of what parametrize.cached() keeps, or puts it back."""
    key = id(module), attribute
    known = parametrize._cache.pop(key, None)
    if again is not None and parametrize._cache_enabled:
        parametrize._cache[key] = again
    return known


def flat_in_copies(module: nn.Module) -> dict[int, object]:
    """What copy.deepcopy() has to know of a recurrent layer's own list of weights: results of autograd, which computed
    weights are, cannot be copied."""
    flat = module._flat_weights if isinstance(module, nn.RNNBase) else ()
    return {id(w): w.detach() for w in flat if isinstance(w, Tensor) and not w.is_leaf}


def settle_flat(module: nn.Module) -> None:
    """After settle(), or in a copy: recurrent layers make their own list of weights anew."""
    if isinstance(module, nn.RNNBase):
        module._init_flat_weights()


def _swap_flat(module: nn.Module, attribute: str, weight: Tensor, undo: Undo) -> None:
    """Recurrent layers compute with a list of their own, and would make a new one, all weights flattened into one
    piece of memory, when they see another weight."""
    if not isinstance(module, nn.RNNBase) or attribute not in module._flat_weights_names:
        return
    at = module._flat_weights_names.index(attribute)
    for name, entry in (("_flat_weights", weight), ("_flat_weight_refs", weakref.ref(weight))):
        own = module.__dict__[name]
        undo.callback(module.__dict__.__setitem__, name, own)
        module.__dict__[name] = [*own[:at], entry, *own[at + 1 :]]


def copies(module: nn.Module) -> Iterator[tuple[str, object, Tensor]]:
    """Tensors that a module keeps as plain attributes, or in plain lists and dictionaries: (attribute, key, tensor),
    the key None for an attribute."""
    for name, value in vars(module).items():
        if name in ("_parameters", "_buffers", "_modules", "_flat_weights"):
            continue
        if isinstance(value, Tensor):
            yield name, None, value
        elif isinstance(value, list | dict):
            pairs = enumerate(value) if isinstance(value, list) else value.items()
            yield from ((name, key, entry) for key, entry in pairs if isinstance(entry, Tensor))


def at_copy(module: nn.Module, attribute: str, key: object) -> tuple[Any, Any]:
    """The container and the key of what copies() found."""
    return (vars(module), attribute) if key is None else (vars(module)[attribute], key)


def swap_copy(
    module: nn.Module, attribute: str, key: object, weight: Tensor, undo: Undo, straight_through: bool
) -> None:
    """Puts a weight where copies() found one."""
    container, key = at_copy(module, attribute, key)
    undo.callback(container.__setitem__, key, container[key])
    container[key] = _Pass.apply(container[key], weight) if straight_through else weight
