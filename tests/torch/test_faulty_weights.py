"""Does every owner of a weight read the faulty one, whatever it is computed from, and is the model given back?"""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

from faultsim import (
    FaultModel,
    FaultsimError,
    StoredWeights,
    corrupt,
    evaluate,
    evaluation_chips,
    load_weights,
    perturb,
    perturbed,
    prepare_qat,
    save_weights,
)
from faultsim.data import load
from faultsim.memory import Share
from tests.torch.shared_parameters import CHIP, Everything

RATE = 0.02


def bits_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items() if isinstance(value, Tensor)}


# -- every owner reads the faulty weight ---------------------------------------------------------------------------


def test_one_parameter_with_several_owners():
    torch.manual_seed(0)
    model, i = Everything(), torch.randint(0, 50, (200, 5))
    clean = model(i)
    copied = perturb(model, CHIP, bit_error_rate=RATE)
    assert copied.dec_weight is copied.emb.weight
    assert copied.kept[0] is copied.rows[1]
    with perturbed(model, CHIP, bit_error_rate=RATE):
        answer = model(i)
    assert torch.equal(answer, copied(i))
    assert not torch.equal(answer, clean)
    assert torch.equal(model(i), clean)
    data = [(i, answer.argmax(1))]
    assert evaluate(model, data, [CHIP], bit_error_rate=RATE).mean == 1.0
    assert evaluate(model, data, [CHIP], bit_error_rate=0.0).mean < 1.0


COMPUTED = {
    "weight norm": lambda: parametrizations.weight_norm(nn.Linear(8, 6)),
    "spectral norm": lambda: parametrizations.spectral_norm(nn.Linear(8, 6)),
    "orthogonal": lambda: parametrizations.orthogonal(nn.Linear(8, 6)),
    "weight norm, old": lambda: weight_norm(nn.Linear(8, 6)),
    "spectral norm, old": lambda: spectral_norm(nn.Linear(8, 6)),
    "pruned twice": lambda: prune.random_unstructured(
        prune.l1_unstructured(nn.Linear(8, 6), "weight", 0.5), "weight", 0.3
    ),
    "recurrent, weight norm": lambda: parametrizations.weight_norm(nn.LSTM(8, 6), "weight_hh_l0"),
    "recurrent, weight norm, old": lambda: weight_norm(nn.LSTM(8, 6), "weight_hh_l0"),
    "recurrent, quantization-aware": lambda: prepare_qat(nn.LSTM(8, 6, 2)),
    "attention, quantization-aware": lambda: prepare_qat(nn.TransformerEncoderLayer(8, 2, 8, dropout=0)),
    "recurrent, pruned": lambda: prune.l1_unstructured(nn.LSTM(8, 6), "weight_ih_l0", 0.5),
}


@pytest.mark.parametrize("make", COMPUTED.values(), ids=COMPUTED)
@pytest.mark.parametrize("training", [False, True])
def test_computed_weights_are_replaced_and_nothing_of_the_model_changes(make, training):
    def first(answer: Tensor | tuple) -> Tensor:
        return answer[0] if isinstance(answer, tuple) else answer

    torch.manual_seed(0)
    model, x = make().eval(), torch.randn(5, 2, 8)
    clean = first(model(x))
    model.train(training)
    before, hooks = bits_of(model), [list(m._forward_pre_hooks) for m in model.modules()]
    stored = StoredWeights.of(model)
    copied = perturb(model, CHIP, bit_error_rate=0.05).eval()
    assert not any(parametrize.is_parametrized(module) for module in copied.modules())
    assert not any("_orig" in name or "weight_g" in name for name in copied.state_dict())
    with perturbed(model, CHIP, bit_error_rate=0.05):
        answer = first(model(x))
    torch.testing.assert_close(answer, first(copied(x)), rtol=0, atol=0)
    assert not torch.allclose(answer, clean)
    after = bits_of(model)
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert [list(m._forward_pre_hooks) for m in model.modules()] == hooks
    for layer, w in zip(stored.layers, stored.read_chips([CHIP], 0.0, None, FaultModel()), strict=True):
        with parametrize.cached():
            now = getattr(model.eval().get_submodule(layer.name), layer.attributes[0])
        assert float((now.detach() - w[0]).abs().max()) <= 0.51 * float(layer.scale)
    torch.testing.assert_close(first(model.eval()(x)), clean, rtol=0, atol=0)


