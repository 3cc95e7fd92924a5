"""The key-value cache of a language model, as layers whose outputs lie in a memory.

Attention writes the keys and values of each token once, and reads them at every later token. Models of the transformers
library keep them in an object, which no hook sees. Here the attention layers get a layer more for the keys and one for
the values, which change nothing, and everything that is read from the cache passes through them.
"""

import inspect
from typing import Any

from torch import Tensor, nn

from ..errors import FaultsimError
from ..support.extras import needs_extra

CACHES = ("key_cache", "value_cache")
"""Names of the added layers."""
_ARGUMENTS = ("cache", "past_key_values")
"""What versions of transformers call the cache that a model is given."""


def add_cache_layers(model: nn.Module) -> list[str]:
    """Let a language model read its keys and values through layers of their own.

        add_cache_layers(model)
        ranges = calibrate(model, batches, at="output", select=["*.key_cache", "*.value_cache"])

    Each call of the model begins with an empty cache, unless it is given one. A layer gets the whole cache at each
    read, [samples, positions, heads, dimensions]: the address of a position does not change when the sequence grows.

    Parameters
    ----------
    model
        A causal language model of transformers. It computes what it computed before.

    Returns
    -------
    list of str
        Names of the layers, in the order of the model's own.

    Raises
    ------
    FaultsimError
        For a model without a key-value cache.
    """
    owners = _find_attention(model)
    parameters = inspect.signature(model.forward).parameters
    name = next((name for name in _ARGUMENTS if name in parameters), None)
    if not owners or name is None or not hasattr(model, "config"):
        raise FaultsimError(
            f"{type(model).__name__} has no key-value cache: causal language models of transformers have one"
        )
    if not any(hasattr(owner, CACHES[0]) for owner in owners.values()):
        for owner in owners.values():
            for cache in CACHES:
                owner.add_module(cache, nn.Identity())
        by_index = {int(owner.layer_idx): owner for owner in owners.values()}  # type: ignore[arg-type]

        def give_cache(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if any(kwargs.get(given) is not None for given in _ARGUMENTS):
                return None
            others = {key: value for key, value in kwargs.items() if key not in _ARGUMENTS}
            return args, {**others, name: _make_cache(model.config, by_index), "use_cache": True}

        model.register_forward_pre_hook(give_cache, with_kwargs=True)
    return [f"{owner}.{cache}" for owner in owners for cache in CACHES]


def _find_attention(model: nn.Module) -> dict[str, nn.Module]:
    """Return the layers that write into the cache, by name: transformers gives them a number."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(getattr(module, "layer_idx", None), int) and "Attention" in type(module).__name__
    }


def _make_cache(configuration: Any, layers: dict[int, nn.Module]) -> Any:
    """Return an empty cache that reads through layers."""
    with needs_extra("transformers"):
        from transformers import DynamicCache

    class ReadCache(DynamicCache):
        """It holds what was written; what it returns was read."""

        def update(
            self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
        ) -> Any:
            held = super().update(key_states, value_states, layer_idx, *args, **kwargs)
            owner = layers[layer_idx]
            # heads come before positions, and go behind them
            return tuple(
                getattr(owner, cache)(tensor.transpose(1, 2)).transpose(1, 2)
                for cache, tensor in zip(CACHES, held, strict=True)
            )

    return ReadCache(config=configuration)
