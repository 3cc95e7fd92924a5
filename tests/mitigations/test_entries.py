"""Entries of a comparison on the model and on the input: other base models, generators, classifiers, the user's own."""

import json
from pathlib import Path

import pytest
import torch

import faultsim
import neuralfuse
from faultsim import FaultsimError, bundled, save_weights
from faultsim.cli import main
from faultsim.show.series_styles import COLORS, MARKERS, choose_styles
from faultsim.studies.comparison import compare
from faultsim.studies.entries import replace_base
from neuralfuse import generators
from neuralfuse.bundled import GENERATORS
from neuralfuse.classifier import Classifier
from neuralfuse.entries import classify_alone, put_in_front

OWN = """
import torch
from faultsim import StoredWeights, Variant
from faultsim.mitigations import Decoded, MemoryMitigation, Overhead

class Halved(MemoryMitigation):
    name = "halved"
    overhead = Overhead(access=1.0)

    def decode(self, read, checks, written):
        return Decoded(read >> 1)

instance = Halved()

class Mirrored(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model
    def forward(self, x):
        return self.model(x.flip(-1))

def mirrored(setting):
    model = Mirrored(setting.subject.model).eval()
    return Variant("mirrored", model=model, stored=StoredWeights.of(model), uncounted="mirrors")

constant = Variant("nothing new")

def broken(setting):
    raise ValueError("no luck")

def wrong(setting):
    return 3

class Needs(MemoryMitigation):
    def __init__(self, argument):
        pass

number = 3
"""


@pytest.fixture(scope="module")
def subject() -> faultsim.Subject:
    return faultsim.load_subject(images=60)


@pytest.fixture
def own(tmp_path, monkeypatch) -> str:
    """A module of the user's."""
    name = f"own_entries_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def classifier(folder: Path, classes: int = 10) -> Path:
    torch.manual_seed(1)
    path = folder / f"convxs{classes}.classifier.safetensors"
    network = Classifier(generators.create("ConvXS"), classes)
    save_weights(path, network, {"classifier": "ConvXS", "num_classes": classes})
    return path


@pytest.mark.filterwarnings("ignore:without bit errors")  # the classifier is not trained
def test_models_and_inputs_are_compared_like_memories(subject, tmp_path):
    small = classifier(tmp_path)
    generator = GENERATORS["DigitsNet"].weights
    torch.manual_seed(0)
    save_weights(tmp_path / "new.safetensors", faultsim.models.create("DigitsNet"), {"model": "DigitsNet"})
    entries = [
        "twin=base:" + str(bundled.MODELS["DigitsNet"]),
        replace_base(tmp_path / "new.safetensors", "untrained"),
        put_in_front(generator),
        classify_alone(small),
    ]
    result = compare(subject, entries, 3, voltages=[0.83])
    plain, twin, untrained, behind, alone = result
    # the same weights lie in the same cells
    assert twin.evaluation == plain.evaluation
    assert twin.energy_per_inference == plain.energy_per_inference
    new = faultsim.load_subject(weights=tmp_path / "new.safetensors", dataset="digits", images=60)
    chips = faultsim.evaluation_chips(0, 3)
    assert untrained.evaluation == faultsim.evaluate(
        new.model, new.data, chips, voltage=0.83, stored=new.stored
    )
    fuse = neuralfuse.load(generator)
    assert behind.evaluation == faultsim.evaluate(
        subject.model, subject.data, chips, voltage=0.83, stored=subject.stored, transform=fuse
    )
    # at Vmin: no chip matters, and its energy is its accesses
    assert len(set(alone.evaluation.correct)) == 1
    assert alone.variant == "classifier ConvXS"
    assert 0 < alone.energy_per_inference < 0.1 * subject.accesses
    assert alone.energy_per_inference == int(alone.energy_per_inference)