def test_weights_kept_by_cached_are_replaced_too():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), parametrizations.weight_norm(nn.Linear(16, 4)))
    prepare_qat(model[:1])
    x = torch.randn(25, 8)
    data = [(x, model(x).argmax(1))]
    options = {"bit_error_rate": 0.2}
    wanted = evaluate(model, data, evaluation_chips(0, 4), **options)
    assert len(set(wanted.correct)) > 1
    assert evaluate(model, data, evaluation_chips(0, 4), bit_error_rate=0.0).mean == 1
    with parametrize.cached():
        clean = model(x)
        assert evaluate(model, data, evaluation_chips(0, 4), **options) == wanted
        assert torch.equal(model(x), clean)
        with perturbed(model, CHIP, **options), parametrize.cached():
            inside = model(x)
        assert torch.equal(inside, perturb(model, CHIP, **options)(x))


class DropConnect(nn.Module):
    """Dropout on weights."""

    def forward(self, weight: Tensor) -> Tensor:
        return functional.dropout(weight, 0.5, self.training)


def test_dropout_on_weights_is_off(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 7))
    x = torch.randn(500, 20)
    labels = model(x).argmax(1)
    for layer in (model[0], model[2]):
        parametrize.register_parametrization(layer, "weight", DropConnect())
    model.train()
    found = [evaluate(model, [(x, labels)], [CHIP], bit_error_rate=0.0).correct for _ in range(3)]
    assert found[0] == found[1] == found[2]
    assert found[0][0] >= 490
    save_weights(tmp_path / "m.safetensors", model)
    stored, _ = load_weights(
        nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 7)), tmp_path / "m.safetensors"
    )
    assert (stored.layers[0].values != 0).float().mean() > 0.9
    assert all(module.training for module in model.modules())


# -- int8 already --------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("per_channel", [False, True])
def test_int8_weights_of_torch_are_taken_as_they_are(per_channel):
    from torch.ao.quantization import per_channel_dynamic_qconfig, quantize_dynamic

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4))
    kinds = {nn.Linear: per_channel_dynamic_qconfig} if per_channel else {nn.Linear}
    quantized, x = quantize_dynamic(model, kinds, dtype=torch.qint8), torch.randn(5, 16)
    clean, own = quantized(x), quantized[0].weight()
    stored = StoredWeights.of(quantized)
    assert torch.equal(stored.layers[0].values, own.int_repr())
    scales = own.q_per_channel_scales().float() if per_channel else torch.tensor(own.q_scale()).float()
    assert torch.equal(stored.layers[0].scale, scales)
    assert stored.share == Share(16 * 8 + 8 * 4, 16 * 8 + 8 * 4)
    with perturbed(quantized, CHIP, bit_error_rate=0.05):
        inside, read = quantized(x), quantized[0].weight()
    wanted = corrupt(own.int_repr(), CHIP, bit_error_rate=0.05)
    assert torch.equal(read.int_repr(), wanted)
    assert torch.equal(perturb(quantized, CHIP, bit_error_rate=0.05)(x), inside)
    assert not torch.equal(inside, clean)
    assert torch.equal(quantized(x), clean)
    for refused in (
        lambda: prepare_qat(quantized),
        lambda: perturbed(quantized, CHIP, bit_error_rate=0.1, straight_through=True).__enter__(),
        lambda: save_weights("never.safetensors", quantized),
    ):
        with pytest.raises(FaultsimError, match=r"0\.weight .*int8"):
            refused()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_quantized_modules_that_are_not_known_are_refused():
    from torch.ao.quantization import quantize_dynamic

    model = quantize_dynamic(nn.Sequential(nn.LSTM(4, 3)), {nn.LSTM}, dtype=torch.qint8)
    with pytest.raises(FaultsimError, match="layer 0 is a quantized LSTM, which is not known here"):
        StoredWeights.of(model)


