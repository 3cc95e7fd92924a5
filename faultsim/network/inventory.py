"""What lies in the faulty memory: the tensors that a model multiplies by, whatever its layers are called.

By default these are all floating-point parameters of two or more dimensions but biases and those of normalization.
Identity is that of the parameters: one that several modules own is one weight, and all of them read it from the same
cells. A weight that is computed (a parametrization, weight norm, spectral norm, pruning) lies in the memory as the
result, in evaluation mode; what it is computed from does not. int8 weights of torch.ao and torchao are taken as they
are.

The order is that of named_modules(), which is the order of the addresses, and that of the names within a module.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from ..errors import FaultsimError
from .places import Held, Hooked, Parameter, Parametrized, find_copies, find_held, is_int8_tensor, list_held
from .torch_internals import CONVOLUTIONS, NORMALIZATIONS, computes_as_tensor

Select = str | Sequence[str] | Callable[[str, Tensor], bool] | None
"""Which tensors lie in the memory: patterns of names as in the shell (`encoder.*`), a predicate of a name and a tensor,
or None for the default."""

_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
WEIGHT_MODULES = (CONVOLUTIONS, nn.Linear, nn.Embedding, nn.EmbeddingBag, nn.Bilinear)


@dataclass(frozen=True)
class Weight:
    """One tensor in the memory, and everything that reads it."""

    modules: tuple[nn.Module, ...]
    """The modules that read it."""
    names: tuple[str, ...]
    """Names of the modules, as in named_modules()."""
    attributes: tuple[str, ...]
    """The tensor's name in each of them."""
    shape: tuple[int, ...]
    """Its shape."""
    copies: tuple[tuple[nn.Module, str, object], ...] = ()
    """Where else a module keeps the parameter, in plain Python: (module, attribute, key)."""

    @property
    def tensors(self) -> tuple[str, ...]:
        """Its names in the model, such as lstm.weight_ih_l0."""
        return join_names(self.names, self.attributes)

    @property
    def count(self) -> int:
        """Number of weights."""
        return torch.Size(self.shape).numel()

    @property
    def axis(self) -> int:
        """Dimension of the output channels; -1 where there are none."""
        return find_channel_axis(self.modules[0]) if len(self.shape) > 1 else -1

    @property
    def held(self) -> Held:
        """How the first of the modules holds it."""
        return find_held(self.modules[0], self.attributes[0])


@dataclass(frozen=True)
class LeftOut:
    """A tensor that does not lie in the memory, and why."""

    name: str
    """Its name in the model."""
    shape: tuple[int, ...]
    """Its shape."""
    reason: str
    """Why it is not stored."""
    matrix: bool
    """Whether it is a weight that one would expect there."""

    @property
    def count(self) -> int:
        """Number of elements."""
        return torch.Size(self.shape).numel()


@dataclass(frozen=True)
class Inventory:
    """All tensors of a model."""

    weights: tuple[Weight, ...]
    """What lies in the memory, in the order of the addresses."""
    left_out: tuple[LeftOut, ...]
    """What does not."""


