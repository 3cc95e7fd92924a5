"""Training that makes a model robust: clipped weights, random bit errors, the errors of one chip."""

import copy
import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from faultsim import (
    Chip,
    FaultKind,
    FaultModel,
    FaultsimError,
    MeasuredChip,
    StoredWeights,
    evaluate,
    evaluation_chips,
    map_chip,
    perturbed,
    train_classifier,
)
from faultsim import data as datasets
from faultsim.data import Dataset, iterate_batches
from faultsim.faults import TRAINING
from faultsim.quantization import prepare_qat
from faultsim.training.bit_errors import Losses, OneChip, RandomBitErrors, Task
from faultsim.training.classifier import Recipe
from faultsim.training.clipping import Clipping, clip_weights
from faultsim.training.loop import OutOfTime, Pace

SHORT = Recipe("short", epochs=2, batch_size=32, learning_rate=0.05, schedule="linear")
FORMAT = "uint8-asymmetric"


def block(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]


def network() -> nn.Sequential:
    """Four convolutions on digits of 8 by 8 pixels: 25 thousand weights."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.AvgPool2d(4),
        *block(3, 16),
        *block(16, 32),
        nn.MaxPool2d(2),
        *block(32, 32),
        nn.MaxPool2d(2),
        *block(32, 32),
        nn.Flatten(),
        nn.Linear(128, 10),
    )


@cache
def digits(split: str, count: int | None = None) -> Dataset:
    found = datasets.load("digits", split)
    return found if count is None else found.subset(torch.arange(count))


def held_out() -> list:
    return list(iterate_batches(digits("test"), 359, device=torch.device("cpu")))


def linear(images: int = 8) -> tuple[nn.Module, Tensor, Tensor]:
    """A model of one layer, images, and labels that it mostly knows."""
    torch.manual_seed(0)
    model = prepare_qat(nn.Sequential(nn.Flatten(), nn.Linear(48, 10)))
    x = torch.randn(images, 3, 4, 4)
    with torch.no_grad():
        model[1].parametrizations.weight.original.mul_(4)
        return model, x, model(x).argmax(1)


def task_of(model: nn.Module, seed: int = 0) -> Task:
    def measure(images: Tensor, labels: Tensor) -> Losses:
        logits = model(images)
        return Losses(functional.cross_entropy(logits, labels), (logits.argmax(1) == labels).float().mean())

    return Task(model, measure, classes=10, seed=seed)


# -- clipping ---------------------------------------------------------------------------------------------------------


def test_bounds_are_those_by_hand_and_hold_for_what_lies_in_the_memory_only():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([1.0, -1.0, 3.0, -3.0] * 4).reshape(4, 4))  # deviation sqrt(5)
        model[1].weight.copy_(torch.tensor([2.0, -2.0] * 4).reshape(2, 4))
        model[0].bias.fill_(9)
    relative, same = Clipping(deviations=1.0).find_bounds(model), Clipping(1.5).find_bounds(model)
    assert [bound for _, bound in relative] == pytest.approx([math.sqrt(5), 2])
    assert [bound for _, bound in same] == [1.5, 1.5]
    clip_weights(relative)
    assert float(model[0].weight.detach().abs().max()) == pytest.approx(math.sqrt(5))
    clip_weights(same)
    assert model[0].weight[0].tolist() == [1, -1, 1.5, -1.5]
    assert model[0].bias.tolist() == [9] * 4


@pytest.mark.parametrize("clipping", [Clipping(0.07), Clipping(deviations=1.2)])
def test_a_trained_model_is_within_the_bounds_and_at_them(clipping):
    model = network()
    bounds = [np.float32(bound) for _, bound in clipping.find_bounds(model)]
    train_classifier(model, digits("train", 256), SHORT, seed=0, clipping=clipping)
    weights = [layer.held.sources[0].detach().numpy() for layer in StoredWeights.of(model).layers]
    largest = [np.abs(weight).max() for weight in weights]
    assert all(most <= bound for most, bound in zip(largest, bounds, strict=True))
    assert any(most == bound for most, bound in zip(largest, bounds, strict=True))


# -- random bit errors ------------------------------------------------------------------------------------------------


def test_the_gradient_is_the_mean_of_the_clean_and_of_the_cut_perturbed_one():
    model, images, labels = linear()
    step, seed = 3, 5
    found = RandomBitErrors(0.05).backward(task_of(model, seed), images, labels, step)
    got = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    functional.cross_entropy(model(images), labels).backward()
    clean = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    with perturbed(model, Chip(TRAINING + (seed << 32) + step), bit_error_rate=0.05, straight_through=True):
        lost = functional.cross_entropy(model(images), labels)
        lost.backward()
    assert float(lost.detach()) == pytest.approx(float(found.perturbed))
    assert any(bool((parameter.grad.abs() > 0.05).any()) for parameter in model.parameters())
    for mine, one, parameter in zip(got, clean, model.parameters(), strict=True):
        torch.testing.assert_close(mine, (one + parameter.grad.clamp(-0.05, 0.05)) / 2)


def test_steps_that_are_near_guessing_have_no_errors():
    model, images, labels = linear()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1e-3)
    guessing = RandomBitErrors(0.05).backward(task_of(model), images, labels, 0)
    assert float(guessing.loss.detach()) == pytest.approx(math.log(10), rel=0.01)
    assert guessing.perturbed is None
    assert model[1].bias.grad is not None


def test_a_divided_batch_passes_once():
    model, images, labels = linear(7)
    seen = []
    model.register_forward_hook(lambda module, given, out: seen.append(given[0].clone()))
    found = RandomBitErrors(0.0, divided=True).backward(task_of(model), images, labels, 0)
    assert [len(part) for part in seen] == [4, 3]
    assert torch.equal(torch.cat(seen), images)
    assert found.perturbed is not None


def test_running_statistics_are_those_of_clean_passes_and_used_with_errors():
    torch.manual_seed(0)
    model = prepare_qat(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 4)))
    images = torch.randn(8, 3, 4, 4)
    labels = model(images).argmax(1)
    model.train()
    with torch.no_grad():
        model[3].parametrizations.weight.original.mul_(4)
    clean = copy.deepcopy(model)
    clean(images)
    errors = RandomBitErrors(0.2, running_statistics=True)
    found = errors.backward(replace(task_of(model), classes=100), images, labels, 0)
    assert torch.equal(model[1].running_mean, clean[1].running_mean)
    assert model[1].training
    with perturbed(clean.eval(), Chip(TRAINING), bit_error_rate=0.2), torch.no_grad():
        expected = functional.cross_entropy(clean(images), labels)
    assert float(found.perturbed) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(
    ("errors", "format"), [(RandomBitErrors(0.02), "int4"), (RandomBitErrors(0.02, divided=True), FORMAT)]
)
def test_a_training_that_is_stopped_goes_on_to_the_same_bits(errors, format, tmp_path):
    data = digits("train", 96)

    def run(state=None, pace=None) -> tuple[list, list[Tensor]]:
        model = network()
        options = {"format": format, "clipping": Clipping(deviations=1.5), "errors": errors}
        epochs = train_classifier(model, data, SHORT, seed=1, state=state, pace=pace, **options)
        return epochs, list(model.state_dict().values())

    (curve, whole), state, stops = run(), tmp_path / "state.safetensors", 0
    while True:
        try:
            again, parts = run(state, Pace(deadline=0.0))
            break
        except OutOfTime:
            stops += 1
    assert stops == 5, "every step but the last"
    assert again == curve
    assert all(torch.equal(one, other) for one, other in zip(whole, parts, strict=True))
    with pytest.raises(FaultsimError, match="other options"):
        train_classifier(network(), data, SHORT, seed=1, state=state, format=format)


def store_in_one_range(model: nn.Module) -> StoredWeights:
    """Store a model as the source's "normal" quantization does: one range for all tensors, rounded towards zero."""
    stored = StoredWeights.of(model)
    weights = [layer.held.value() for layer in stored.layers]
    step = max(float(weight.abs().max()) for weight in weights) / 127
    return stored.with_layers(
        replace(layer, values=(weight / step).trunc().to(torch.int8), scale=torch.tensor(step))
        for layer, weight in zip(stored.layers, weights, strict=True)
    )


