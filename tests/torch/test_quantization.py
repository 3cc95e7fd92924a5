"""float <-> int8, and training that knows of it."""

import copy

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize

from faultsim import FaultsimError, StoredWeights, prepare_qat, quantize
from faultsim.data import Dataset
from faultsim.network.inventory import find_channel_axis
from faultsim.quantization import dequantize, finish_qat
from faultsim.training.classifier import Recipe, train_classifier

LAYERS = {
    "Conv1d": (lambda: nn.Conv1d(4, 6, 3), 0, 6),
    "Conv2d": (lambda: nn.Conv2d(4, 6, 3, groups=2), 0, 6),
    "Conv3d": (lambda: nn.Conv3d(4, 6, 3), 0, 6),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(4, 6, 3), 1, 6),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(4, 6, 3), 1, 6),
    "ConvTranspose3d": (lambda: nn.ConvTranspose3d(4, 6, 3), 1, 6),
    "Linear": (lambda: nn.Linear(4, 6), 0, 6),
    "Embedding": (lambda: nn.Embedding(4, 6), 0, 4),
}
layers = pytest.mark.parametrize(("make", "axis", "channels"), LAYERS.values(), ids=LAYERS)

# whole float32 range, subnormal numbers and zeros among them
numbers = st.floats(allow_nan=False, allow_infinity=False, width=32)


@given(st.lists(numbers, min_size=1, max_size=40))
@example([190 * 2.0**-149, 2.0**-149])  # 190 / 127 rounds to 1 in the last digits of float32: 190 steps
@example([1.5e-36])
def test_integers_are_within_127_and_values_within_half_a_step(values):
    w = torch.tensor(values)
    q, scale = quantize(w)
    assert q.dtype == torch.int8
    assert scale.dtype == torch.float32
    assert scale.shape == ()
    assert int(q.long().abs().max()) <= 127
    largest = w.abs().max()
    if largest >= 1.5e-36:
        assert scale == largest / 127
        assert int(q[w.abs().argmax()].long().abs()) == 127
        error = (q.double() * scale.double() - w.double()).abs().max()
        assert error <= 0.500_01 * scale.double()
    else:
        assert scale == 1
        assert not q.any()


def test_hand_computed():
    q, scale = quantize(torch.tensor([[-1.27, 0.0, 0.634], [0.636, 0.01, 1.0]]))
    assert scale.item() == pytest.approx(0.01)
    assert q.tolist() == [[-127, 0, 63], [64, 1, 100]]
    assert torch.equal(dequantize(q, scale), q.float() * scale)


@layers
def test_one_scale_for_each_output_channel(make, axis, channels):
    torch.manual_seed(0)
    layer = make()
    assert find_channel_axis(layer) == axis
    assert layer.weight.shape[axis] == channels
    q, scale = quantize(layer.weight, axis)
    assert scale.shape == (channels,)
    for i in range(channels):
        one_q, one_scale = quantize(layer.weight.select(axis, i))
        assert torch.equal(q.select(axis, i), one_q)
        assert scale[i] == one_scale
        assert torch.equal(dequantize(q, scale, axis).select(axis, i), one_q.float() * one_scale)


def test_channels_of_zeros_have_scale_one():
    w = torch.randn(3, 5)
    w[1] = 0
    q, scale = quantize(w, 0)
    assert scale[1] == 1
    assert not q[1].any()
    q, scale = quantize(torch.zeros(4, 2))
    assert scale == 1
    assert not q.any()


def test_empty_weights():
    q, scale = quantize(torch.empty(0, 3))
    assert q.shape == (0, 3)
    assert scale == 1
    assert quantize(torch.empty(2, 0), 0)[1].tolist() == [1, 1]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("axis", [-1, 0])
def test_numbers_that_are_none_are_refused(bad, axis):
    with pytest.raises(FaultsimError, match="NaN or infinity"):
        quantize(torch.tensor([[1.0, bad]]), axis)
    model = nn.Sequential(nn.ReLU(), nn.Linear(2, 2))
    with torch.no_grad():
        model[1].weight[0, 1] = bad
    with pytest.raises(FaultsimError, match="layer 1: "):
        StoredWeights.of(model, per_channel=axis == 0)


# -- quantization-aware layers -----------------------------------------------------------------------------------


@layers
@pytest.mark.parametrize("per_channel", [False, True])
def test_aware_weight_is_what_memory_holds(make, axis, channels, per_channel):
    torch.manual_seed(1)
    layer = make()
    q, scale = quantize(layer.weight, axis if per_channel else -1)
    held = dequantize(q, scale, axis if per_channel else -1)
    prepare_qat(layer, per_channel)
    assert torch.equal(layer.weight, held)
    stored = StoredWeights.of(layer, per_channel).layers[0]
    assert torch.equal(stored.values, q)
    assert torch.equal(dequantize(stored.values, stored.scale, stored.axis), held)


@layers
@pytest.mark.parametrize("per_channel", [False, True])
def test_gradient_passes_straight_through(make, axis, channels, per_channel):
    torch.manual_seed(2)
    layer = prepare_qat(make(), per_channel)
    wanted = torch.randn_like(layer.weight)
    layer.weight.backward(wanted)
    assert torch.equal(layer.parametrizations.weight.original.grad, wanted)


