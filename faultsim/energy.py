"""SRAM accesses of a network and the energy they take: the names of the package `energy`, in reach from faultsim.

    from faultsim.energy import PAPER, count, trace_layers

They are the very same objects. This file and `errors` are the only ones of faultsim that know that package.
"""

from typing import TYPE_CHECKING, Any

import energy

if TYPE_CHECKING:
    from energy import *  # noqa: F403

__all__ = list(energy.__all__)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'faultsim.energy' has no attribute {name!r}")
    return getattr(energy, name)


def __dir__() -> list[str]:
    return sorted(__all__)
