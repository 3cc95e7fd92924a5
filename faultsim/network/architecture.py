"""What makes a network anew where it cannot be copied: on the workers of a cluster."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Architecture:
    """A function that returns a network, with any weights."""

    function: str
    """The function, as package.module:function."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Its keyword arguments, JSON values."""

    def build(self) -> "nn.Module":
        """Make the network, in evaluation mode."""
        module, _, name = self.function.partition(":")
        network: nn.Module = getattr(importlib.import_module(module), name)(**self.arguments)
        return network.eval()
