"""Entries of a comparison: a generator in front of the model, and what a classifier of its size does without it."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

from energy.saving import count_weight_accesses
from faultsim.checkpoint import compute_fingerprint
from faultsim.errors import FaultsimError
from faultsim.network.architecture import Architecture
from faultsim.sram import WORD_BYTES
from faultsim.studies.entries import Entry, Setting
from faultsim.studies.entry_labels import KINDS as FAULTSIM_KINDS
from faultsim.studies.entry_labels import Kind
from faultsim.studies.sweep_result import OperatingPoint, Variant

from .cascade import Cascade, measure_share
from .files import read_generator
from .generators import check_generator_size
from .lookup import PatternLookup
from .patterns import compute_pattern_fingerprint, load_patterns
from .stage_files import CLASSIFIER_ENDING, PATTERNS_ENDING, SavedClassifier, read_classifier

CONFIDENCE = 0.7
"""Of a cascade, where none is given: on CIFAR-10 the base model decides on a fifth to two fifths of the images."""


def put_in_front(path: str | Path, name: str | None = None) -> Entry:
    """Make the entry of a generator in front of the model. It runs at Vmin.

    Parameters
    ----------
    path
        Weight file of the generator.
    name
        In tables. Default: with and the architecture.
    """

    def create_variant(setting: Setting) -> Variant:
        saved, subject = read_generator(path), setting.subject
        variant = saved.create_variant(subject.device, subject.dataset.input_shape)
        return variant if name is None else replace(variant, name=name)

    return create_variant


def classify_alone(path: str | Path, name: str | None = None) -> Entry:
    """Make the entry of a classifier of a generator's size alone, at Vmin: the baseline of every generator.

    Parameters
    ----------
    path
        Weight file of the classifier: GENERATOR.classifier.safetensors, which staged training writes.
    name
        In tables. Default: classifier and the architecture of the generator.

    Raises
    ------
    FaultsimError
        When called, for a file that holds no classifier, or one of other classes.
    """

    def create_variant(setting: Setting) -> Variant:
        saved = _read_fitting(path, setting)
        return Variant(
            name or f"classifier {saved.name}",
            fingerprint=compute_fingerprint(saved.network, saved.stored),
            model=saved.network,
            stored=saved.stored,
            at_vmin=True,
            energy=setting.count_energy(saved.network, saved.stored, at_vmin=True),
            architecture=Architecture("neuralfuse.stage_files:create_classifier", saved.arguments),
        )

    return create_variant


def classify_first(path: str | Path, confidence: float = CONFIDENCE, name: str | None = None) -> Entry:
    """Make the entry of a cascade: a classifier at Vmin answers where it is confident, and else the model (Cascade).

    Its energy is that of the classifier, and the model's for the share of the images on which it is asked.

    Parameters
    ----------
    path
        Weight file of the classifier, as for classify_alone.
    confidence
        Smallest confidence at which the classifier's answer counts.
    name
        In tables. Default: cascade, the architecture of the generator, @ and the confidence.

    Raises
    ------
    FaultsimError
        When called, for the reasons that classify_alone has, and for a confidence out of range.
    """

    def create_variant(setting: Setting) -> Variant:
        subject, saved = setting.subject, _read_fitting(path, setting)
        model = Cascade(saved.network, subject.model, confidence)
        alone, base = setting.count_energy(saved.network, saved.stored, at_vmin=True), setting.count_energy()

        @cache
        def find_share() -> float:
            return measure_share(saved.network, subject.data, confidence)

        def energy(point: OperatingPoint) -> float | None:
            little, big = alone(point), base(point)
            return None if little is None or big is None else little + find_share() * big

        return Variant(
            name or f"cascade {saved.name}@{confidence:g}",
            fingerprint=f"{compute_fingerprint(saved.network, saved.stored)} {confidence!r}",
            model=model,
            stored=subject.stored,
            energy=energy,
            architecture=Architecture(
                "neuralfuse.cascade:create_untrained",
                {**saved.arguments, "architecture": asdict(subject.architecture), "confidence": confidence},
            ),
        )

    return create_variant


def look_up(
    classifier: str | Path, patterns: str | Path, confidence: float = 0.0, name: str | None = None
) -> Entry:
    """Make the entry of class patterns that are looked up instead of drawn (PatternLookup). It runs at Vmin.

    Parameters
    ----------
    classifier
        Weight file of the classifier, as for classify_alone.
    patterns
        File of the patterns: GENERATOR.patterns.safetensors, which staged training writes.
    confidence
        Where the classifier is less confident, the image stays as it is.
    name
        In tables. Default: lookup, the architecture of the generator, and @ and the confidence if there is one.

    Raises
    ------
    FaultsimError
        When called, for the reasons that classify_alone has, for patterns of other classes or another size, and for a
        confidence out of range.
    """

    def create_variant(setting: Setting) -> Variant:
        saved, table = _read_fitting(classifier, setting), load_patterns(patterns)[0]
        shape = check_generator_size(saved.name, setting.subject.dataset.input_shape)
        needed = (saved.network.head.out_features, *shape)
        if tuple(table.shape) != needed:
            raise FaultsimError(f"{patterns} has patterns {list(table.shape)}; the data needs {list(needed)}")
        lookup = PatternLookup(saved.network, table, confidence).to(setting.subject.device).eval()
        pattern = -(-table[0].numel() // WORD_BYTES)  # one of them is read for each image
        return Variant(
            name or f"lookup {saved.name}" + (f"@{confidence:g}" if confidence else ""),
            transform=lookup,
            transform_accesses=count_weight_accesses(saved.network, shape) + pattern,
            fingerprint=" ".join(
                (
                    compute_fingerprint(saved.network, saved.stored),
                    compute_pattern_fingerprint(table),
                    repr(confidence),
                )
            ),
            architecture=Architecture(
                "neuralfuse.lookup:create_untrained",
                {**saved.arguments, "shape": shape, "confidence": confidence},
            ),
        )

    return create_variant


def _read_fitting(path: str | Path, setting: Setting) -> SavedClassifier:
    """Read a classifier of the classes and images of a setting."""
    saved = read_classifier(path, setting.subject.device)
    replace(setting.subject, name=str(path), model=saved.network, stored=saved.stored).check()
    return saved


def list_kinds(generator: str | Path | None = None) -> Mapping[str, Kind]:
    """List the kinds of entries that a label can name: those of faultsim, and those of this module.

    Parameters
    ----------
    generator
        Weight file of "neuralfuse" without a file; the files of the others without one are next to it.

    Returns
    -------
    Mapping
        For faultsim.studies.entry_labels.parse_entry.
    """

    def find(kind: str, given: str, ending: str | None = None) -> Path:
        if given:
            return Path(given)
        if generator is None:
            raise FaultsimError(f"{kind} needs a file for this model: write {kind}:FILE.safetensors")
        return Path(generator) if ending is None else Path(generator).with_suffix(ending)

    def cascade(given: str = "") -> Entry:
        file, confidence = _split_confidence(given)
        path = find("cascade", file, CLASSIFIER_ENDING)
        return classify_first(path, CONFIDENCE if confidence is None else confidence)

    def lookup(given: str = "") -> Entry:
        file, confidence = _split_confidence(given)
        path = find("lookup", file)
        return look_up(
            path.with_suffix(CLASSIFIER_ENDING), path.with_suffix(PATTERNS_ENDING), confidence or 0.0
        )

    return {
        **FAULTSIM_KINDS,
        "neuralfuse": Kind(lambda given="": put_in_front(find("neuralfuse", given)), "a weight file"),
        "classifier": Kind(
            lambda given="": classify_alone(find("classifier", given, CLASSIFIER_ENDING)), "a weight file"
        ),
        "cascade": Kind(cascade, "CLASSIFIER@CONFIDENCE"),
        "lookup": Kind(lookup, "GENERATOR@CONFIDENCE"),
    }


def _split_confidence(given: str) -> tuple[str, float | None]:
    """Split FILE@CONFIDENCE, of which both parts can be left out."""
    file, _, number = given.rpartition("@")
    try:
        return file, float(number)
    except ValueError:
        return given, None


def list_defaults(generator: str | Path | None) -> list[str]:
    """List what is compared by default: a generator, and what the classifier of its size does where the file exists."""
    if generator is None:
        return []
    has_classifier = Path(generator).with_suffix(CLASSIFIER_ENDING).exists()
    return ["neuralfuse", *(["classifier", "cascade"] if has_classifier else [])]