def test_normalization_and_biases_stay_in_float():
    torch.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        model[1].weight.normal_()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    prepare_qat(model)
    for name in ("0.bias", "1.weight", "1.bias", "1.running_mean", "3.bias"):
        assert torch.equal(model.state_dict()[name], before[name])
    assert [name for name, module in model.named_modules() if parametrize.is_parametrized(module)] == [
        "0",
        "3",
    ]
    assert [layer.name for layer in StoredWeights.of(model).layers] == ["0", "3"]


def test_preparing_twice_changes_nothing():
    model = prepare_qat(nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2)))
    keys, weight = list(model.state_dict()), model[0].weight.clone()
    assert prepare_qat(model) is model
    assert list(model.state_dict()) == keys
    assert torch.equal(model[0].weight, weight)


@pytest.mark.parametrize("per_channel", [False, True])
def test_finishing_leaves_the_quantized_values(per_channel):
    torch.manual_seed(4)
    model = prepare_qat(nn.Sequential(nn.Conv1d(2, 3, 2), nn.Flatten(), nn.Linear(9, 2)), per_channel)
    x = torch.randn(5, 2, 4)
    answer, names = model(x), ["0.weight", "0.bias", "2.weight", "2.bias"]
    copied = copy.deepcopy(model)
    assert finish_qat(copied) is copied
    assert sorted(copied.state_dict()) == sorted(names)
    assert type(copied[0]) is nn.Conv1d
    assert torch.equal(copied(x), answer)
    assert all(p.requires_grad for p in copied.parameters())
    # the model that the copy was made of is as it was
    assert torch.equal(model(x), answer)
    assert parametrize.is_parametrized(model[0], "weight")
    finish_qat(model)
    assert torch.equal(model(x), answer)
    finish_qat(model)
    assert torch.equal(model(x), answer)


def test_finishing_keeps_other_parametrizations_of_the_layer():
    torch.manual_seed(5)
    layer = nn.Linear(4, 3)
    parametrize.register_parametrization(layer, "bias", nn.Tanh(), unsafe=True)
    model = prepare_qat(nn.Sequential(layer))
    copied = finish_qat(copy.deepcopy(model))
    x = torch.randn(2, 4)
    assert torch.equal(copied(x), model(x))
    assert not parametrize.is_parametrized(copied[0], "weight")
    assert parametrize.is_parametrized(copied[0], "bias")
    assert parametrize.is_parametrized(model[0], "weight")


def test_shared_weights_stay_shared():
    model = nn.Module()
    model.a, model.b = nn.Embedding(6, 4), nn.Linear(4, 6)
    model.b.weight = model.a.weight
    prepare_qat(model)
    assert model.a.parametrizations.weight.original is model.b.parametrizations.weight.original
    finish_qat(model)
    assert model.a.weight is model.b.weight


def test_a_copy_has_plain_weights_and_finishing_takes_only_ours_off():
    torch.manual_seed(6)
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 3)), prepare_qat(nn.Linear(3, 2)))
    x = torch.randn(2, 4)
    answer = model(x)
    finished = finish_qat(copy.deepcopy(model))
    assert parametrize.is_parametrized(finished[0], "weight")
    assert not parametrize.is_parametrized(finished[1])
    made = StoredWeights.of(model).copy(model, [model[0].weight.detach(), model[1].weight.detach()])
    assert sorted(made.state_dict()) == ["0.bias", "0.weight", "1.bias", "1.weight"]
    assert [type(layer) for layer in made] == [nn.Linear, nn.Linear]
    assert torch.equal(made(x), answer)
    assert torch.equal(model(x), answer)


def test_training_learns_through_the_rounding():
    """Four patterns and noise: the loss falls and the int8 network classifies new images."""
    torch.manual_seed(7)
    patterns = torch.randint(0, 256, (4, 3, 32, 32))

    def images(count: int) -> Dataset:
        labels = torch.arange(count) % 4
        noisy = (patterns[labels] + torch.randint(-60, 61, (count, 3, 32, 32))).clamp(0, 255)
        return Dataset(noisy.to(torch.uint8), labels, tuple("abcd"), "made", "train")

    model = nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=4, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(392, 4),
    )
    losses = []
    recipe = Recipe("tiny", epochs=3, batch_size=16, learning_rate=0.05)
    train_classifier(model, images(160), recipe, seed=0, report=lambda epoch: losses.append(epoch.loss))
    assert len(losses) == 3
    assert losses[-1] < 0.3 * losses[0]
    assert not model.training
    test = images(80)
    inputs = test.images.float() / 127.5 - 1
    assert (finish_qat(model)(inputs).argmax(1) == test.labels).float().mean() > 0.95
    weight = model[0].weight
    q, scale = quantize(weight)
    torch.testing.assert_close(weight, q.float() * scale, rtol=1e-6, atol=0)


def test_embedding_trains_only_the_rows_that_were_used():
    torch.manual_seed(8)
    table = prepare_qat(nn.Embedding(5, 3))
    functional.mse_loss(table(torch.tensor([1, 3])), torch.zeros(2, 3)).backward()
    used = table.parametrizations.weight.original.grad.abs().sum(1) > 0
    assert used.tolist() == [False, True, False, True, False]
