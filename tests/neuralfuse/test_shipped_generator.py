"""The generator that ships: is it the one that its training makes, and does it win accuracy back?"""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from energy.saving import compute_saving, count_weight_accesses
from energy.trace import POLICIES
from faultsim import FaultModel, VoltageCurve, evaluate, evaluation_chips, load_weights, models
from faultsim import bundled as base
from faultsim.checkpoint import read_file
from faultsim.data import iterate_batches, load
from faultsim.support.intervals import half_width
from neuralfuse import bundled, generators
from neuralfuse.bundled import train
from neuralfuse.protection import evaluate_protected
from neuralfuse.stage_files import CLASSIFIER_ENDING, read_classifier

RATE = 0.03


@pytest.fixture(scope="module")
def generator() -> torch.nn.Module:
    network = generators.create(bundled.GENERATOR)
    load_weights(network, bundled.WEIGHTS)
    return network


def test_it_wins_accuracy_back_on_the_same_chips(generator):
    model = models.create(base.MODEL)
    stored, _ = load_weights(model, base.WEIGHTS)
    found = evaluate_protected(
        model,
        list(iterate_batches(load(base.DATASET, "test"), 512)),
        evaluation_chips(seed=11, count=12),
        bit_error_rate=RATE,
        faults=FaultModel(),
        stored=stored,
        generator=generators.NeuralFuse(generator),
    )
    assert found.clean_fused.mean > found.clean.mean - 0.01
    assert found.improvement.interval[0] > 0


def test_it_says_how_it_was_trained_and_for_which_model():
    _, metadata = read_file(bundled.WEIGHTS)
    assert metadata["generator"] == bundled.GENERATOR == "ConvXS"
    recorded, today = metadata["training"], json.loads(json.dumps(train.TRAININGS["DigitsNet"].describe()))
    assert {name: today[name] for name in recorded} == recorded
    assert metadata["base"] == {"model": base.MODEL, "trained": read_file(base.WEIGHTS)[1]}
    assert metadata["dataset_fingerprint"] == load(base.DATASET, "train").fingerprint
    assert {"commit", "device", "date", "versions"} <= metadata.keys()
    assert bundled.WEIGHTS.stat().st_size + base.WEIGHTS.stat().st_size < 1_000_000


def test_the_two_save_energy_together(generator):
    accesses = count_weight_accesses(models.create(base.MODEL), (3, 32, 32))
    # two 3x3 convolutions on 8x8 pixels: K F ceil(P / 32) / 8 accesses (see test_sweep_energy.py)
    by_hand = (27 * 16 * 2 + 144 * 3 * 2) / 8
    before = count_weight_accesses(generator, (3, 32, 32), policy=POLICIES["paper-generator"])
    assert before == by_hand
    curve = VoltageCurve.default()
    together = compute_saving(accesses, curve, curve.voltage(RATE), before)
    assert together > compute_saving(accesses, curve, 0.83)  # less energy than the model alone at 1 %


def test_training_makes_such_a_file(tmp_path, monkeypatch, capsys):
    short = replace(train.TRAININGS["DigitsNet"], n_models=1, max_epochs=1, batch_size=512)
    monkeypatch.setitem(train.TRAININGS, "DigitsNet", short)
    made = [tmp_path / name for name in ("one.safetensors", "two.safetensors")]
    for path in made:
        train.main("DigitsNet", path)
    first, second = (read_file(path) for path in made)
    assert first[0].keys() == read_file(bundled.WEIGHTS)[0].keys()
    assert all(torch.equal(first[0][name], second[0][name]) for name in first[0])
    assert first[1]["epochs"] == 1
    assert "written to" in capsys.readouterr().out