def take_inventory(model: nn.Module, select: Select = None) -> Inventory:
    """List what of a model lies in the memory.

    Parameters
    ----------
    model
        Any module, on any device, the meta device included.
    select
        As for `StoredWeights.of`.

    Raises
    ------
    FaultsimError
        Naming the tensor, for a weight that int8 memory cannot hold rightly (complex numbers, no shape yet, unknown
        tensor subclasses); for patterns that no name matches; and for a model without any weight to store.
    """
    chosen, unused = _rule(select)
    found: dict[object, list[_Place]] = {}  # by the parameters' identity
    computing: set[nn.Module] = set()  # parametrizations: what they hold is not read from memory
    for name, module in model.named_modules():
        if module in computing:
            continue
        if parametrize.is_parametrized(module):
            computing.update(module.parametrizations.modules())
        _refuse_unknown_module(name, module)
        for attribute in list_held(module):
            place = _Place.of(name, module, attribute)
            key: tuple[object, ...] = tuple(map(id, place.held.sources)) or (id(module), attribute)
            while key in found and not _same(found[key][0].held, place.held):
                key = (*key, "computed otherwise")
            found.setdefault(key, []).append(place)
    weights, left_out = [], []
    kept = _copies(model, computing)
    for places in found.values():
        first, shape = places[0], places[0].shape
        usual = any(place.why is None for place in places)
        if chosen is None:
            stored = usual
        else:
            stored = False
            for place in places:  # every name is looked at, so that each pattern finds what it matches
                unused -= {pattern for pattern in unused if fnmatchcase(place.tensor, pattern)}
                stored |= bool(chosen(place.tensor, place.shown))
        if not stored:
            reason = "not selected" if usual or first.why is None else first.why
            left_out.append(LeftOut(first.tensor, shape, reason, usual or reason.startswith("torch.")))
            continue
        for place in places:
            _refuse_unknown(place.tensor, place.held)
        own = {id(s) for place in places if _raw(place.held) for s in place.held.sources}
        weights.append(
            Weight(
                tuple(place.module for place in places),
                tuple(place.name for place in places),
                tuple(place.attribute for place in places),
                shape,
                tuple(where for key, where in kept if key in own),
            )
        )
    if unused:
        raise FaultsimError(f"select: no tensor of the model is called {sorted(unused)[0]!r}")
    if not weights:
        raise FaultsimError(
            "the model has no parameter of two or more dimensions: there are no weights to store in memory"
            if select is None
            else "nothing is selected: there are no weights to store in memory"
        )
    known = {id(s) for places in found.values() for place in places for s in place.held.sources}
    return Inventory(tuple(weights), (*left_out, *_strangers(model, computing, known)))


@dataclass(frozen=True)
class _Place:
    """One module's tensor; `why` says why it does not lie in the memory by default."""

    name: str
    module: nn.Module
    attribute: str
    held: Held
    shape: tuple[int, ...]
    why: str | None
    """It does not lie in the memory by default."""

    @classmethod
    def of(cls, name: str, module: nn.Module, attribute: str) -> "_Place":
        place = find_held(module, attribute)
        shape, why = _why_not(module, place, attribute)
        return cls(name, module, attribute, place, shape, why)

    @property
    def tensor(self) -> str:
        return join_name(self.name, self.attribute)

    @property
    def shown(self) -> Tensor:
        """The tensor that a user's predicate sees."""
        return _shown(self.held)


def find_channel_axis(module: nn.Module) -> int:
    """Return the dimension of `module.weight` that runs over output channels."""
    # transformers' Conv1D is a linear layer with its weight transposed
    return 1 if isinstance(module, _TRANSPOSED) or type(module).__name__ == "Conv1D" else 0


def join_name(module: str, attribute: str) -> str:
    """Return the name of a module's tensor in the model."""
    return f"{module}.{attribute}" if module else attribute


def join_names(modules: Sequence[str], attributes: Sequence[str]) -> tuple[str, ...]:
    """Return join_name() of several modules."""
    return tuple(join_name(name, attribute) for name, attribute in zip(modules, attributes, strict=True))


def _rule(select: Select) -> tuple[Callable[[str, Tensor], bool] | None, set[str]]:
    """Return a predicate (None: the default) and the patterns of which each has to match something."""
    if select is None or callable(select):
        return select, set()
    patterns = {select} if isinstance(select, str) else set(select)
    if not all(isinstance(pattern, str) for pattern in patterns):
        raise FaultsimError(
            f"select {select!r}: it must be patterns of names, or a function of name and tensor"
        )
    return (lambda name, _: any(fnmatchcase(name, pattern) for pattern in patterns)), set(patterns)


def _shown(place: Held) -> Tensor:
    """Return the tensor that a user's predicate sees."""
    return (
        place.value() if isinstance(place, Hooked | Parametrized) or not place.sources else place.sources[0]
    )


def _why_not(module: nn.Module, place: Held, attribute: str) -> tuple[tuple[int, ...], str | None]:
    """Return the shape of a tensor, and why it is not stored by default or None."""
    if place.sources and is_lazy(place.sources[0]):
        return (), None  # refused where it is looked at
    value = _shown(place)
    shape = tuple(value.shape)
    if isinstance(module, NORMALIZATIONS):
        return shape, "normalisation"  # as in every JSON output so far
    if attribute == "bias" or attribute.startswith("bias_"):
        return shape, "a bias"
    if len(shape) < 2:
        return shape, "fewer than two dimensions"
    if not (value.is_floating_point() or value.is_complex() or not place.sources):
        return shape, f"{value.dtype}, no floating-point numbers"
    return shape, None


