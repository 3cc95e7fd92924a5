"""The trained weights that lie beside the results are those the results were measured with."""

import json
from pathlib import Path

import pytest

from energy.saving import count_weight_accesses
from faultsim import models
from faultsim.checkpoint import compute_fingerprint, load_weights, read_file
from neuralfuse.files import read_generator
from neuralfuse.paper.result import read_results
from neuralfuse.stage_files import read_classifier

FOLDER = Path(__file__).parents[2] / "results"
KEPT = sorted((FOLDER / "models").glob("*.safetensors"))
RESULTS = read_results()


def test_they_are_few_and_small():
    assert KEPT
    assert sum(file.stat().st_size for file in KEPT) < 15e6


@pytest.mark.parametrize("file", KEPT, ids=lambda file: file.stem)
def test_a_result_was_measured_with_them(file):
    trained = read_file(file)[1]
    if "generator" in trained:
        weights = read_generator(file).fingerprint
        used = [result.configuration["generator"]["weights"] for result in RESULTS if result.cell.generator]
    elif "classifier" in trained:
        network = read_classifier(file).network
        weights = {"accesses": count_weight_accesses(network, (3, 32, 32)), "accuracy": trained["accuracy"]}
        described = [result.configuration["generator"] for result in RESULTS if result.cell.generator]
        used = [found["classifier"] for found in described if "classifier" in found]
    else:
        network = models.create(trained["model"], trained["num_classes"])
        stored, _ = load_weights(network, file)
        weights = compute_fingerprint(network, stored)
        used = [result.configuration["base"]["weights"] for result in RESULTS]
        robust = (FOLDER / "robust").glob("evaluate-*.json")
        used += [json.loads(path.read_text())["configuration"]["weights"] for path in robust]
    assert weights in used