def test_the_published_order_of_errors_holds_on_digits():
    """Normal > robust quantization > clipping > random bit error training (Stutz et al.).

    At 5 % the seeds 0 to 3 on one thread, and seed 0 without AVX-512, gave 87 to 89, 44 to 57, 6 to 23 and 3 to 4 %
    of test images wrong.
    """
    recipe = Recipe("digits", epochs=6, batch_size=64, learning_rate=0.1, schedule="linear")
    clipped = {"clipping": Clipping(deviations=1.5)}
    wrong: dict[str, list[float]] = {}
    for name, options in {
        "robust quantization": {},
        "clipping": clipped,
        "random bit errors": {**clipped, "errors": RandomBitErrors(0.05)},
    }.items():
        model = network()
        train_classifier(model, digits("train"), recipe, seed=0, format=FORMAT, **options)
        memories = {name: StoredWeights.of(model, format=FORMAT)}
        if not options:
            memories["normal"] = store_in_one_range(model)
        for label, stored in memories.items():
            chips, data = evaluation_chips(0, 5), held_out()
            accuracies = [
                evaluate(model, data, chips, bit_error_rate=rate, stored=stored).mean
                for rate in (0.0, 0.05, 0.08)
            ]
            wrong[label] = [1 - accuracy for accuracy in accuracies]
    order = ("normal", "robust quantization", "clipping", "random bit errors")
    clean, high, higher = zip(*(wrong[name] for name in order), strict=True)
    print("ORDER", wrong)
    assert max(clean) < 0.06
    assert high[0] > high[1] + 0.10
    assert high[1] > high[2] + 0.05
    assert higher[2] > higher[3] + 0.03
    assert high[3] < 0.15


