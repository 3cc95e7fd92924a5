"""Entries of a comparison: a generator in front of the model, and a classifier of its size alone."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from faultsim.checkpoint import compute_fingerprint
from faultsim.errors import FaultsimError
from faultsim.network.architecture import Architecture
from faultsim.studies.entries import Entry, Setting
from faultsim.studies.entry_labels import KINDS as FAULTSIM_KINDS
from faultsim.studies.entry_labels import Kind
from faultsim.studies.sweep_result import Variant

from .files import read_generator
from .stage_files import CLASSIFIER_ENDING, read_classifier


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
        network, stored = saved.network, saved.stored
        replace(subject, name=str(path), model=network, stored=stored).check()
        return Variant(
            name or f"classifier {saved.name}",
            fingerprint=compute_fingerprint(network, stored),
            model=network,
            stored=stored,
            at_vmin=True,
            energy=setting.count_energy(network, stored, at_vmin=True),
            architecture=Architecture(
                "neuralfuse.stage_files:create_classifier",
                {"name": saved.name, "classes": saved.metadata["num_classes"]},
            ),
        )

    return create_variant


def list_kinds(generator: str | Path | None = None) -> Mapping[str, Kind]:
    """List the kinds of entries that a label can name: those of faultsim, neuralfuse:FILE and classifier:FILE.

    Parameters
    ----------
    generator
        Weight file of "neuralfuse" without a file; "classifier" without a file is GENERATOR.classifier.safetensors.

    Returns
    -------
    Mapping
        For faultsim.studies.entry_labels.parse_entry.
    """

    def find(kind: str, given: str) -> Path:
        if given:
            return Path(given)
        if generator is None:
            raise FaultsimError(f"{kind} needs a file for this model: write {kind}:FILE.safetensors")
        path = Path(generator)
        return path if kind == "neuralfuse" else path.with_suffix(CLASSIFIER_ENDING)

    return {
        **FAULTSIM_KINDS,
        "neuralfuse": Kind(lambda given="": put_in_front(find("neuralfuse", given)), "a weight file"),
        "classifier": Kind(lambda given="": classify_alone(find("classifier", given)), "a weight file"),
    }


def list_defaults(generator: str | Path | None) -> list[str]:
    """List what is compared by default: a generator, and the classifier of its size where the file exists."""
    if generator is None:
        return []
    return [
        "neuralfuse",
        *(["classifier"] if Path(generator).with_suffix(CLASSIFIER_ENDING).exists() else []),
    ]
