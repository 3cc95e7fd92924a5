"""Settings as JSON and tensors, which travel without a pickle: dataclasses by their fields, nothing else is made."""

import importlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import FaultsimError

_KEY = "$"  # of objects that stand for something else than a dictionary


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
        that can be imported, in any combination.
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
    if is_dataclass(value) and not isinstance(value, type):
        given = {field.name: getattr(value, field.name) for field in fields(value) if field.init}
        packed = {name: pack(item, tensors) for name, item in given.items()}
        return {_KEY: "dataclass", "of": _name(type(value)), "fields": packed}
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
        case "dataclass":
            made = {name: unpack(item, tensors) for name, item in packed["fields"].items()}
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
    """Return the dataclass, or the subclass of `base`, of that name; FaultsimError for anything else."""
    module, _, path = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    if not (isinstance(found, type) and (is_dataclass(found) if base is None else issubclass(found, base))):
        raise FaultsimError(
            f"a job names {name}, which is no {'dataclass' if base is None else base.__name__}"
        )
    return found