# -- one chip ---------------------------------------------------------------------------------------------------------


def test_training_for_one_measured_chip_helps_there_and_only_there():
    """MATIC: 12 % of the cells of two chips are stuck. The model is trained for the first one."""
    stuck, voltage = FaultModel(FaultKind.STUCK_AT_RANDOM), 0.785
    chips = [MeasuredChip(map_chip(Chip(seed), [voltage], arrays=16, faults=stuck)) for seed in (1, 2)]
    recipe = Recipe("digits", epochs=4, batch_size=64, learning_rate=0.1, schedule="linear")
    model = network()
    train_classifier(model, digits("train"), recipe, seed=0)

    def measure() -> list[float]:
        stored = StoredWeights.of(model)
        return [evaluate(model, held_out(), [chip], voltage=voltage, stored=stored).mean for chip in chips]

    before = measure()
    fine = replace(recipe, epochs=3, learning_rate=0.02)
    train_classifier(model, digits("train"), fine, seed=0, errors=OneChip(chips[0], voltage))
    after = measure()
    print("MATIC", before, after)
    assert after[0] > before[0] + 0.15
    assert after[0] > after[1] + 0.15


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (Clipping, "either its size or its deviations"),
        (lambda: Clipping(0.1, 1.5), "either its size or its deviations"),
        (lambda: Clipping(-0.1), "the bound must be above 0"),
        (lambda: RandomBitErrors(1.5), "rate"),
        (lambda: OneChip(Chip(1)), "give either a voltage or a bit error rate"),
        (
            lambda: OneChip(Chip(1), bit_error_rate=0.1, faults=FaultModel(FaultKind.TRANSIENT)),
            "transient faults are new at every read",
        ),
        (
            lambda: train_classifier(
                network(), digits("train", 32), SHORT, seed=2**31, errors=RandomBitErrors(0.01)
            ),
            r"from 0 to 2\*\*31 - 1",
        ),
        (
            lambda: train_classifier(network(), digits("train", 32), SHORT, seed=0, precision="int8"),
            "it can be float32 or bfloat16",
        ),
    ],
)
def test_what_cannot_be_is_one_line(call, message):
    with pytest.raises(FaultsimError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