def _refuse_unknown(name: str, place: Held) -> None:
    """Raise FaultsimError for a tensor that cannot lie in the memory."""
    for source in place.sources:
        if is_lazy(source):
            raise FaultsimError(f"{name} has no shape yet: run the model once before its weights are stored")
        if is_int8_tensor(source):
            return
        kind = type(source)
        if not computes_as_tensor(kind):
            raise FaultsimError(f"{name} is a {kind.__name__}, a kind of tensor that is not known here")
        if source.layout != torch.strided:
            raise FaultsimError(f"{name} is {source.layout}: only dense weights can be stored")
        if source.dtype not in _FLOATS:
            raise FaultsimError(f"{name} is {source.dtype}: such numbers cannot be stored in int8")


def _refuse_unknown_module(name: str, module: nn.Module) -> None:
    """Raise FaultsimError for a module whose weight nothing here knows how to find."""
    layer, quantized = f"layer {name or '(the model itself)'}", ".nn.quantized" in type(module).__module__
    if quantized and (hasattr(module, "get_weight") or hasattr(module, "set_weight")):
        raise FaultsimError(f"{layer} is a quantized {type(module).__name__}, which is not known here")
    lacks = isinstance(module, WEIGHT_MODULES) and "weight" not in list_held(module)
    if lacks and not any(p is not None and p.dim() > 1 for p in module._parameters.values()):
        raise FaultsimError(f"{layer}: its weight is no parameter, and nothing known computes it from one")


def _same(one: Held, other: Held) -> bool:
    """Whether two modules that hold the same parameters compute with the same numbers."""
    numbers = [place.sources[0] if _raw(place) else place.value() for place in (one, other)]
    return numbers[0] is numbers[1] or numbers[0].is_meta or torch.equal(*numbers)


def _raw(place: Held) -> bool:
    """Whether the module computes with its parameter, rounded at most."""
    return isinstance(place, Parameter) or (isinstance(place, Parametrized) and place.rounds_only)


def _copies(model: nn.Module, computing: set[nn.Module]) -> list[tuple[int, tuple[nn.Module, str, object]]]:
    """List tensors that modules keep in plain Python: (id of the tensor, where)."""
    return [
        (id(tensor), (module, attribute, key))
        for module in model.modules()
        if module not in computing
        for attribute, key, tensor in find_copies(module)
    ]


def _strangers(model: nn.Module, computing: set[nn.Module], known: set[int]) -> Iterator[LeftOut]:
    """Yield matrices that are no parameter of the model: buffers, and what lies in plain Python lists."""
    own = set(model.modules())
    for name, module in model.named_modules():
        if module in computing:
            continue
        for attribute, buffer in module._buffers.items():
            if buffer is not None and buffer.dim() > 1 and buffer.is_floating_point() and not is_lazy(buffer):
                yield LeftOut(
                    join_name(name, attribute), tuple(buffer.shape), "a buffer, no parameter", False
                )
        hidden = "in a plain list or attribute, where torch does not see it as the model's"
        for attribute, key, tensor in find_copies(module):
            where = attribute if key is None else f"{attribute}[{key!r}]"
            if isinstance(tensor, nn.Parameter) and tensor.dim() > 1 and id(tensor) not in known:
                known.add(id(tensor))
                yield LeftOut(join_name(name, where), tuple(tensor.shape), hidden, True)
        for attribute, value in vars(module).items():
            entries = enumerate(value) if isinstance(value, list | tuple) else ()
            for key, entry in entries:
                if not isinstance(entry, nn.Module) or entry in own:
                    continue
                for inner, tensor in entry.named_parameters():
                    if tensor.dim() > 1 and id(tensor) not in known:
                        known.add(id(tensor))
                        yield LeftOut(
                            join_name(name, f"{attribute}[{key}].{inner}"), tuple(tensor.shape), hidden, True
                        )
