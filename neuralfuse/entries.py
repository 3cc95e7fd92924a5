"""Entries of a comparison: a generator in front of the model, and what a classifier of its size does without it."""

from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path

from faultsim.checkpoint import compute_fingerprint, read_file
from faultsim.errors import FaultsimError
from faultsim.studies.cascade import CONFIDENCE, Little, ask_first, read_little, split_confidence
from faultsim.studies.entries import Entry, Setting
from faultsim.studies.entry_labels import KINDS as FAULTSIM_KINDS
from faultsim.studies.entry_labels import Kind
from faultsim.studies.sweep_result import Variant

from .files import read_generator
from .lookup_file import combine
from .stage_files import CLASSIFIER_ENDING, PATTERNS_ENDING, read_classifier


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
        subject = setting.subject
        saved = read_classifier(path, subject.device)
        replace(subject, name=str(path), model=saved.network, stored=saved.stored).check()
        return Variant(
            name or f"classifier {saved.name}",
            fingerprint=compute_fingerprint(saved.network, saved.stored),
            model=saved.network,
            stored=saved.stored,
            at_vmin=True,
            energy=setting.count_energy(saved.network, saved.stored, at_vmin=True),
            architecture=saved.architecture,
        )

    return create_variant


def classify_first(path: str | Path, confidence: float = CONFIDENCE, name: str | None = None) -> Entry:
    """Make the entry of a cascade (faultsim.studies.cascade.ask_first), also of a classifier of a generator's size.

    Parameters
    ----------
    path
        Weight file of the classifier, as for classify_alone, or of a model of faultsim's.
    confidence, name
        As for ask_first.

    Raises
    ------
    FaultsimError
        When called, for the reasons that ask_first has.
    """
    return ask_first(path, confidence, name, read=_read_little)


def _read_little(path: str | PathLike[str], setting: Setting) -> Little:
    """Read a classifier of a generator's size, or a model of faultsim's."""
    if "classifier" not in read_file(path)[1]:
        return read_little(path, setting)
    saved = read_classifier(Path(path), setting.subject.device)
    return Little(saved.name, saved.network, saved.stored, saved.architecture)


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
        As for PatternLookup.
    name
        In tables. Default: lookup, the architecture of the generator, and @ and the confidence if there is one.

    Raises
    ------
    FaultsimError
        When called, for the reasons that classify_alone has, for patterns of other classes or another size, and for a
        confidence out of range.
    """

    def create_variant(setting: Setting) -> Variant:
        found, subject = combine(classifier, patterns, confidence), setting.subject
        network = found.network.to(subject.device)
        replace(
            subject, name=str(classifier), model=network.get_submodule("classifier"), stored=found.stored
        ).check()
        variant = found.create_variant(subject.device, subject.dataset.input_shape)
        return replace(variant, name=name or variant.name.removeprefix("with "))

    return create_variant


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
        file, confidence = split_confidence(given)
        path = find("cascade", file, CLASSIFIER_ENDING)
        return classify_first(path, CONFIDENCE if confidence is None else confidence)

    def lookup(given: str = "") -> Entry:
        file, confidence = split_confidence(given)
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
        "cascade": Kind(cascade, "FILE@CONFIDENCE"),
        "lookup": Kind(lookup, "GENERATOR@CONFIDENCE"),
    }


def list_defaults(generator: str | Path | None) -> list[str]:
    """List what is compared by default: a generator, and what the classifier of its size does where the file exists."""
    if generator is None:
        return []
    has_classifier = Path(generator).with_suffix(CLASSIFIER_ENDING).exists()
    return ["neuralfuse", *(["classifier", "cascade"] if has_classifier else [])]
