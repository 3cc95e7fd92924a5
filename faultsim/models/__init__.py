"""The networks that run on the simulated memory, and how to name one.

A model is named by a registered name (`ResNet18`, ..., see `NAMES`), by `package.module:function`, where the function
takes no required argument and returns a `torch.nn.Module`, or by `transformers:FOLDER`, a language model of the
transformers library.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import FaultsimError
from .language import PREFIX, load_language_model

if TYPE_CHECKING:
    from torch import nn

# name -> (module of this package, function in it)
_REGISTRY = {
    "ResNet18": ("resnet", "resnet18"),
    "ResNet50": ("resnet", "resnet50"),
    "VGG11": ("vgg", "vgg11"),
    "VGG16": ("vgg", "vgg16"),
    "VGG19": ("vgg", "vgg19"),
    "VGG7": ("vgg7", "VGG7"),
    "DigitsNet": ("digitsnet", "DigitsNet"),
    "DigitsVGG": ("digitsvgg", "DigitsVGG"),
}

NAMES = tuple(_REGISTRY)
"""Names that `create` knows."""

BASE_MODELS = NAMES[:5]
"""The five base models of the paper (Appendix C)."""


def explain_unknown(name: str) -> FaultsimError:
    """Return the error for a name that isn't registered."""
    return FaultsimError(
        f"unknown model {name!r}: it can be {', '.join(NAMES)}; your own is package.module:function"
    )


def create(name: str, num_classes: int = 10) -> nn.Module:
    """Create a randomly initialized model for 3x32x32 input in [-1, 1].

    Parameters
    ----------
    name
        One of `NAMES`.
    num_classes
        Number of logits.

    Raises
    ------
    FaultsimError
        For an unknown name or a class count below one.
    """
    if name not in _REGISTRY:
        raise explain_unknown(name)
    if num_classes < 1:
        raise FaultsimError(f"a classifier needs at least one class, not {num_classes}")
    module, function = _REGISTRY[name]
    return getattr(importlib.import_module(f"faultsim.models.{module}"), function)(num_classes=num_classes)


def resolve(spec: str, num_classes: int = 10) -> nn.Module:
    """Return the model that `spec` names: a registered name, `package.module:function` or `transformers:FOLDER`.

    Parameters
    ----------
    spec
        The name. A function is called without arguments.
    num_classes
        Number of logits of a registered model.

    Raises
    ------
    FaultsimError
        When the module or function is missing, the function fails, or what it returns is no `nn.Module`.
    """
    if ":" not in spec:
        return create(spec, num_classes)
    if spec.startswith(PREFIX):
        return load_language_model(spec)
    from torch import nn

    function = import_function(spec, "model", "a model")
    function_name = spec.partition(":")[2]
    try:
        model = function()
    except Exception as error:  # the user's function may fail in any way
        raise FaultsimError(
            f"model {spec!r}: calling {function_name}() failed ({type(error).__name__}: {error}); "
            "it has to work without arguments"
        ) from error
    if not isinstance(model, nn.Module):
        raise FaultsimError(
            f"model {spec!r}: {function_name}() returned a {type(model).__name__}, not a torch.nn.Module"
        )
    return model


def import_object(spec: str, what: str) -> object:
    """Import the user's own `package.module:name`.

    FaultsimError, which calls it `what`, when the module or the name is missing.
    """
    module_name, _, name = spec.partition(":")
    if not module_name or not name:
        raise FaultsimError(f"{what} {spec!r} is incomplete; write package.module:function")
    # the console script, unlike `python -m`, doesn't look for modules where the user stands
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # the user's module may fail in any way while it is imported
        raise FaultsimError(
            f"{what} {spec!r}: importing {module_name!r} failed ({type(error).__name__}: {error}); "
            "give a module that python can import from here"
        ) from error
    found = getattr(module, name, None)
    if found is None:
        raise FaultsimError(f"{what} {spec!r}: module {module_name!r} has no {name!r}")
    return found


def import_function(spec: str, what: str, result: str) -> Callable:
    """Import the user's own function `package.module:function`, which is to return `result`.

    FaultsimError, which calls it `what`, when the module or function is missing.
    """
    function = import_object(spec, what)
    if not callable(function):
        raise FaultsimError(
            f"{what} {spec!r}: {spec.partition(':')[2]!r} is of type {type(function).__name__}; "
            f"give a function that returns {result}"
        )
    return function
