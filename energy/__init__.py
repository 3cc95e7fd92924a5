"""From the layers of a network to SRAM accesses, and from accesses to energy and energy saving.

    from energy import PAPER, count, trace_layers
    layers = trace_layers(model, (3, 32, 32))
    count(layers, PAPER).weight_memory_accesses

Importing the package imports neither torch nor SCALE-Sim: every name is loaded when it is first used. The
package knows nothing about faults or accuracy; a voltage enters as energy per access (`energy.saving`).
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "Accelerator": "accelerator",
    "Dataflow": "accelerator",
    "PAPER": "accelerator",
    "Costs": "costs",
    "model_costs": "costs",
    "LayerCounts": "counts",
    "NetworkCounts": "counts",
    "ENGINES": "engines",
    "count": "engines",
    "differences": "engines",
    "EnergyError": "errors",
    "Layer": "layers",
    "break_even_voltage": "saving",
    "energy_optimal_voltage": "saving",
    "energy_saving": "saving",
    "relative_energy": "saving",
    "weight_memory": "saving",
    "read_topology": "topology",
    "write_topology": "topology",
    "CountingPolicy": "trace",
    "POLICIES": "trace",
    "Trace": "trace",
    "trace_model": "trace",
    "trace_layers": "trace",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'energy' has no attribute {name!r}")
    return getattr(importlib.import_module(f"energy.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
