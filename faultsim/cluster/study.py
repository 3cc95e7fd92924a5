"""Evaluations as jobs: all that they share goes into two files, and a job evaluates one case on some chips."""

import json
import math
import threading
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import nn

from ..activations.memory import ActivationMemory, FaultSites
from ..chips.measured_chip import AnyChip, MeasuredChip, as_chip
from ..errors import FaultsimError, FaultsimWarning
from ..evaluation import Evaluation, evaluate
from ..faults import FaultModel
from ..metrics.metric import METRICS, Metric, find_metric
from ..models import import_function
from ..stored import StoredWeights
from ..voltage import VoltageCurve
from .files import JobFiles, find_file
from .networks import PackedNetwork, PackedWeights
from .values import Tensors, pack, unpack

_lock = threading.Lock()  # warnings are caught for a whole process


@dataclass(frozen=True)
class PackedVariant:
    """A model in a memory, perhaps behind a transform."""

    faults: FaultModel
    network: PackedNetwork | None = None
    """None: that of the study."""
    weights: PackedWeights | None = None
    """None: those of the study."""
    transform: PackedNetwork | None = None


@dataclass(frozen=True)
class Case:
    """What is evaluated on each chip."""

    variant: int
    """Number of the variant."""
    voltage: float | None = None
    bit_error_rate: float | None = None
    sites: FaultSites = "weights"


@dataclass(frozen=True)
class Study:
    """Everything that a worker needs to evaluate all cases."""

    network: PackedNetwork
    weights: PackedWeights
    data: list[Any]
    """Batches, as for evaluate."""
    variants: tuple[PackedVariant, ...]
    cases: tuple[Case, ...]
    chips: list[int | MeasuredChip]
    """Seeds, or measured chips."""
    curve: VoltageCurve | None = None
    metric: str = "accuracy"
    """A word of METRICS, or package.module:name."""
    activations: ActivationMemory | None = None
    device: str = "cpu"
    compute: str = "float32"
    """What the models compute in, as for evaluate."""

    def write(self, files: JobFiles) -> str:
        """Write the study's files, and return its checksum."""
        tensors = Tensors()
        packed = pack(self, tensors)
        described = {"tensors": files.add(save(tensors)), "study": packed}
        return files.add(json.dumps(described).encode())


def pack_chips(chips: Sequence[AnyChip]) -> list[int | MeasuredChip]:
    """Return chips as a study has them."""
    return [one if isinstance(one, MeasuredChip) else one.seed for one in chips]


def name_metric(metric: Metric) -> str:
    """Return the name by which workers find a metric; FaultsimError where they cannot."""
    for word, known in METRICS.items():
        if known is metric:
            return word
    if not metric.source:
        raise FaultsimError(
            f"metric {metric.name} cannot be sent to workers: it must be a class or function of a module that they "
            "can import"
        )
    return metric.source


@dataclass
class OpenStudy:
    """A study on a worker, whose networks are made on first use."""

    checksum: str
    study: Study
    chips: list[AnyChip]
    metric: Metric
    model: nn.Module
    stored: StoredWeights
    variants: dict[int, tuple[nn.Module, StoredWeights, nn.Module | None]] = field(default_factory=dict)

    @classmethod
    def open(cls, checksum: str, folder: str) -> "OpenStudy":
        """Open a study; MissingFile where this worker lacks one of its files."""
        described = json.loads(find_file(checksum, folder).read_bytes())
        with safe_open(find_file(described["tensors"], folder), framework="pt") as file:  # mapped, not read
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        study: Study = unpack(described["study"], tensors)
        chips = [as_chip(one) for one in study.chips]
        metric = METRICS.get(study.metric) or find_metric(import_function(study.metric, "metric", "a metric"))
        if study.device != "cpu":
            study = replace(study, data=_move(study.data, study.device))
        model = study.network.build(study.device)
        return cls(checksum, study, chips, metric, model, study.weights.store(model))

    def find_variant(self, number: int) -> tuple[nn.Module, StoredWeights, nn.Module | None]:
        """Return model, stored weights and transform of a variant."""
        if number not in self.variants:
            packed, device = self.study.variants[number], self.study.device
            model = self.model if packed.network is None else packed.network.build(device)
            stored = self.stored if packed.weights is None else packed.weights.store(model)
            transform = None if packed.transform is None else packed.transform.build(device)
            self.variants[number] = model, stored, transform
        return self.variants[number]

    def evaluate(self, case: Case, chips: Sequence[AnyChip]) -> Evaluation:
        """Evaluate a case on some chips."""
        model, stored, transform = self.find_variant(case.variant)
        return evaluate(
            model,
            self.study.data,
            chips,
            voltage=case.voltage,
            bit_error_rate=case.bit_error_rate,
            curve=self.study.curve,
            faults=self.study.variants[case.variant].faults,
            stored=stored,
            transform=transform,
            metric=self.metric,
            sites=case.sites,
            activations=self.study.activations,
            compute=self.study.compute,
        )


def evaluate_chips(study: str, folder: str, case: int, first: int, end: int) -> dict[str, Any]:
    """Evaluate one case of a study on the chips from `first` to before `end`: the job of evaluations.

    Parameters
    ----------
    study
        Checksum of the study.
    folder
        Where the coordinator keeps files.
    case
        Number of the case.
    first, end
        Places of the chips.

    Returns
    -------
    dict
        What Evaluation holds, as JSON values, and the warnings.
    """
    from distributed import get_worker

    worker: Any = get_worker()
    with _lock, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", FaultsimWarning)
        opened: OpenStudy | None = getattr(worker, "faultsim_study", None)
        if opened is None or opened.checksum != study:
            opened = worker.faultsim_study = None  # its memory is free before the next one needs it
            opened = worker.faultsim_study = OpenStudy.open(study, folder)
            caught.clear()  # of a metric: the coordinator has told it
        found = opened.evaluate(opened.study.cases[case], opened.chips[first:end])
    told = {str(one.message) for one in caught if issubclass(one.category, FaultsimWarning)}
    return pack_evaluation(found) | ({"warnings": sorted(told)} if told else {})


def pack_evaluation(found: Evaluation) -> dict[str, Any]:
    """Return the numbers of an evaluation as JSON values; those that JSON cannot say are strings."""
    scores = [score if math.isfinite(score) else repr(score) for score in found.scores]
    values = {"correct": list(found.correct), "scores": scores, "not_finite": list(found.not_finite)}
    return {"images": found.images} | {name: numbers for name, numbers in values.items() if numbers}


def unpack_evaluation(packed: Mapping[str, Any], metric: Metric) -> Evaluation:
    """Return the evaluation that `pack_evaluation` made JSON of."""
    return Evaluation(
        tuple(packed.get("correct", ())),
        packed["images"],
        metric,
        tuple(float(score) for score in packed.get("scores", ())),
        tuple(packed.get("not_finite", ())),
    )


def _move(data: list[Any], device: str) -> list[Any]:
    from torch.utils._pytree import tree_map

    return [
        tree_map(lambda leaf: leaf.to(device) if isinstance(leaf, torch.Tensor) else leaf, one)
        for one in data
    ]
