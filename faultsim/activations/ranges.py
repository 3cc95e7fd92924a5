"""Which activations lie in a memory, and the range of numbers that each has: calibrated on data, then frozen."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fnmatch import fnmatchcase
from os import PathLike
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ..errors import FaultsimError, summarize_error
from ..io.bounds import are_integers, parse_json, read_text
from ..io.files import write_text
from ..network.batch import call_model, describe_inputs, split_batch
from ..network.inventory import take_inventory
from ..network.modes import evaluation_mode

At = Literal["input", "output"]
"""What of a layer lies in the memory: what it reads, or what it writes."""
SelectLayers = str | Sequence[str] | Callable[[str, nn.Module], bool] | None
"""Layers: patterns of names as in the shell (`encoder.*`), a predicate of a name and a module, or None for the layers
that hold weights."""
BINS = 2048
"""Steps of the histogram that a percentile is taken from."""
_FORMAT = "faultsim activation ranges 1"
_MOST_BYTES = 16 << 20
_MOST_ELEMENTS = 2**40


@dataclass(frozen=True)
class SiteRange:
    """One tensor that a layer reads or writes."""

    low: float
    """Smallest number that the memory has to hold."""
    high: float
    """Largest one."""
    elements: int
    """Elements of one sample; of the largest one where samples differ in size."""


@dataclass(frozen=True)
class ActivationRanges:
    """The activations of a model that lie in a memory, with their ranges. `calibrate` makes it."""

    at: At
    """Whether they are the layers' inputs or outputs."""
    sites: Mapping[str, SiteRange]
    """By name, in the order of named_modules(), which is that of the addresses: the layer's name, with ":1", ":2",
    or ":name" behind it for further tensors of the layer."""

    def __len__(self) -> int:
        """Return the number of tensors."""
        return len(self.sites)

    @property
    def of_cache(self) -> bool:
        """Whether they are the keys and values of a language model's attention (add_cache_layers)."""
        return all(layer_of(site).endswith((".key_cache", ".value_cache")) for site in self.sites)

    def __str__(self) -> str:
        """Return what they are, such as "inputs of 7 layers"."""
        if self.of_cache:
            return f"keys and values of {len(self.sites) // 2} layers"
        return f"{self.at}s of {len({layer_of(site) for site in self.sites})} layers"

    @property
    def elements(self) -> int:
        """Elements of all tensors of one sample."""
        return sum(site.elements for site in self.sites.values())

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        sites = {name: [site.low, site.high, site.elements] for name, site in self.sites.items()}
        return {"format": _FORMAT, "at": self.at, "sites": sites}

    @classmethod
    def from_dict(cls, values: object) -> "ActivationRanges":
        """Return what as_dict() wrote.

        Raises
        ------
        FaultsimError
            For anything else.
        """
        found = values if isinstance(values, dict) else {}
        if found.get("format") != _FORMAT:
            raise FaultsimError(f"no activation ranges: its format must be {_FORMAT!r}")
        at: Any = found.get("at")
        sites = found.get("sites")
        if at not in get_args(At) or not isinstance(sites, dict) or not sites:
            raise FaultsimError("activation ranges need `at` (input or output) and `sites`")
        for name, site in sites.items():
            if not _is_site(site):
                raise FaultsimError(
                    f"activation ranges: {name[:60]!r} must be [low, high, elements] with low <= high"
                )
        return cls(
            at, {name: SiteRange(float(low), float(high), n) for name, (low, high, n) in sites.items()}
        )

    def save(self, path: str | PathLike[str]) -> None:
        """Write a JSON file."""
        write_text(path, json.dumps(self.as_dict(), indent=1) + "\n")

    @classmethod
    def load(cls, path: str | PathLike[str]) -> "ActivationRanges":
        """Read a file of save().

        Raises
        ------
        FaultsimError
            For a file that is missing or holds anything else.
        """
        try:
            return cls.from_dict(parse_json(read_text(str(path), _MOST_BYTES)))
        except (OSError, ValueError) as error:
            raise FaultsimError(f"{path}: {summarize_error(error)}") from None


