"""Graphs of models by torch.fx, in a process with several threads.

While torch.fx traces, nn.Module.__call__ and nn.Module.__getattr__ are its own, for all threads. Two traces at once
would restore each other's, and leave them there for good.
"""

import threading
from typing import Any

from torch import fx, nn

_lock = threading.RLock()


class Tracer(fx.Tracer):
    """Traces one model at a time; modules that other threads call meanwhile compute as ever."""

    def trace(self, root: Any, concrete_args: dict[str, Any] | None = None) -> fx.Graph:
        """Return the graph of a model's forward method. Raises whatever that raises where it has no static graph."""
        with _lock:
            self._thread = threading.get_ident()
            return super().trace(root, concrete_args)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        """Note a call, or do it if another thread calls."""
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """Note the use of a parameter, or return it if another thread asks."""
        if threading.get_ident() != self._thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)
