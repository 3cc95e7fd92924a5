"""Low-voltage SRAM bit errors in the weights of neural networks: voltage -> faults -> wrong weights -> accuracy.

Names are loaded on first use: `import faultsim` alone imports neither torch nor the compiled kernel.
"""

import importlib

__version__ = "0.1.0"

_HOME = {
    "ArrayGeometry": "sram",
    "Chip": "faults",
    "Evaluation": "evaluation",
    "FaultKind": "faults",
    "FaultMap": "fault_map",
    "FaultModel": "faults",
    "FaultsimError": "errors",
    "FaultsimWarning": "errors",
    "MeasuredChip": "fault_map",
    "Metric": "metrics",
    "Placement": "sram",
    "SRAM": "sram",
    "StoredWeights": "stored",
    "VoltageCurve": "voltage",
    "corrupt": "perturbation",
    "evaluate": "evaluation",
    "evaluation_chips": "faults",
    "failing_cells": "fault_map",
    "load_weights": "io.checkpoint",
    "perturb": "perturbation",
    "perturbed": "perturbation",
    "prepare_qat": "quantization",
    "quantize": "quantization",
    "save_weights": "io.checkpoint",
}
__all__ = [*_HOME, "__version__"]


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'faultsim' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