def _is_site(site: object) -> bool:
    if not isinstance(site, list) or len(site) != 3 or not are_integers(site[2:], 1, _MOST_ELEMENTS):
        return False
    low, high = site[:2]
    numbers = all(type(number) in (int, float) and abs(number) < 1e38 for number in (low, high))
    return numbers and low <= high


def calibrate(
    model: nn.Module,
    data: Iterable[Any],
    *,
    at: At = "input",
    select: SelectLayers = None,
    percentile: float | None = None,
) -> ActivationRanges:
    """Find the ranges of a model's activations on data.

    Parameters
    ----------
    model
        Any module. It runs in evaluation mode, with its own weights, without faults.
    data
        Batches on the device of the model, as for `evaluate`; targets are not used.
    at
        "input": what the layers read; "output": what they write.
    select
        Which layers: patterns of their names, or a function of name and module. Default: those that hold a weight of
        the faulty memory. Tensors that are not floating-point (the indices of an embedding) are left out.
    percentile
        Where to cut the ranges: 99.9 leaves out 0.1 % of the numbers at each end, to one part in 2,048 of the range.
        This takes two passes over the data. Default: smallest and largest number.

    Returns
    -------
    ActivationRanges
        Of the layers that ran. A layer that is never called as a module has no entry: some of torch's and others'
        attention reads the weights of its output projection itself.

    Raises
    ------
    FaultsimError
        For patterns without a layer, no data, a model that fails, and activations that are not finite.
    """
    if at not in get_args(At):
        raise FaultsimError(f"at {at!r}: it must be input or output")
    if percentile is not None and not 50 < percentile <= 100:
        raise FaultsimError(f"percentile {percentile}: it must be above 50 and at most 100")
    if percentile is not None and iter(data) is data:
        raise FaultsimError(
            "a percentile takes two passes: give data that can be iterated again, not an iterator"
        )
    layers = _find_layers(model, select)
    seen: dict[str, _Seen] = {}

    def find_extremes(name: str, x: Tensor) -> None:
        seen.setdefault(name, _Seen()).widen(name, x)

    _run(model, data, layers, at, find_extremes)
    if not seen:
        raise FaultsimError("no selected layer got a floating-point tensor: is there any data?")
    if percentile is not None:
        _run(model, data, layers, at, lambda name, x: seen[name].count(x))
    order = {name: place for place, name in enumerate(layers)}
    names = sorted(seen, key=lambda name: (order[layer_of(name)], name))
    return ActivationRanges(at, {name: seen[name].range(percentile) for name in names})


class _Seen:
    """What was seen of one tensor so far."""

    def __init__(self) -> None:
        self.low, self.high, self.elements = math.inf, -math.inf, 1
        self.counts: Tensor | None = None

    def widen(self, name: str, x: Tensor) -> None:
        low, high = (float(number) for number in x.aminmax())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise FaultsimError(
                f"layer {name or '(the model itself)'}: activations with NaN or infinity have no range"
            )
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.elements = max(self.elements, x[0].numel())

    def count(self, x: Tensor) -> None:
        if self.high > self.low:
            found = torch.histc(x.float(), BINS, self.low, self.high).cpu().double()
            self.counts = found if self.counts is None else self.counts + found

    def range(self, percentile: float | None) -> SiteRange:
        if percentile is None or self.counts is None:
            return SiteRange(self.low, self.high, self.elements)
        share, width = (100 - percentile) / 100, (self.high - self.low) / BINS
        below = self.counts.cumsum(0) / self.counts.sum()
        above = self.counts.flip(0).cumsum(0) / self.counts.sum()
        left_out = [int((sums <= share).sum()) for sums in (below, above)]  # bins at each end
        return SiteRange(self.low + left_out[0] * width, self.high - left_out[1] * width, self.elements)