@pytest.mark.parametrize("name", bundled.GENERATORS)
def test_classifiers_of_the_generators_sizes_are_what_their_files_say(name):
    """They have the generator's encoder, read less than the base model, and are as good as they were."""
    path = bundled.GENERATORS[name].weights.with_suffix(CLASSIFIER_ENDING)
    saved = read_classifier(path)
    ((images, labels),) = iterate_batches(load("digits", "test"), 512)
    assert saved.name == bundled.GENERATORS[name].name
    assert generators.have_same_encoder(saved.name, bundled.GENERATORS[name].name)
    assert saved.metadata["accesses"] == count_weight_accesses(saved.network, (3, 32, 32))
    assert saved.metadata["dataset_fingerprint"] == load("digits", "train").fingerprint
    with torch.inference_mode():
        right = (saved.network(images).argmax(1) == labels).float().mean()
    assert right == pytest.approx(saved.metadata["accuracy"], abs=0.02)


# -- DigitsVGG, beside which its generator costs little --


PAIR = "DigitsVGG"


@pytest.fixture(scope="module")
def pair():
    """(base model, its weights as stored, generator)."""
    model = models.create(PAIR)
    stored, _ = load_weights(model, base.MODELS[PAIR])
    network = generators.create("ConvQS")
    load_weights(network, bundled.GENERATORS[PAIR].weights)
    return model, stored, network


def test_the_pair_says_how_it_was_trained():
    _, metadata = read_file(bundled.GENERATORS[PAIR].weights)
    assert metadata["generator"] == bundled.GENERATORS[PAIR].name == "ConvQS"
    assert metadata["training"] == json.loads(json.dumps(train.TRAININGS[PAIR].describe()))
    assert metadata["base"]["trained"] == read_file(base.MODELS[PAIR])[1]
    assert metadata["dataset_fingerprint"] == load("digits", "train").fingerprint
    files = [*base.MODELS.values(), *(made.weights for made in bundled.GENERATORS.values())]
    assert sum(path.stat().st_size for path in files) < 1_000_000


def test_the_pair_wins_accuracy_back_and_keeps_the_clean_one(pair):
    model, stored, network = pair
    cost = count_weight_accesses(network, (3, 32, 32), policy=POLICIES["paper-generator"])
    assert cost < 0.007 * count_weight_accesses(model, (3, 32, 32))
    found = evaluate_protected(
        model,
        list(iterate_batches(load(base.DATASET, "test").subset(torch.arange(120)), 120)),
        evaluation_chips(seed=12, count=8),
        bit_error_rate=RATE,
        faults=FaultModel(),
        stored=stored,
        generator=generators.NeuralFuse(network),
    )
    assert found.clean_fused.mean > found.clean.mean - 0.01
    assert found.improvement.interval[0] > 0


def test_the_pair_wins_at_equal_energy(pair):
    """Against the model alone at the voltage at which it takes as much energy as both, on the same unseen chips."""
    model, stored, network = pair
    curve, voltage = VoltageCurve.default(), 0.815
    cost = count_weight_accesses(network, (3, 32, 32), policy=POLICIES["paper-generator"])
    share = cost / count_weight_accesses(model, (3, 32, 32))
    raised = find_voltage(curve, curve.energy_per_access(voltage) + share)
    assert voltage < raised < 0.83
    data = list(iterate_batches(load(base.DATASET, "test").subset(torch.arange(120)), 120))
    chips = evaluation_chips(seed=13, count=16)
    fuse = generators.NeuralFuse(network).eval()
    alone = evaluate(model, data, chips, voltage=raised, curve=curve, stored=stored)
    behind = evaluate(model, data, chips, voltage=voltage, curve=curve, stored=stored, transform=fuse)
    won = np.subtract(behind.values, alone.values)
    assert won.mean() - half_width(float(won.std(ddof=1)), len(won)) > 0


def find_voltage(curve: VoltageCurve, energy: float) -> float:
    """The voltage at which an access takes this energy, relative to Vmin."""
    voltages = np.linspace(0.78, 1, 2201)
    return float(np.interp(energy, [curve.energy_per_access(voltage) for voltage in voltages], voltages))
