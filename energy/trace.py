"""Any `nn.Module` -> its list of matrix-like layers, by running it once.

Hooks see each layer's input and output shapes. `trace_model` says which tensors its rows read, so that whoever
knows what lies in the weight memory can tell what isn't counted. `trace_layers` is for models that can be
counted whole: PyTorch's FLOP counter sees every matrix product there, and one that belongs to no layer known
here is an error.
"""

import contextlib
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor, nn

from .dry_run import Example, dry_run
from .errors import EnergyError
from .flops import Counter
from .layers import Layer


@dataclass(frozen=True)
class CountingPolicy:
    """How a layer of a framework becomes a row that SCALE-Sim understands."""

    zero_insertion: bool
    """A transposed convolution is the stride-1 convolution over its zero-inserted input that it equals
    (true), or the paper's approximation (false): a stride-1 convolution over its output map, with the same
    kernel and padding and with input and output channels exchanged (Appendix G)."""
    exact_size: bool
    """Output sizes are the framework's (true), or rounded up from the padded input by SCALE-Sim (false). The
    two differ where a stride doesn't divide what the kernel leaves of the input."""
    least_padding: int = 0
    """Convolutions with less padding are counted as if they had this much, on every side."""


POLICIES = {
    "paper": CountingPolicy(zero_insertion=False, exact_size=False),
    "paper-generator": CountingPolicy(zero_insertion=False, exact_size=False, least_padding=1),
    "exact": CountingPolicy(zero_insertion=True, exact_size=True),
}
"""`paper`: how the paper counts its base models. `paper-generator`: how it counts its generators, where
padding 1 is added to every convolution, UNet's 1x1 and 2x2 ones too (Appendix G; this gives Table 6).
`exact`: the shapes that the model really has. An exact transposed convolution reads its inserted zeros like
other inputs."""

_COUNTED = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.Linear)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d)
_SCALES = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.PReLU)
_REFUSED = (
    nn.Conv3d,
    nn.ConvTranspose3d,
    nn.Bilinear,
    nn.Embedding,
    nn.EmbeddingBag,
    nn.RNNBase,
    nn.RNNCellBase,
    nn.MultiheadAttention,
)
_SUPPORTED = "Conv1d, Conv2d, their transposed forms and Linear can be counted"


@dataclass(frozen=True)
class Trace:
    """What of a model can be counted."""

    layers: tuple[Layer, ...]
    """As from `trace_layers`."""
    read: frozenset[str]
    """The weights that these layers read, by their names in the model (`fc.weight`)."""

    def uncounted(self, weights: Iterable[Collection[str]]) -> list[str]:
        """List those of `weights`, each by all of its names, that no layer here reads: their first names."""
        return [next(iter(names)) for names in weights if self.read.isdisjoint(names)]


def trace_model(
    model: nn.Module, input_shape: Sequence[int] | Example, policy: CountingPolicy = POLICIES["paper"]
) -> Trace:
    """List the layers of any model that can be counted; `Trace.read` shows what was left out.

    Parameters
    ----------
    model
        Any module. It is unchanged afterwards.
    input_shape
        Shape of one input without the batch, such as (3, 32, 32), or an example of the inputs.
    policy
        How layers become rows. Default: the paper's for base models; `energy.POLICIES["paper-generator"]` is its policy
        for generators.

    Raises
    ------
    EnergyError
        For a bad shape, and a model that cannot run on it.
    """
    watch = dry_run(model, input_shape, lambda counter: _Watch(model, counter, policy, strict=False))
    return Trace(tuple(watch.layers), frozenset(watch.read))


def trace_layers(
    model: nn.Module, input_shape: Sequence[int] | Example, policy: CountingPolicy = POLICIES["paper"]
) -> list[Layer]:
    """List the layers that hold weights and multiply by them, in the order in which they run.

    A layer that runs twice is listed twice; one that never runs is not listed. Normalization and other element-wise
    scales are not matrix-like and are left out.

    Parameters
    ----------
    model, input_shape, policy
        As for `trace_model`.

    Raises
    ------
    EnergyError
        For a bad shape, a model that cannot run on it, and, with its name, a layer that holds weights but cannot be
        counted (Conv3d, recurrent layers, attention, embeddings, quantized modules, a module that multiplies by its own
        parameters).
    """
    for name, module in model.named_modules():
        _check_kind(name, module)
    return dry_run(model, input_shape, lambda counter: _Watch(model, counter, policy)).layers


def _check_kind(name: str, module: nn.Module) -> None:
    """Raise EnergyError for a module that holds weights which no rule here counts."""
    kind = type(module).__name__
    name = name or kind
    if isinstance(module, (*_COUNTED, *_SCALES)) or _is_conv1d(module):
        if any(isinstance(p, nn.UninitializedParameter) for p in module.parameters(recurse=False)):
            raise EnergyError(f"layer {name!r} has no shape yet; run the model once, then trace it")
        return
    quantized = ".nn.quantized" in type(module).__module__
    if isinstance(module, _REFUSED) or quantized:
        what = f"quantized {kind}" if quantized else kind
        raise EnergyError(f"layer {name!r} ({what}) can't be counted; {_SUPPORTED}")
    if _makes_weights(name):
        return
    for parameter_name, parameter in module.named_parameters(recurse=False):
        if sum(size > 1 for size in parameter.shape) > 1:  # a matrix; a vector is a bias or a scale
            raise EnergyError(
                f"layer {name!r} ({kind}) holds weights of its own, {parameter_name} of shape "
                f"{tuple(parameter.shape)}, which can't be counted; {_SUPPORTED}"
            )