def _find_layers(model: nn.Module, select: SelectLayers) -> dict[str, nn.Module]:
    """Return the selected layers by name, each module once, in the order of named_modules()."""
    named = dict(model.named_modules())
    if select is None:
        holders = {name for weight in take_inventory(model).weights for name in weight.names}
        return {name: module for name, module in named.items() if name in holders}
    if callable(select):
        found = {name: module for name, module in named.items() if select(name, module)}
    else:
        patterns = [select] if isinstance(select, str) else list(select)
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in named):
                raise FaultsimError(f"no layer has a name like {pattern!r}")
        found = {n: module for n, module in named.items() if any(fnmatchcase(n, p) for p in patterns)}
    if not found:
        raise FaultsimError("no layer was selected")
    return found


def _run(
    model: nn.Module,
    data: Iterable[Any],
    layers: Mapping[str, nn.Module],
    at: At,
    look: Callable[[str, Tensor], None],
) -> None:
    """Run the model on data, and look at the tensors of its layers."""

    def watch(name: str) -> Callable[[str, Tensor], Tensor]:
        def visit(key: str, x: Tensor) -> Tensor:
            if x.numel():
                look(name + key, x.detach())
            return x

        return visit

    with evaluation_mode(model), torch.inference_mode(), ExitStack() as undo:
        for name, layer in layers.items():
            hook_layer(layer, at, watch(name), undo)
        for batch in data:
            inputs, _ = split_batch(batch)
            try:
                call_model(model, inputs)
            except FaultsimError:
                raise
            except Exception as error:  # a user's model may fail in any way
                raise FaultsimError(
                    f"the model fails on inputs {describe_inputs(inputs)}: {summarize_error(error)}"
                ) from error


def layer_of(site: str) -> str:
    """Return the name of a site's layer."""
    return site.partition(":")[0]


# -- hooks ------------------------------------------------------------------------------------------------------------

Visit = Callable[[str, Tensor], Tensor]
"""Takes the place of a tensor in a layer ("" for the first, ":1", ":name") and the tensor, and returns what the layer
reads instead."""


def hook_layer(layer: nn.Module, at: At, visit: Visit, undo: ExitStack) -> None:
    """Let a layer read, or write, its floating-point tensors through `visit`, until `undo` is closed.

    torch.compile does not notice hooks that come or go after it compiled; it does notice another class of a module.
    So the layer has a class of its own meanwhile: compiled code with and without hooks is kept side by side, and each
    is used where it belongs.
    """
    own = type(layer)

    def give_back() -> None:
        layer.__class__ = own

    try:
        layer.__class__ = _hooked_class(own)
    except TypeError:  # of TorchScript, for instance
        raise FaultsimError(
            f"activations of a {own.__name__} cannot be read: it is no plain nn.Module"
        ) from None
    undo.callback(give_back)
    if at == "input":

        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if any(map(_is_activation, args)):
                places = zip([f":{i}" if i else "" for i in range(len(args))], args, strict=True)
                return tuple(_visit_each(places, visit)), kwargs
            places = zip([f":{name}" for name in kwargs], kwargs.values(), strict=True)
            return args, dict(zip(kwargs, _visit_each(places, visit), strict=True))

        undo.callback(layer.register_forward_pre_hook(before, with_kwargs=True).remove)
    else:

        def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            if isinstance(output, Tensor):
                return visit("", output) if _is_activation(output) else output
            if type(output) in (tuple, list):
                places = zip([f":{i}" if i else "" for i in range(len(output))], output, strict=True)
                return type(output)(_visit_each(places, visit))
            return output

        undo.callback(layer.register_forward_hook(after).remove)


def _is_activation(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.dim() > 0


def _visit_each(places: Iterable[tuple[str, Any]], visit: Visit) -> list[Any]:
    """Visit the activations among some values; one that is there twice (query and key) is one tensor, visited once."""
    given: list[Any] = []
    visited: list[Any] = []
    for place, value in places:
        earlier = [new for old, new in zip(given, visited, strict=True) if old is value]
        new = earlier[0] if earlier else visit(place, value) if _is_activation(value) else value
        given.append(value)
        visited.append(new)
    return visited


_HOOKED: dict[type, type] = {}


def _hooked_class(own: type) -> type:
    """Return the class of a layer while it is hooked, always the same one."""
    if own not in _HOOKED:
        _HOOKED[own] = type(own.__name__, (own,), {"__module__": own.__module__, "__doc__": own.__doc__})
    return _HOOKED[own]
