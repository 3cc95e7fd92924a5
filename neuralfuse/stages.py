"""Files of the first two stages of staged training, for other generators to begin with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from faultsim.io.checkpoint import load_weights, read_file, save_weights

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


def reusable(directory: Path, out: Path, about: Mapping[str, Any]) -> dict[str, Known]:
    """Arguments of train_staged(): the classifier and the patterns in a folder that fit a training, as `about` tells it
    (generator, dataset_fingerprint, base, training); the first ones by their names. What the training to `out` has
    begun or done itself stays its own. Raises FaultsimError for damaged files."""
    found = {}
    for stage, read in (("classifier", _read_classifier), ("patterns", _read_patterns)):
        if out.with_suffix(f".state.{stage}.safetensors").exists():
            continue
        for path in sorted(directory.glob(f"*.{stage}.safetensors")):
            own = path.name == out.with_suffix(f".{stage}.safetensors").name
            if own or ".state." in path.name or (known := read(path, about)) is None:
                continue
            found[stage] = known
            break
    return found


def _read_classifier(path: Path, about: Mapping[str, Any]) -> Known | None:
    """A classifier that save_stages() wrote; None where it has another encoder or was trained on other images."""
    metadata = read_file(path)[1]
    name, classes = metadata.get("classifier"), metadata.get("num_classes")
    if metadata.get("dataset_fingerprint") != about["dataset_fingerprint"] or name not in generators.KNOWN:
        return None
    if not generators.same_encoder(name, about["generator"]):
        return None
    network = Classifier(generators.create(name), classes)
    load_weights(network, path)
    return Known(network.eval(), Cost.read(metadata.get("cost")))


def _read_patterns(path: Path, about: Mapping[str, Any]) -> Known | None:
    """Patterns that save_stages() wrote; None where they were found for other data, base models or bit errors, or are
    finer or coarser than the generator draws."""
    patterns, metadata = load_patterns(path)
    if any(metadata.get(key) != about[key] for key in ("dataset_fingerprint", "base")):
        return None
    theirs, ours = metadata["training"], about["training"]
    if any(theirs.get(key) != ours[key] for key in ("bit_error_rate", "faults")):
        return None
    if _coarseness(metadata["generator"]) != _coarseness(about["generator"]):
        return None
    return Known(patterns, Cost.read(metadata.get("cost")))


def _coarseness(name: str) -> int:
    return generators.coarseness(generators.create(name))
