"""Files of the first two stages of staged training, for other generators to begin with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from faultsim.checkpoint import load_weights, read_file, save_weights
from faultsim.errors import FaultsimError

from . import generators
from .classifier import Classifier
from .cost import Cost
from .patterns import load_patterns, save_patterns
from .staged import Known, Outcome


def save_stages(out: Path, outcome: Outcome, about: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Writes OUT.classifier.safetensors and OUT.patterns.safetensors beside a generator's file. `about` says how they
    came about (generator, dataset_fingerprint, base, training, provenance), `found` is what judge() said."""
    stages = found["cost"]["stages"]
    save_weights(
        out.with_suffix(".classifier.safetensors"),
        outcome.classifier,
        {
            **{key: value for key, value in about.items() if key not in ("generator", "base")},
            "classifier": about["generator"],
            "num_classes": outcome.classifier.head.out_features,
            **found["classifier"],
            "cost": stages["classifier"],
        },
    )
    metadata = {**about, **found["patterns"], "cost": stages["patterns"]}
    save_patterns(out.with_suffix(".patterns.safetensors"), outcome.patterns, metadata)


def read_classifier(path: Path, about: Mapping[str, Any]) -> Known:
    """A classifier that save_stages() wrote; FaultsimError unless it was trained on the data that `about` names
    (dataset_fingerprint)."""
    metadata = read_file(path)[1]
    name, classes = metadata.get("classifier"), metadata.get("num_classes")
    if name not in generators.KNOWN or not isinstance(classes, int) or isinstance(classes, bool):
        raise FaultsimError(f"{path} holds no classifier: train-generator --trainer staged writes them")
    _check(path, metadata, about, ("dataset_fingerprint",))
    network: nn.Module = Classifier(generators.create(name), classes)
    load_weights(network, path)
    return Known(network.eval(), Cost.read(metadata.get("cost")))


def read_patterns(path: Path, about: Mapping[str, Any]) -> Known:
    """Patterns that save_stages() wrote; FaultsimError unless they were found for the data, base models and bit errors
    that `about` names (dataset_fingerprint, base, training)."""
    patterns, metadata = load_patterns(path)
    _check(path, metadata, about, ("dataset_fingerprint", "base"))
    theirs, ours = metadata.get("training", {}), about["training"]
    for key in ("bit_error_rate", "faults"):
        if theirs.get(key) != ours[key]:
            raise FaultsimError(f"{path} was made for another {key.replace('_', ' ')}")
    return Known(patterns, Cost.read(metadata.get("cost")))


def _check(path: Path, metadata: Mapping[str, Any], about: Mapping[str, Any], keys: tuple[str, ...]) -> None:
    words = {"dataset_fingerprint": "other training images", "base": "another base model"}
    for key in keys:
        if metadata.get(key) != about[key]:
            raise FaultsimError(f"{path} was made for {words[key]}")
