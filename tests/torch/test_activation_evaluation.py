"""Evaluations with faults in weights, activations or both: each chip's count is that of a loop by hand."""

from contextlib import ExitStack

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from faultsim import (
    SRAM,
    ActivationMemory,
    Chip,
    FaultKind,
    FaultMap,
    FaultModel,
    FaultsimError,
    MeasuredChip,
    Placement,
    VoltageCurve,
    calibrate,
    evaluate,
    perturbed,
    perturbed_activations,
)
from faultsim.studies.voltage_sweep import sweep

RATE = 0.02
CHIPS = (3, 4, 2**40)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10))
    return net.eval()


@pytest.fixture(scope="module")
def data(model: nn.Module) -> list[tuple[Tensor, Tensor]]:
    images = torch.randn(50, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        labels = model(images).argmax(1)  # without faults every answer is right
    return list(zip(images.split(20), labels.split(20), strict=True))


def count(model: nn.Module, data: list, chip: int, sites: str, memory: ActivationMemory, access=None) -> int:
    """Right answers of a chip, by the context managers."""
    right = 0
    for number, (images, labels) in enumerate(data):
        with ExitStack() as stack, torch.inference_mode():
            rate = 0.0 if sites == "activations" else RATE
            where = {"faults": FaultModel(memory.faults.kind), "access": number if access else 0}
            stack.enter_context(perturbed(model, chip, bit_error_rate=rate, **where))
            rate = 0.0 if sites == "weights" else RATE
            own = {"access": where["access"], "bit_error_rate": None if memory.voltage else rate}
            stack.enter_context(perturbed_activations(model, chip, memory, **own))
            right += int((model(images).argmax(1) == labels).sum())
    return right


@pytest.mark.parametrize("kind", ["flip", "stuck_at_random", "transient"])
@pytest.mark.parametrize("sites", ["weights", "activations", "both"])
def test_each_chip_counts_what_a_loop_counts(model, data, sites: str, kind: str) -> None:
    faults = FaultModel(FaultKind(kind), SRAM(Placement.TILED_PER_LAYER, 4096))
    memory = ActivationMemory(calibrate(model, data), "int6", faults)
    weights = FaultModel(FaultKind(kind))
    found = evaluate(model, data, CHIPS, bit_error_rate=RATE, faults=weights, sites=sites, activations=memory)
    expected = [count(model, data, chip, sites, memory, access=kind == "transient") for chip in CHIPS]
    assert list(found.correct) == expected
    assert max(expected) < 50 or kind != "flip"
    assert len(set(expected)) > 1 or kind != "flip"
    alone = evaluate(
        model, data, CHIPS[2:], bit_error_rate=RATE, faults=weights, sites=sites, activations=memory
    )
    assert alone.correct == found.correct[2:]
    assert [type(layer) for layer in model] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Flatten, nn.Linear]


def test_the_memory_of_activations_has_its_own_voltage(model, data) -> None:
    ranges = calibrate(model, data)
    at_vmin = ActivationMemory(ranges, voltage=1.0)
    without = evaluate(model, data, CHIPS, bit_error_rate=0.1, sites="activations", activations=at_vmin)
    assert without.correct == (50, 50, 50)
    low = ActivationMemory(ranges, voltage=0.8)
    found = [
        evaluate(model, data, CHIPS, **at, sites="activations", activations=low)
        for at in ({"bit_error_rate": 0.0}, {"voltage": 0.9}, {"voltage": 0.8})
    ]
    assert found[0] == found[1] == found[2]
    same = evaluate(
        model, data, CHIPS, voltage=0.8, sites="activations", activations=ActivationMemory(ranges)
    )
    assert found[0] == same
    assert min(same.correct) < 50


def test_one_group_after_the_other_is_as_all_at_once(model, data) -> None:
    memory = ActivationMemory(calibrate(model, data))
    where = {"bit_error_rate": RATE, "sites": "both", "activations": memory}
    seen = []
    apart = evaluate(model, data, range(6), **where, report=seen.append)
    assert len(seen) > 1
    assert apart == evaluate(model, data, range(6), **where)
    assert seen[0].correct == apart.correct[: seen[0].chips]


def test_measured_chips_have_the_map_of_one_memory(model, data) -> None:
    ranges = calibrate(model, data)
    wide = {
        "row": 0,
        "column": 7,
        "stuck_at": 1,
        "voltage": 0.9,
    }  # the sign of the first number of each layer
    columns = {name: np.array([value]) for name, value in wide.items()}
    chip = MeasuredChip(FaultMap(array=np.array([0]), arrays=64, lowest_voltage=0.8, **columns))
    memory = ActivationMemory(ranges)
    found = evaluate(model, data, [chip], voltage=0.85, sites="activations", activations=memory)
    reading = perturbed_activations(model, chip, memory, voltage=0.85)
    with torch.inference_mode(), perturbed(model, 0, bit_error_rate=0.0), reading:
        right = sum(int((model(images).argmax(1) == labels).sum()) for images, labels in data)
    assert found.correct == (right,)
    with pytest.raises(FaultsimError, match="fault map of one memory"):
        evaluate(model, data, [chip], voltage=0.85, sites="both", activations=memory)


def test_sweeps_say_which_cells_fail(model, data) -> None:
    memory = ActivationMemory(calibrate(model, data), "int8")
    result = sweep(
        model, data, [Chip(1)], voltages=[0.8, 1.0], sites="activations", activations=memory, accesses=None
    )
    assert [row["fault_sites"] for row in result.rows()] == ["activations", "activations"]
    assert "activations fail (inputs of 2 layers as int8" in str(result.conditions)
    direct = evaluate(model, data, [1], voltage=0.8, sites="activations", activations=memory)
    assert result[1].evaluation == direct
    assert result[0].evaluation.correct == (50,)


@pytest.mark.parametrize(
    ("sites", "own"), [("weights", None), ("activations", 0.9), ("both", None), ("both", 0.9)]
)
def test_the_energy_is_that_of_the_memories_that_fail(model, data, sites: str, own: float | None) -> None:
    """By hand, on 32x32 elements: 36 pixels are two passes over 8 x 9 weights; a window is 9 inputs, 8 filters are one
    pass. The linear layer reads each of 288 x 10 weights and 288 inputs once. An access has 8 weights, or 9 inputs of 7
    bits."""
    weights = -(-(2 * 72 + 2880) // 8)
    inputs = -(-(36 * 9 + 288) // 9)
    memory = ActivationMemory(calibrate(model, data), "int7", voltage=own)
    [row] = sweep(model, data, [Chip(1)], voltages=[0.83], sites=sites, activations=memory)
    low, high = 0.694, VoltageCurve.default().energy_per_access(0.9)
    spent = weights * (1 if sites == "activations" else low)
    total = weights
    if sites != "weights":
        spent, total = spent + inputs * (low if own is None else high), total + inputs
    assert row.energy_per_inference == pytest.approx(spent)
    assert row.energy_saving == pytest.approx(1 - spent / total)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"sites": "activations"}, "give activations="),
        ({"sites": "cells"}, "unknown fault sites 'cells'"),
    ],
)
def test_what_is_missing_is_said_in_one_line(model, data, given, words: str) -> None:
    with pytest.raises(FaultsimError, match=words):
        evaluate(model, data, [1], bit_error_rate=0.1, **given)