def test_int8_weights_of_torchao_are_taken_as_they_are():
    torchao = pytest.importorskip("torchao.quantization")
    torch.manual_seed(0)
    for configuration in (torchao.Int8WeightOnlyConfig(), torchao.Int8DynamicActivationInt8WeightConfig()):
        model, x = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4)), torch.randn(5, 16)
        torchao.quantize_(model, configuration)
        with torch.no_grad():
            clean, own = model(x), model[0].weight.qdata.clone()
            stored = StoredWeights.of(model)
            assert torch.equal(stored.layers[0].values, own)
            assert stored.layers[0].axis == 0
            with perturbed(model, CHIP, bit_error_rate=0.05):
                inside, read = model(x), model[0].weight.qdata.clone()
            assert torch.equal(read, corrupt(own, CHIP, bit_error_rate=0.05))
            assert torch.equal(perturb(model, CHIP, bit_error_rate=0.05)(x), inside)
            assert torch.equal(model(x), clean)


# -- gradients -----------------------------------------------------------------------------------------------------


STRAIGHT = {
    "linear": lambda: nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)),
    "quantization-aware": lambda: prepare_qat(nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))),
    "weight norm": lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(8, 3))),
    "pruned": lambda: nn.Sequential(prune.l1_unstructured(nn.Linear(8, 3), "weight", 0.5)),
    "recurrent": lambda: nn.LSTM(8, 3),
    "recurrent, quantization-aware": lambda: prepare_qat(nn.LSTM(8, 3)),
    "shared": Everything,
}


@pytest.mark.parametrize("make", STRAIGHT.values(), ids=STRAIGHT)
def test_straight_through_reaches_the_float_weights(make):
    """Outputs are the faulty ones; gradients are those that the faulty weights get, handed on to the model's own."""
    torch.manual_seed(0)
    model = make()
    x = torch.randint(0, 50, (4, 5)) if isinstance(model, Everything) else torch.randn(5, 2, 8)

    def loss(module: nn.Module) -> Tensor:
        answer = module(x)
        return (answer[0] if isinstance(answer, tuple) else answer).square().sum()

    with perturbed(model, CHIP, bit_error_rate=0.05):
        plain = loss(model)
        plain.backward()
    stored = [p for layer in StoredWeights.of(model).layers for p in layer.held.sources]
    assert all(p.grad is None for p in stored)
    model.zero_grad()
    copied = perturb(model, CHIP, bit_error_rate=0.05)
    loss(copied).backward()
    with perturbed(model, CHIP, bit_error_rate=0.05, straight_through=True):
        straight = loss(model)
        straight.backward()
        again = loss(model)
        assert torch.equal(again, straight)
        again.backward()
    torch.testing.assert_close(straight, plain)
    used = [p for p in stored if p.grad is not None]
    assert len(used) == len(stored)
    assert all(float(p.grad.abs().sum()) > 0 for p in used)
    for layer in StoredWeights.of(
        model
    ).layers:  # what the parameter itself is read as, gets the very gradient
        if type(layer.held).__name__ == "Parameter":
            theirs = copied.get_parameter(layer.tensors[0]).grad
            torch.testing.assert_close(layer.held.sources[0].grad, 2 * theirs)  # of two passes


# -- a network with memory -----------------------------------------------------------------------------------------


class Rows(nn.Module):
    """Reads an image of 32 x 32 row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(32, 32, batch_first=True), nn.Linear(32, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.lstm(images.mean(1))[0][:, -1])


def test_a_trained_lstm_loses_accuracy_under_bit_errors():
    """As any other network does: until now its weights never failed."""
    torch.manual_seed(0)
    train, test = load("digits", "train"), load("digits", "test")
    images, labels = train.images.float() / 127.5 - 1, train.labels
    model = prepare_qat(Rows())
    optimizer = torch.optim.Adam(model.parameters(), 0.015)
    for _ in range(9):
        for chosen in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            functional.cross_entropy(model(images[chosen]), labels[chosen]).backward()
            optimizer.step()
    data = [(test.images.float() / 127.5 - 1, test.labels)]
    chips = evaluation_chips(0, 5)
    accuracy = {
        rate: evaluate(model, data, chips, bit_error_rate=rate).mean for rate in (0.0, 0.01, 0.05, 0.5)
    }
    assert accuracy[0.0] > 0.85
    assert accuracy[0.0] > accuracy[0.01] > accuracy[0.05] + 0.1
    assert accuracy[0.05] < 0.7
    assert accuracy[0.5] < 0.3
    share = StoredWeights.of(model).share
    assert (share.stored, share.weights) == (4 * 32 * (32 + 32) + 320,) * 2
