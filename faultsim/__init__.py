"""Low-voltage SRAM bit errors in the weights of neural networks: voltage -> faults -> wrong weights -> accuracy.

Names are loaded on first use: `import faultsim` alone imports neither torch nor the compiled kernel.
"""

import importlib
from typing import TYPE_CHECKING, Any

# Type checkers and editors read these imports; at run time __getattr__ does them, one by one, from _HOME. A test
# keeps the two equal.
if TYPE_CHECKING:
    from . import energy as energy
    from .activation_ranges import ActivationRanges as ActivationRanges
    from .activation_ranges import calibrate as calibrate
    from .activations import ActivationMemory as ActivationMemory
    from .activations import perturbed_activations as perturbed_activations
    from .campaign import compute_margin as compute_margin
    from .campaign import sample_size as sample_size
    from .chip_map import find_failing_cells as find_failing_cells
    from .chip_map import map_chip as map_chip
    from .comparison import compare as compare
    from .domains import Domain as Domain
    from .domains import load_domains as load_domains
    from .errors import FaultsimError as FaultsimError
    from .errors import FaultsimWarning as FaultsimWarning
    from .evaluation import Evaluation as Evaluation
    from .evaluation import evaluate as evaluate
    from .export import export_onnx as export_onnx
    from .exportable_model import ExportableModel as ExportableModel
    from .fault_aware import FaultAwareWeights as FaultAwareWeights
    from .fault_aware import fit_to_chip as fit_to_chip
    from .fault_map import FaultMap as FaultMap
    from .faults import Chip as Chip
    from .faults import FaultKind as FaultKind
    from .faults import FaultModel as FaultModel
    from .faults import evaluation_chips as evaluation_chips
    from .formats import Format as Format
    from .io.checkpoint import load_weights as load_weights
    from .io.checkpoint import save_weights as save_weights
    from .measured_chip import MeasuredChip as MeasuredChip
    from .metrics import Metric as Metric
    from .perturbation import corrupt as corrupt
    from .perturbation import corrupt_stored as corrupt_stored
    from .perturbation import perturb as perturb
    from .perturbation import perturbed as perturbed
    from .quantization import dequantize as dequantize
    from .quantization import finish_qat as finish_qat
    from .quantization import prepare_qat as prepare_qat
    from .quantization import quantize as quantize
    from .range_restriction import RangeRestricted as RangeRestricted
    from .range_restriction import restrict_ranges as restrict_ranges
    from .sram import SRAM as SRAM
    from .sram import ArrayGeometry as ArrayGeometry
    from .sram import Placement as Placement
    from .stored import StoredWeights as StoredWeights
    from .subject import Subject as Subject
    from .subject import load_subject as load_subject
    from .sweep_result import OperatingPoint as OperatingPoint
    from .sweep_result import SweepResult as SweepResult
    from .sweep_result import Variant as Variant
    from .training.bit_errors import OneChip as OneChip
    from .training.bit_errors import RandomBitErrors as RandomBitErrors
    from .training.classifier import Recipe as Recipe
    from .training.classifier import train_classifier as train_classifier
    from .training.clipping import Clipping as Clipping
    from .voltage import VoltageCurve as VoltageCurve
    from .voltage_sweep import plan_points as plan_points
    from .voltage_sweep import sweep as sweep
    from .voltage_sweep import sweep_subject as sweep_subject
    from .vulnerability_study import vulnerability as vulnerability
    from .vulnerability_study import vulnerability_of_subject as vulnerability_of_subject

__version__ = "0.2.0"

_HOME = {
    "ActivationMemory": "activations",
    "ActivationRanges": "activation_ranges",
    "ArrayGeometry": "sram",
    "Chip": "faults",
    "Clipping": "training.clipping",
    "Domain": "domains",
    "Evaluation": "evaluation",
    "ExportableModel": "exportable_model",
    "FaultAwareWeights": "fault_aware",
    "FaultKind": "faults",
    "FaultMap": "fault_map",
    "FaultModel": "faults",
    "FaultsimError": "errors",
    "FaultsimWarning": "errors",
    "Format": "formats",
    "MeasuredChip": "measured_chip",
    "Metric": "metrics",
    "OneChip": "training.bit_errors",
    "OperatingPoint": "sweep_result",
    "Placement": "sram",
    "RandomBitErrors": "training.bit_errors",
    "RangeRestricted": "range_restriction",
    "Recipe": "training.classifier",
    "SRAM": "sram",
    "StoredWeights": "stored",
    "Subject": "subject",
    "SweepResult": "sweep_result",
    "Variant": "sweep_result",
    "VoltageCurve": "voltage",
    "calibrate": "activation_ranges",
    "compare": "comparison",
    "corrupt": "perturbation",
    "corrupt_stored": "perturbation",
    "dequantize": "quantization",
    "evaluate": "evaluation",
    "evaluation_chips": "faults",
    "export_onnx": "export",
    "find_failing_cells": "chip_map",
    "fit_to_chip": "fault_aware",
    "finish_qat": "quantization",
    "load_domains": "domains",
    "load_subject": "subject",
    "load_weights": "io.checkpoint",
    "map_chip": "chip_map",
    "compute_margin": "campaign",
    "perturb": "perturbation",
    "perturbed": "perturbation",
    "plan_points": "voltage_sweep",
    "perturbed_activations": "activations",
    "prepare_qat": "quantization",
    "quantize": "quantization",
    "restrict_ranges": "range_restriction",
    "sample_size": "campaign",
    "save_weights": "io.checkpoint",
    "vulnerability": "vulnerability_study",
    "vulnerability_of_subject": "vulnerability_study",
    "sweep": "voltage_sweep",
    "sweep_subject": "voltage_sweep",
    "train_classifier": "training.classifier",
}
__all__ = [*_HOME, "__version__", "energy"]


def __getattr__(name: str) -> Any:
    if name == "energy":
        return importlib.import_module(".energy", __name__)
    if name not in _HOME:
        raise AttributeError(f"module 'faultsim' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
