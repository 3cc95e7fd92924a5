"""Files with the results of the first two stages, which other generators can start from."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from faultsim.checkpoint import load_weights, read_file, save_weights
from faultsim.errors import FaultsimError
from faultsim.network.architecture import Architecture
from faultsim.stored import StoredWeights

from . import generators
from .classifier import Classifier
from .cost import Cost
from .patterns import load_patterns, save_patterns
from .staged import Known, Outcome

CLASSIFIER_ENDING = ".classifier.safetensors"
"""Of the file of a classifier next to its generator's."""
PATTERNS_ENDING = ".patterns.safetensors"
"""Of the file of class patterns next to their generator's."""
_MOST_CLASSES = 100_000  # a file that names more does not have their weights


def save_stages(out: Path, outcome: Outcome, about: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Write OUT.classifier.safetensors and OUT.patterns.safetensors next to a generator's file.

    Parameters
    ----------
    out
        The generator's file.
    outcome
        What train_staged returned.
    about
        Metadata: generator, dataset_fingerprint, base, training, provenance.
    found
        What measure_baselines returned.
    """
    stages = found["cost"]["stages"]
    path = out.with_suffix(CLASSIFIER_ENDING)
    save_classifier(path, outcome.classifier, about, found["classifier"], stages["classifier"])
    metadata = {**about, **found["patterns"], "cost": stages["patterns"]}
    save_patterns(out.with_suffix(PATTERNS_ENDING), outcome.patterns, metadata)


def save_classifier(
    path: Path,
    classifier: Classifier,
    about: Mapping[str, Any],
    found: Mapping[str, Any],
    cost: Mapping[str, Any],
) -> None:
    """Write a classifier's weight file.

    Parameters
    ----------
    path
        File to write (.classifier.safetensors).
    classifier
        In evaluation mode.
    about
        Metadata: generator, dataset_fingerprint, training, provenance.
    found
        Its accuracy and accesses.
    cost
        What its training cost, as Cost.describe returns it.
    """
    described = {key: value for key, value in about.items() if key not in ("generator", "base")}
    classes = {"classifier": about["generator"], "num_classes": classifier.head.out_features}
    save_weights(path, classifier, {**described, **classes, **found, "cost": cost})


def find_reusable(directory: Path, out: Path, about: Mapping[str, Any]) -> dict[str, Known]:
    """Find the classifier and the patterns of earlier trainings that a training can start from.

    Parameters
    ----------
    directory
        Folder with generators trained in stages. The first fitting files by their names are taken.
    out
        File of the generator that is trained. Stages that this training has begun itself are not replaced.
    about
        Metadata of the training: generator, dataset_fingerprint, base, training.

    Returns
    -------
    dict
        Arguments "classifier" and "patterns" of train_staged.

    Raises
    ------
    FaultsimError
        For damaged files.
    """
    found: dict[str, Known[Any]] = {}
    readers: dict[str, Callable[[Path, Mapping[str, Any]], Known[Any] | None]] = {
        "classifier": _read_classifier,
        "patterns": _read_patterns,
    }
    for stage, read in readers.items():
        if out.with_suffix(f".state.{stage}.safetensors").exists():
            continue
        for path in sorted(directory.glob(f"*.{stage}.safetensors")):
            own = path.name == out.with_suffix(f".{stage}.safetensors").name
            if own or ".state." in path.name or (known := read(path, about)) is None:
                continue
            found[stage] = known
            break
    return found


class SavedClassifier(NamedTuple):
    """A classifier of a generator's size as its weight file holds it."""

    name: str
    """Architecture of the generator, one of neuralfuse.generators.KNOWN."""
    network: Classifier
    """In evaluation mode, with the dequantized weights."""
    stored: StoredWeights
    """Its int8 weights."""
    metadata: dict[str, Any]
    """What the file says about its training."""

    @property
    def architecture(self) -> Architecture:
        """What makes it anew."""
        classes = self.network.head.out_features
        return Architecture(
            "neuralfuse.stage_files:create_classifier", {"name": self.name, "classes": classes}
        )


def read_classifier(path: str | Path, device: torch.device | str = "cpu") -> SavedClassifier:
    """Read a classifier's weight file, as staged training writes it next to a generator's.

    Parameters
    ----------
    path
        Weight file (.classifier.safetensors).
    device
        Where the classifier will run.

    Raises
    ------
    FaultsimError
        If the file is damaged or holds no classifier.
    """
    metadata = read_file(path)[1]
    name, classes = metadata.get("classifier"), metadata.get("num_classes")
    if name not in generators.KNOWN or type(classes) is not int or not 1 <= classes <= _MOST_CLASSES:
        raise FaultsimError(
            f"{path} holds no classifier of a generator's size: train-generator --trainer staged writes "
            "OUT.classifier.safetensors"
        )
    network = create_classifier(name, classes).to(device)
    stored, _ = load_weights(network, path)
    return SavedClassifier(name, network.eval(), stored, metadata)


def create_classifier(name: str, classes: int) -> Classifier:
    """Create a classifier of a generator's size with random weights."""
    return Classifier(generators.create(name), classes)


def _read_classifier(path: Path, about: Mapping[str, Any]) -> Known[Classifier] | None:
    """Read a classifier; None if it has another encoder or was trained on other images."""
    metadata = read_file(path)[1]
    name = metadata.get("classifier")
    if metadata.get("dataset_fingerprint") != about["dataset_fingerprint"] or name not in generators.KNOWN:
        return None
    if not generators.have_same_encoder(name, about["generator"]):
        return None
    return Known(read_classifier(path).network, Cost.read(metadata.get("cost")))


def _read_patterns(path: Path, about: Mapping[str, Any]) -> Known[Tensor] | None:
    """Read patterns; None if they are for other data, base models or bit errors, or of another coarseness."""
    patterns, metadata = load_patterns(path)
    if any(metadata.get(key) != about[key] for key in ("dataset_fingerprint", "base")):
        return None
    theirs, ours = metadata["training"], about["training"]
    if any(theirs.get(key) != ours[key] for key in ("bit_error_rate", "faults")):
        return None
    if _coarseness(metadata) != _coarseness(about):
        return None
    return Known(patterns, Cost.read(metadata.get("cost")))


def _coarseness(about: Mapping[str, Any]) -> int:
    if about["training"].get("trainer") == "lookup":
        return 1
    return generators.measure_coarseness(generators.create(about["generator"]))
