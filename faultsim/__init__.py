"""Low-voltage SRAM bit errors in the weights of neural networks: voltage -> faults -> wrong weights -> accuracy.

Names are loaded on first use: `import faultsim` alone imports neither torch nor the compiled kernel.
"""

import importlib
from typing import TYPE_CHECKING, Any

# Type checkers and editors read these imports; at run time __getattr__ does them, one by one, from _HOME. A test
# keeps the two equal.
if TYPE_CHECKING:
    from . import energy as energy
    from .activations.memory import ActivationMemory as ActivationMemory
    from .activations.memory import perturbed_activations as perturbed_activations
    from .activations.ranges import ActivationRanges as ActivationRanges
    from .activations.ranges import calibrate as calibrate
    from .activations.restriction import RangeRestricted as RangeRestricted
    from .activations.restriction import restrict_ranges as restrict_ranges
    from .checkpoint import load_weights as load_weights
    from .checkpoint import save_weights as save_weights
    from .chips.chip_map import find_failing_cells as find_failing_cells
    from .chips.chip_map import map_chip as map_chip
    from .chips.fault_map import FaultMap as FaultMap
    from .chips.measured_chip import MeasuredChip as MeasuredChip
    from .domains import Domain as Domain
    from .domains import load_domains as load_domains
    from .errors import FaultsimError as FaultsimError
    from .errors import FaultsimWarning as FaultsimWarning
    from .evaluation import Evaluation as Evaluation
    from .evaluation import evaluate as evaluate
    from .fault_aware import FaultAwareWeights as FaultAwareWeights
    from .fault_aware import fit_to_chip as fit_to_chip
    from .faults import Chip as Chip
    from .faults import FaultKind as FaultKind
    from .faults import FaultModel as FaultModel
    from .faults import evaluation_chips as evaluation_chips
    from .formats import Format as Format
    from .metrics.metric import Metric as Metric
    from .onnx.export import export_onnx as export_onnx
    from .onnx.exportable_model import ExportableModel as ExportableModel
    from .perturbation import corrupt as corrupt
    from .perturbation import corrupt_stored as corrupt_stored
    from .perturbation import perturb as perturb
    from .perturbation import perturbed as perturbed
    from .quantization import dequantize as dequantize
    from .quantization import finish_qat as finish_qat
    from .quantization import prepare_qat as prepare_qat
    from .quantization import quantize as quantize
    from .sram import SRAM as SRAM
    from .sram import ArrayGeometry as ArrayGeometry
    from .sram import Placement as Placement
    from .stored import StoredWeights as StoredWeights
    from .studies.campaign import compute_margin as compute_margin
    from .studies.campaign import sample_size as sample_size
    from .studies.comparison import compare as compare
    from .studies.subject import Subject as Subject
    from .studies.subject import load_subject as load_subject
    from .studies.sweep_result import OperatingPoint as OperatingPoint
    from .studies.sweep_result import SweepResult as SweepResult
    from .studies.sweep_result import Variant as Variant
    from .studies.voltage_sweep import plan_points as plan_points
    from .studies.voltage_sweep import sweep as sweep
    from .studies.voltage_sweep import sweep_subject as sweep_subject
    from .studies.vulnerability_study import vulnerability as vulnerability
    from .studies.vulnerability_study import vulnerability_of_subject as vulnerability_of_subject
    from .training.bit_errors import OneChip as OneChip
    from .training.bit_errors import RandomBitErrors as RandomBitErrors
    from .training.classifier import Recipe as Recipe
    from .training.classifier import train_classifier as train_classifier
    from .training.clipping import Clipping as Clipping
    from .voltage import VoltageCurve as VoltageCurve

__version__ = "0.2.0"

_HOME = {
    "ActivationMemory": "activations.memory",
    "ActivationRanges": "activations.ranges",
    "ArrayGeometry": "sram",
    "Chip": "faults",
    "Clipping": "training.clipping",
    "Domain": "domains",
    "Evaluation": "evaluation",
    "ExportableModel": "onnx.exportable_model",
    "FaultAwareWeights": "fault_aware",
    "FaultKind": "faults",
    "FaultMap": "chips.fault_map",
    "FaultModel": "faults",
    "FaultsimError": "errors",
    "FaultsimWarning": "errors",
    "Format": "formats",
    "MeasuredChip": "chips.measured_chip",
    "Metric": "metrics.metric",
    "OneChip": "training.bit_errors",
    "OperatingPoint": "studies.sweep_result",
    "Placement": "sram",
    "RandomBitErrors": "training.bit_errors",
    "RangeRestricted": "activations.restriction",
    "Recipe": "training.classifier",
    "SRAM": "sram",
    "StoredWeights": "stored",
    "Subject": "studies.subject",
    "SweepResult": "studies.sweep_result",
    "Variant": "studies.sweep_result",
    "VoltageCurve": "voltage",
    "calibrate": "activations.ranges",
    "compare": "studies.comparison",
    "corrupt": "perturbation",
    "corrupt_stored": "perturbation",
    "dequantize": "quantization",
    "evaluate": "evaluation",
    "evaluation_chips": "faults",
    "export_onnx": "onnx.export",
    "find_failing_cells": "chips.chip_map",
    "fit_to_chip": "fault_aware",
    "finish_qat": "quantization",
    "load_domains": "domains",
    "load_subject": "studies.subject",
    "load_weights": "checkpoint",
    "map_chip": "chips.chip_map",
    "compute_margin": "studies.campaign",
    "perturb": "perturbation",
    "perturbed": "perturbation",
    "plan_points": "studies.voltage_sweep",
    "perturbed_activations": "activations.memory",
    "prepare_qat": "quantization",
    "quantize": "quantization",
    "restrict_ranges": "activations.restriction",
    "sample_size": "studies.campaign",
    "save_weights": "checkpoint",
    "vulnerability": "studies.vulnerability_study",
    "vulnerability_of_subject": "studies.vulnerability_study",
    "sweep": "studies.voltage_sweep",
    "sweep_subject": "studies.voltage_sweep",
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
