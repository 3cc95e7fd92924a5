"""SRAM accesses of a network and the energy they take: the names of the package `energy`, in reach from faultsim.

    from faultsim.energy import PAPER, count, trace_layers

They are the very same objects. This file and `errors` are the only ones of faultsim that know that package.
"""

from typing import TYPE_CHECKING, Any

import energy

if TYPE_CHECKING:
    from energy import ENGINES as ENGINES
    from energy import PAPER as PAPER
    from energy import POLICIES as POLICIES
    from energy import Accelerator as Accelerator
    from energy import Costs as Costs
    from energy import CountingPolicy as CountingPolicy
    from energy import Dataflow as Dataflow
    from energy import EnergyError as EnergyError
    from energy import FaultsimError as FaultsimError
    from energy import Layer as Layer
    from energy import LayerCounts as LayerCounts
    from energy import NetworkCounts as NetworkCounts
    from energy import Trace as Trace
    from energy import compute_relative_energy as compute_relative_energy
    from energy import compute_saving as compute_saving
    from energy import count as count
    from energy import count_costs as count_costs
    from energy import count_input_accesses as count_input_accesses
    from energy import count_weight_accesses as count_weight_accesses
    from energy import find_break_even_voltage as find_break_even_voltage
    from energy import find_differences as find_differences
    from energy import find_optimal_voltage as find_optimal_voltage
    from energy import read_topology as read_topology
    from energy import trace_layers as trace_layers
    from energy import trace_model as trace_model
    from energy import write_topology as write_topology

__all__ = list(energy.__all__)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'faultsim.energy' has no attribute {name!r}")
    return getattr(energy, name)


def __dir__() -> list[str]:
    return sorted(__all__)
