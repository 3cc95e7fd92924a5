"""Settings as JSON and tensors, which travel without a pickle: dataclasses by their fields, nothing else is made."""

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import FaultsimError

_KEY = "$"  # of objects that stand for something else than a dictionary
_OURS = ("faultsim", "neuralfuse")
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class Tensors(dict[str, Tensor]):
    """Tensors by names; those that are the same memory are there once."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[object, tuple[Tensor, str]] = {}

    def add(self, tensor: Tensor) -> str:
        """Add a tensor and return its name."""
        key = tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype
        if key not in self._known or not tensor.numel():
            name = str(len(self))
            self[name] = tensor.detach().cpu().contiguous().clone()  # safetensors refuses shared memory
            self._known[key] = tensor, name  # with the tensor, whose memory no other one gets then
        return self._known[key][1]


def pack(value: Any, tensors: Tensors) -> Any:
    """Return a value as JSON.

    Parameters
    ----------
    value
        Numbers, strings, lists, tuples, dictionaries, tensors, NumPy arrays, enumerations and dataclasses of modules
        that can be imported, and measured chips and codes, in any combination.
    tensors
        Tensors of the value are added, under names of their own.

    Raises
    ------
    FaultsimError
        For anything else.
    """
    if isinstance(value, Enum):
        return {_KEY: "enum", "of": _name(type(value)), "value": value.value}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        return {_KEY: "tensor", "name": tensors.add(value)}
    if isinstance(value, np.ndarray):
        return {_KEY: "array", "tensor": pack(torch.from_numpy(np.array(value)), tensors)}
    if isinstance(value, list):
        return [pack(item, tensors) for item in value]
    if isinstance(value, tuple) and type(value) is tuple:
        return {_KEY: "tuple", "items": [pack(item, tensors) for item in value]}
    if isinstance(value, Mapping):
        return {
            _KEY: "dict",
            "items": [[pack(key, tensors), pack(item, tensors)] for key, item in value.items()],
        }
    if (names := _list_parts(type(value))) is not None and all(hasattr(value, name) for name in names):
        packed = {name: pack(getattr(value, name), tensors) for name in names}
        return {_KEY: "object", "of": _name(type(value)), "parts": packed}
    raise FaultsimError(
        f"a {type(value).__name__} cannot be sent to workers: numbers, tensors and dataclasses can"
    )


def unpack(packed: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Return the value that `pack` made JSON of."""
    if isinstance(packed, list):
        return [unpack(item, tensors) for item in packed]
    if not isinstance(packed, dict):
        return packed
    match packed[_KEY]:
        case "tensor":
            return tensors[packed["name"]]
        case "array":
            return unpack(packed["tensor"], tensors).numpy()
        case "tuple":
            return tuple(unpack(item, tensors) for item in packed["items"])
        case "dict":
            return {unpack(key, tensors): unpack(item, tensors) for key, item in packed["items"]}
        case "enum":
            return _find(packed["of"], Enum)(packed["value"])
        case "object":
            made = {name: unpack(item, tensors) for name, item in packed["parts"].items()}
            return _find(packed["of"])(**made)
    raise FaultsimError(f"a job holds {packed[_KEY]!r}, which this version of faultsim does not know")


def _name(kind: type) -> str:
    """Return the name of a class as package.module:Class; FaultsimError where workers cannot import it by that."""
    name = f"{kind.__module__}:{kind.__qualname__}"
    if kind.__module__ == "__main__" or "<" in kind.__qualname__:
        raise FaultsimError(
            f"{kind.__qualname__} cannot be sent to workers: put it into a module that they can import"
        )
    return name


def _find(name: str, base: type | None = None) -> Any:
    """Return the class of that name: one that `pack` takes, or a subclass of `base`; FaultsimError for any other."""
    module, _, path = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    fits = isinstance(found, type) and (
        _list_parts(found) is not None if base is None else issubclass(found, base)
    )
    if not fits:
        raise FaultsimError(
            f"a job names {name}, which is no {'dataclass' if base is None else base.__name__}"
        )
    return found


def _list_parts(kind: type) -> list[str] | None:
    """Return the names of what objects of a class are made of; None for a class that does not travel.

    Dataclasses do, and classes of faultsim whose objects keep their arguments under the arguments' names.
    """
    if is_dataclass(kind):
        return [field.name for field in fields(kind) if field.init]
    if kind.__module__.partition(".")[0] not in _OURS:
        return None
    parameters = inspect.signature(kind).parameters.values()
    return [one.name for one in parameters] if all(one.kind in _NAMED for one in parameters) else None