def test_own_entries_by_name(subject, own):
    labels = [f"{own}:{name}" for name in ("Halved", "mirrored", "constant")]
    rows = {
        row.variant: row for row in compare(subject, [*labels, f"again={own}:instance"], 2, voltages=[0.9])
    }
    assert list(rows) == ["unprotected", "halved", "mirrored", "nothing new", "again"]
    assert rows["nothing new"].evaluation == rows["unprotected"].evaluation
    assert rows["again"].evaluation == rows["halved"].evaluation
    assert rows["halved"].energy_per_inference == 2 * rows["unprotected"].energy_per_inference
    assert rows["mirrored"].uncounted == "mirrors"
    assert rows["mirrored"].evaluation.mean < rows["unprotected"].evaluation.mean  # digits are not symmetric


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken", "the entry broken fails: .*no luck"),
        ("wrong", "the entry wrong returns a int, not a faultsim.Variant"),
        ("number", "is of type int; give a MemoryMitigation, a Variant, or a function"),
        ("missing", "has no 'missing'"),
        ("Needs", r"Needs\(\) failed \(TypeError"),
    ],
)
def test_own_entries_that_fail_are_one_line(subject, own, name, message):
    with pytest.raises(FaultsimError, match=message) as found:
        compare(subject, [f"{own}:{name}"], 1, voltages=[0.9])
    assert "\n" not in str(found.value)


def test_files_that_do_not_fit_are_refused(subject, tmp_path):
    for entry, message in (
        (put_in_front(bundled.MODELS["DigitsNet"]), "holds no generator"),
        (classify_alone(bundled.MODELS["DigitsNet"]), "holds no classifier of a generator's size"),
        (classify_alone(classifier(tmp_path, 7)), r"needs logits \[2, 10\]"),
        (replace_base(GENERATORS["DigitsNet"].weights), "doesn't fit the model"),
    ):
        with pytest.raises(FaultsimError, match=message):
            compare(subject, [entry], 1, voltages=[0.9])


def test_variants_are_told_apart():
    """By color, or within a family by marker; few of them by both."""
    assert choose_styles(["a", "b"]) == [(0, 0), (1, 1)]
    families = ("unprotected", "secded:a", "secded:b", "secded:c", "parity:a", "parity:b", "with A", "with B")
    styles = choose_styles([*families, *map(str, range(8))])
    assert len(set(styles)) == len(styles)
    assert len({style.color for style in styles[1:4]}) == 1
    assert all(style.color < len(COLORS) and style.marker < len(MARKERS) for style in styles)
    assert choose_styles(families)[:4] == choose_styles(families[:7])[:4]
    many = choose_styles([*families, *(f"own{number}" for number in range(30))])
    assert len(set(many)) == len(many)


def test_command_with_costs_and_files(tmp_path, capsys):
    common = ["compare", "--voltages", "0.83", "--chips", "2", "--images", "40", "--json"]
    generator = GENERATORS["DigitsNet"].weights
    entries = f"secded:zero,robust-bits:2,trained=neuralfuse:{generator}"
    with pytest.raises(SystemExit) as end:
        main([*common, "--mitigations", entries, "--overhead", "secded=10%,robust-bits=0.5"])
    assert end.value.code in (0, None)
    rows = {row["variant"]: row for row in json.loads(capsys.readouterr().out)["summary"]}
    assert list(rows) == ["unprotected", "secded:zero", "robust-bits:2", "trained"]
    plain = rows["unprotected"]["energy_per_inference"]
    assert rows["secded:zero"]["energy_per_inference"] == pytest.approx(1.225 * plain)
    assert rows["robust-bits:2"]["energy_per_inference"] == pytest.approx(1.125 * plain)
    assert "uncounted" not in rows["secded:zero"]
    for overhead, message in (
        ("secded", "--overhead 'secded': write NAME=FRACTION"),
        ("parity=0.1", "overhead of 'parity': no such mitigation is compared"),
    ):
        with pytest.raises(SystemExit) as end:
            main([*common, "--mitigations", "secded:zero", "--overhead", overhead])
        assert end.value.code == 2
        assert message in capsys.readouterr().err
