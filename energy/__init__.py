"""From the layers of a network to SRAM accesses, and from accesses to energy and energy saving.

    from energy import PAPER, count, trace_layers
    layers = trace_layers(model, (3, 32, 32))
    count(layers, PAPER).weight_memory_accesses

Importing the package imports neither torch nor SCALE-Sim: every name is loaded when it is first used. The
package knows nothing about faults or accuracy; a voltage enters as energy per access (`energy.saving`).
"""

import importlib
from typing import TYPE_CHECKING, Any

# Type checkers and editors read these imports; at run time __getattr__ does them, one by one, from _HOME. A test
# keeps the two equal.
if TYPE_CHECKING:
    from .accelerator import PAPER as PAPER
    from .accelerator import Accelerator as Accelerator
    from .accelerator import Dataflow as Dataflow
    from .costs import Costs as Costs
    from .costs import count_costs as count_costs
    from .counts import LayerCounts as LayerCounts
    from .counts import NetworkCounts as NetworkCounts
    from .engines import ENGINES as ENGINES
    from .engines import count as count
    from .engines import find_differences as find_differences
    from .errors import EnergyError as EnergyError
    from .errors import FaultsimError as FaultsimError
    from .layers import Layer as Layer
    from .saving import compute_relative_energy as compute_relative_energy
    from .saving import compute_saving as compute_saving
    from .saving import count_input_accesses as count_input_accesses
    from .saving import count_weight_accesses as count_weight_accesses
    from .saving import find_break_even_voltage as find_break_even_voltage
    from .saving import find_optimal_voltage as find_optimal_voltage
    from .topology import read_topology as read_topology
    from .topology import write_topology as write_topology
    from .trace import POLICIES as POLICIES
    from .trace import CountingPolicy as CountingPolicy
    from .trace import Trace as Trace
    from .trace import trace_layers as trace_layers
    from .trace import trace_model as trace_model

_HOME = {
    "Accelerator": "accelerator",
    "Costs": "costs",
    "CountingPolicy": "trace",
    "Dataflow": "accelerator",
    "ENGINES": "engines",
    "EnergyError": "errors",
    "FaultsimError": "errors",
    "Layer": "layers",
    "LayerCounts": "counts",
    "NetworkCounts": "counts",
    "PAPER": "accelerator",
    "POLICIES": "trace",
    "Trace": "trace",
    "find_break_even_voltage": "saving",
    "count": "engines",
    "find_differences": "engines",
    "find_optimal_voltage": "saving",
    "compute_saving": "saving",
    "count_costs": "costs",
    "count_input_accesses": "saving",
    "read_topology": "topology",
    "compute_relative_energy": "saving",
    "trace_layers": "trace",
    "trace_model": "trace",
    "count_weight_accesses": "saving",
    "write_topology": "topology",
}
__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'energy' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