def _is_conv1d(module: nn.Module) -> bool:
    """Whether it is transformers' Conv1D: a linear layer with its weight transposed."""
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf") and hasattr(module, "weight")


def _makes_weights(name: str) -> bool:
    """Whether a module is a parametrization: it computes the weight of the layer that it belongs to."""
    return "parametrizations" in name.split(".")


class _Watch:
    """Hooks on every module: rows for the known layers, an error for products that happen elsewhere."""

    def __init__(self, model: nn.Module, flops: Counter, policy: CountingPolicy, strict: bool = True) -> None:
        self.layers: list[Layer] = []
        self.read: set[str] = set()
        self._strict = strict
        self._policy = policy
        self._model = model
        self._flops = flops
        self._starts: list[int] = []  # of the modules that are running: the count when each began,
        self._inside: list[int] = []  # and what its children have done since
        self._calls: dict[str, int] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        for name, module in self._model.named_modules():
            before = module.register_forward_pre_hook(self._begin)
            # first among the hooks, so that a hook of the user's that changes the output comes later
            after = module.register_forward_hook(self._end(name), prepend=True, with_kwargs=True)
            self._stack.callback(before.remove)
            self._stack.callback(after.remove)
        self._stack.enter_context(self._flops)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _begin(self, *_: object) -> None:
        self._starts.append(self._flops.get_total_flops())
        self._inside.append(0)

    def _end(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            flops = self._flops.get_total_flops() - self._starts.pop()
            own = flops - self._inside.pop()
            if self._inside:
                self._inside[-1] += flops
            if isinstance(module, _COUNTED) or _is_conv1d(module):
                self.read.add(f"{name}.weight" if name else "weight")
                self._calls[name] = self._calls.get(name, 0) + 1
                again = f"#{self._calls[name]}" if self._calls[name] > 1 else ""
                x = args[0] if args else kwargs["input"]
                self.layers.append(_row(name + again, module, x, output, self._policy))
            elif own and self._strict and not _makes_weights(name):
                raise EnergyError(
                    f"layer {name or type(module).__name__!r} ({type(module).__name__}) multiplies "
                    f"matrices in its own forward pass ({own // 2:,} multiply-accumulates), which can't "
                    f"be counted; {_SUPPORTED}"
                )

        return hook


def _row(name: str, module: Any, x: Tensor, y: Tensor, policy: CountingPolicy) -> Layer:
    if isinstance(module, nn.Linear):
        # every row of the input is a pixel: [..., features] -> a map of that many rows
        pixels = x.numel() // module.in_features
        return Layer(name or "Linear", pixels, 1, 1, 1, module.in_features, module.out_features)
    if _is_conv1d(module):
        inputs, outputs = module.weight.shape
        return Layer(name or "Conv1D", x.numel() // inputs, 1, 1, 1, inputs, outputs)
    kernel, stride, dilation = (_plane(v) for v in (module.kernel_size, module.stride, module.dilation))
    if isinstance(module, nn.Conv1d | nn.ConvTranspose1d):
        stride = (stride[1], stride[1])  # a topology has one stride; the height of 1 makes it harmless
    groups, dimensions = module.groups, len(module.kernel_size)
    inputs, outputs = module.in_channels // groups, module.out_channels // groups
    out_size = _plane(y.shape[-dimensions:])
    batch = math.prod(x.shape[: -dimensions - 1])
    padding = _padding(module, kernel, dilation, policy.least_padding)
    if isinstance(module, _TRANSPOSED):
        stride = (1, 1)
        if policy.zero_insertion:
            size = _plane([o + k - 1 for o, k in zip(out_size, kernel, strict=True)])
        else:
            size = _plane([o + p for o, p in zip(out_size, padding, strict=True)])
            inputs, outputs = outputs, inputs
    else:
        size = _plane([i + p for i, p in zip(_plane(x.shape[-dimensions:]), padding, strict=True)])
        if policy.exact_size or dilation != (1, 1):
            # the map that a kernel without gaps would need for as many outputs
            spans = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
            rounded = [-(-(i - span) // s) + 1 for i, span, s in zip(size, spans, stride, strict=True)]
            wanted = out_size if policy.exact_size else rounded
            size = _plane([(o - 1) * s + k for o, s, k in zip(wanted, stride, kernel, strict=True)])
    return Layer(
        name or type(module).__name__, *size, *kernel, inputs, outputs, *stride, repeats=groups * batch
    )


def _plane(sizes: Sequence[int]) -> tuple[int, int]:
    """Return one- or two-dimensional sizes as (height, width); one-dimensional ones lie along the width."""
    return (1, sizes[0]) if len(sizes) == 1 else (sizes[0], sizes[1])


def _padding(module: Any, kernel: tuple[int, int], dilation: tuple[int, int], least: int) -> tuple[int, int]:
    """Return the rows and columns that padding adds in all, on both sides together."""
    one_dimensional = len(module.kernel_size) == 1
    if module.padding == "same":
        total = _plane([d * (k - 1) for d, k in zip(dilation, kernel, strict=True)])
    elif module.padding == "valid":
        total = (0, 0)
    else:
        sides = (0, module.padding[0]) if one_dimensional else module.padding
        total = (2 * sides[0], 2 * sides[1])
    return (0 if one_dimensional else max(total[0], 2 * least)), max(total[1], 2 * least)
