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
from faultsim.studies.cascade import ask_first
from faultsim.studies.comparison import compare
from faultsim.studies.entries import replace_base
from faultsim.studies.entry_labels import parse_entry
from neuralfuse import generators
from neuralfuse.bundled import GENERATORS
from neuralfuse.classifier import Classifier
from neuralfuse.entries import classify_alone, classify_first, list_kinds, look_up, put_in_front
from neuralfuse.patterns import save_patterns
from neuralfuse.stage_files import read_classifier

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


SHIPPED = GENERATORS["DigitsNet"].weights.with_suffix(".classifier.safetensors")


def test_a_cascade_asks_the_model_where_the_classifier_doubts(subject):
    """Its answers are put together by hand from those of both networks, and so is its energy."""
    little = read_classifier(SHIPPED)
    result = compare(subject, [classify_alone(SHIPPED), classify_first(SHIPPED)], 3, voltages=[0.8])
    plain, alone, cascade = result
    assert cascade.variant == "cascade ConvXS@0.7"
    images, labels = (torch.cat(parts) for parts in zip(*subject.data, strict=True))
    with torch.inference_mode():
        confidence, first = little.network(images).softmax(1).max(1)
        doubtful = confidence < 0.7
        assert 5 < doubtful.sum() < 55
        for chip, correct in zip(faultsim.evaluation_chips(0, 3), cascade.evaluation.correct, strict=True):
            with faultsim.perturbed(subject.model, chip, voltage=0.8, stored=subject.stored):
                answers = torch.where(doubtful, subject.model(images).argmax(1), first)
            assert correct == int((answers == labels).sum())
    assert cascade.evaluation.mean > plain.evaluation.mean + 0.05
    share = int(doubtful.sum()) / len(labels)
    expected = alone.energy_per_inference + share * plain.energy_per_inference
    assert cascade.energy_per_inference == pytest.approx(expected)


def test_patterns_are_looked_up_by_the_class_that_is_recognized(subject, tmp_path):
    """And nothing is added where the classifier is less sure."""
    torch.manual_seed(0)
    table = torch.rand(10, 3, 32, 32) * 2 - 1
    save_patterns(tmp_path / "p.safetensors", table, {})
    entries = [look_up(SHIPPED, tmp_path / "p.safetensors", confidence) for confidence in (0.0, 0.9)]
    plain, always, sometimes = compare(subject, entries, 2, voltages=[0.83])
    assert (always.variant, sometimes.variant) == ("lookup ConvXS", "lookup ConvXS@0.9")
    little = read_classifier(SHIPPED).network

    def fuse(confidence):
        def transform(x):
            sure, found = little(x).softmax(1).max(1)
            added = torch.clamp(x + torch.round(127 * table[found]) / 127, -1, 1)
            return torch.where((sure >= confidence)[:, None, None, None], added, x)

        return transform

    chips = faultsim.evaluation_chips(0, 2)
    for row, confidence in ((always, 0.0), (sometimes, 0.9)):
        images = [(fuse(confidence)(x), y) for x, y in subject.data]
        expected = faultsim.evaluate(subject.model, images, chips, voltage=0.83, stored=subject.stored)
        assert row.evaluation == expected
    # the classifier's accesses and 3,072 bytes in words of 8
    added = always.energy_per_inference - plain.energy_per_inference
    assert added == pytest.approx(faultsim.energy.count_weight_accesses(little, (3, 32, 32)) + 384)


def test_cascades_and_lookups_by_label(subject, tmp_path):
    generator = tmp_path / "g.safetensors"
    generator.with_suffix(".classifier.safetensors").write_bytes(SHIPPED.read_bytes())
    save_patterns(tmp_path / "g.patterns.safetensors", torch.zeros(10, 3, 32, 32), {})
    other = bundled.MODELS["DigitsVGG"]
    labels = [
        "cascade",
        "cascade:0.5",
        f"cascade:{SHIPPED}@0.6",
        f"cascade:{other}@0.8",
        "lookup",
        "lookup:0.5",
        f"lookup:{generator}@1",
    ]
    kinds = list_kinds(generator)
    rows = compare(subject, [parse_entry(label, kinds) for label in labels], 1, voltages=[0.83])
    given = parse_entry(f"cascade:{other}@0.8")  # needs no generator
    assert compare(subject, [given], 1, voltages=[0.83])[1].evaluation == rows[4].evaluation
    assert [row.variant for row in rows][1:] == [
        "cascade ConvXS@0.7",
        "cascade ConvXS@0.5",
        "cascade ConvXS@0.6",
        "cascade DigitsVGG@0.8",
        "lookup ConvXS",
        "lookup ConvXS@0.5",
        "lookup ConvXS@1",
    ]


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
    patterns = tmp_path / "p.safetensors"
    save_patterns(patterns, torch.zeros(10, 3, 32, 32), {})
    few = tmp_path / "few.safetensors"
    save_patterns(few, torch.zeros(3, 3, 32, 32), {})
    for entry, message in (
        (put_in_front(bundled.MODELS["DigitsNet"]), "holds no generator"),
        (classify_alone(bundled.MODELS["DigitsNet"]), "holds no classifier of a generator's size"),
        (classify_alone(classifier(tmp_path, 7)), r"needs logits \[2, 10\]"),
        (ask_first(SHIPPED), "names no model of faultsim's"),
        (classify_first(SHIPPED, 0.0), "confidence 0.0: it is a probability above 0"),
        (look_up(SHIPPED, patterns, 1.5), "confidence 1.5: it is a probability, 0 to 1"),
        (look_up(SHIPPED, few), "has 3 patterns; .* knows 10 classes"),
        (look_up(SHIPPED, SHIPPED), "holds no class patterns"),
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
