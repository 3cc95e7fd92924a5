"""Look-ups from the files that staged training writes: the classifier and the class patterns."""

from pathlib import Path

from faultsim.checkpoint import save_weights
from faultsim.errors import FaultsimError
from faultsim.io.provenance import record_provenance
from faultsim.stored import StoredWeights

from .files import SavedGenerator, read_generator
from .lookup import LOOKUP, PatternLookup
from .patterns import compute_pattern_fingerprint, load_patterns
from .stage_files import CLASSIFIER_ENDING, PATTERNS_ENDING, read_classifier


def combine(classifier: str | Path, patterns: str | Path, confidence: float = 0.0) -> SavedGenerator:
    """Put a classifier and class patterns together.

    Parameters
    ----------
    classifier
        Weight file of a classifier of a generator's size: GENERATOR.classifier.safetensors.
    patterns
        File of the patterns: GENERATOR.patterns.safetensors.
    confidence
        As for PatternLookup.

    Returns
    -------
    SavedGenerator
        As read_generator returns it.

    Raises
    ------
    FaultsimError
        For damaged files, a classifier and patterns of different classes, and a confidence out of range.
    """
    saved, (table, about) = read_classifier(classifier), load_patterns(patterns)
    classes = saved.network.head.out_features
    if len(table) != classes:
        raise FaultsimError(f"{patterns} has {len(table)} patterns; {classifier} knows {classes} classes")
    network = PatternLookup.join(saved.name, saved.network, table, confidence)
    metadata = {
        **{key: about[key] for key in ("base", "dataset", "dataset_fingerprint", "training") if key in about},
        "generator": LOOKUP,
        LOOKUP: network.describe(),
        "classifier": {key: saved.metadata[key] for key in ("accuracy", "cost") if key in saved.metadata},
        "patterns": {
            "fingerprint": compute_pattern_fingerprint(table),
            **{key: about[key] for key in ("mean", "chips", "cost") if key in about},
        },
        **record_provenance(),
    }
    return SavedGenerator(network.name, network, StoredWeights.of(network), metadata)


def write_lookup(path: str | Path, generator: str | Path, confidence: float = 0.0) -> SavedGenerator:
    """Write the look-up of a generator that was trained in stages or as a look-up: a weight file like a generator's.

    Parameters
    ----------
    path
        File to write (.safetensors).
    generator
        The generator's weight file, which need not exist: the classifier and the patterns are next to it.
    confidence
        As for PatternLookup.

    Returns
    -------
    SavedGenerator
        What was written.

    Raises
    ------
    FaultsimError
        For the reasons that combine has, and a file that cannot be written.
    """
    whole = Path(generator)
    found = combine(whole.with_suffix(CLASSIFIER_ENDING), whole.with_suffix(PATTERNS_ENDING), confidence)
    save_weights(path, found.network, found.metadata)
    return read_generator(path)
