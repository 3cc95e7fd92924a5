"""What lies in the faulty memory: every weight that a model multiplies by, by the identity of its parameters."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

from faultsim import (
    SRAM,
    Chip,
    FaultModel,
    FaultsimError,
    Placement,
    StoredWeights,
    corrupt,
    evaluate,
    evaluation_chips,
    load_weights,
    models,
    perturb,
    perturbed,
    prepare_qat,
    save_weights,
)
from faultsim.data import load
from faultsim.export import export_onnx
from faultsim.inventory import take_inventory
from faultsim.memory import Share
from neuralfuse.eopm import EOPM

CHIP, RATE = Chip(3), 0.02


class Everything(nn.Module):
    """Free parameters, and some that live in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(50, 16)
        self.dec_weight = self.emb.weight
        self.rows = nn.ParameterList([torch.randn(16, 16), torch.randn(16, 16)])
        self.named = nn.ParameterDict({"a": torch.randn(16, 16)})
        self.kept = [self.rows[1]]
        self.gain = nn.Parameter(torch.randn(16))
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.norm = nn.LayerNorm([2, 16])
        self.register_buffer("positions", torch.randn(50, 16))

    def forward(self, i: Tensor) -> Tensor:
        x = self.emb(i).mean(1) @ self.rows[0] @ self.kept[0] @ self.named["a"]
        return functional.linear(x * self.gain + self.token[0], self.dec_weight)


def bits_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items() if isinstance(value, Tensor)}


# -- what is in the inventory --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: nn.LSTM(4, 3, proj_size=2), ["weight_hh_l0", "weight_hr_l0", "weight_ih_l0"]),
        (lambda: nn.GRU(4, 3, 11, bias=False), [f"weight_{p}_l{i}" for p in ("hh", "ih") for i in range(11)]),
        (lambda: nn.RNNCell(4, 3), ["weight_hh", "weight_ih"]),
        (lambda: nn.MultiheadAttention(4, 2, add_bias_kv=True), ["in_proj_weight", "out_proj.weight"]),
        (
            lambda: nn.MultiheadAttention(4, 2, kdim=3, vdim=5),
            ["k_proj_weight", "q_proj_weight", "v_proj_weight", "out_proj.weight"],
        ),
        (lambda: nn.EmbeddingBag(5, 3), ["weight"]),
        (lambda: nn.Bilinear(2, 3, 4), ["weight"]),
        (Everything, ["token", "emb.weight", "rows.0", "rows.1", "named.a"]),
        (
            lambda: nn.TransformerEncoderLayer(4, 2, 8),
            ["self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1.weight", "linear2.weight"],
        ),
    ],
)
def test_every_matrix_lies_there(make, expected):
    model = make()
    found = [weight.tensors for weight in take_inventory(model).weights]
    shared = {"emb.weight": "dec_weight"}
    assert sorted(names[0] for names in found) == sorted(shared.get(name, name) for name in expected)
    stored = StoredWeights.of(model)
    assert stored.share == Share(stored.bytes, stored.bytes)
    assert stored.bytes == sum(torch.Size(weight.shape).numel() for weight in take_inventory(model).weights)


def test_order_is_that_of_the_modules_and_of_the_names_whether_or_not_weights_are_computed():
    model = nn.Sequential(nn.LSTM(4, 3, 11), nn.Linear(3, 2))
    plain = [layer.tensors for layer in StoredWeights.of(model).layers]
    assert [names[0] for names in plain[:3]] == ["0.weight_hh_l0", "0.weight_hh_l1", "0.weight_hh_l2"]
    assert [names[0] for names in plain[9:12]] == ["0.weight_hh_l9", "0.weight_hh_l10", "0.weight_ih_l0"]
    assert plain[-1] == ("1.weight",)
    parametrizations.weight_norm(model[0], "weight_hh_l3")
    assert [layer.tensors for layer in StoredWeights.of(model).layers] == plain
    prepare_qat(model)
    assert [layer.tensors for layer in StoredWeights.of(model).layers] == plain


@pytest.mark.parametrize("name", models.NAMES)
def test_models_of_convolutions_lie_where_they_always_did(name):
    """Convolutions and linear layers in the order of named_modules(), each on a word of 8 bytes."""
    with torch.device("meta"):
        model = models.create(name)
    kinds = (nn.Conv2d, nn.Linear)
    layers = [(n, m.weight.numel()) for n, m in model.named_modules() if isinstance(m, kinds)]
    weights = take_inventory(model).weights
    assert [weight.names[0] for weight in weights] == [name for name, _ in layers]
    at, bases = 0, []
    for _, size in layers:
        bases.append(at)
        at += -(-size // 8) * 8
    assert SRAM().bases([torch.Size(weight.shape).numel() for weight in weights]) == bases


def test_selection_by_pattern_and_predicate():
    model = Everything()
    everything = StoredWeights.of(model, select="*")
    assert everything.bytes == sum(p.numel() for p in model.parameters())
    assert everything.share.fraction == 1
    some = StoredWeights.of(model, select=["rows.*", "gain"])
    assert [layer.tensors[0] for layer in some.layers] == ["gain", "rows.0", "rows.1"]
    assert some.share == Share(2 * 256 + 16, 16 + StoredWeights.of(model).bytes)
    assert "(" in str(some.share)
    # one of its names selects a parameter, and all of its owners read it
    shared = StoredWeights.of(model, select=lambda name, tensor: name == "emb.weight" and tensor.dim() == 2)
    assert [layer.tensors for layer in shared.layers] == [("dec_weight", "emb.weight")]
    for select, complaint in (
        ("rows.7", "no tensor of the model is called 'rows.7'"),
        (lambda *_: False, "nothing is selected"),
        ([3], "patterns of names"),
    ):
        with pytest.raises(FaultsimError, match=complaint):
            StoredWeights.of(model, select=select)


def test_biases_fail_where_they_are_selected():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5)).eval()
    x = torch.randn(2, 3, 4, 4)
    options = {"bit_error_rate": 0.1, "select": "*"}
    copied = perturb(model, CHIP, **options)
    assert all(not torch.equal(p, q) for p, q in zip(model.parameters(), copied.parameters(), strict=True))
    with perturbed(model, CHIP, **options):
        assert torch.equal(model(x), copied(x))
    stored = StoredWeights.of(model, select="*", per_channel=True)
    scales = {layer.tensors[0]: layer.scale.numel() for layer in stored.layers}
    assert scales["0.bias"] == 1
    assert scales["0.weight"] == 4


# -- what does not lie there is told -------------------------------------------------------------------------------


def test_what_is_left_out_is_named_with_its_reason():
    model = Everything()
    model.hidden = [nn.Linear(16, 16)]
    model.loose = [nn.Parameter(torch.randn(16, 16))]
    model.counts = nn.Parameter(torch.zeros(3, 3, dtype=torch.int64), requires_grad=False)
    stored = StoredWeights.of(model)
    reasons = {tensor.name: tensor.reason for tensor in stored.left_out}
    assert reasons["gain"] == "fewer than two dimensions"
    assert reasons["norm.weight"] == "normalisation"
    assert reasons["positions"] == "a buffer, no parameter"
    assert "plain list" in reasons["hidden[0].weight"]
    assert "plain list" in reasons["loose[0]"]
    assert "int64" in reasons["counts"]
    assert stored.share == Share(stored.bytes, stored.bytes + 2 * 256 + 9)
    summary = stored.summary()
    assert f"{stored.bytes:,} of {stored.bytes + 521:,} weights (" in str(summary)
    assert "hidden[0].weight" in str(summary)
    assert summary.as_dict()["share"]["share"] == stored.bytes / (stored.bytes + 521)


def test_hand_computed_places():
    """200 x 40 weights from address 0, then 30 x 100 from 8,000: of 4,096 bytes an array."""
    model = nn.Sequential(nn.Linear(40, 200, bias=False), nn.Linear(100, 30, bias=False))
    unlimited = StoredWeights.of(model).summary()
    assert [(s.names, s.bytes, s.address, s.arrays) for s in unlimited.stored] == [
        (("0.weight",), 8000, 0, ((0, 1),)),
        (("1.weight",), 3000, 8000, ((1, 2),)),
    ]
    tiled = StoredWeights.of(model).summary(FaultModel(memory=SRAM(Placement.TILED, 2 * 4096)))
    assert [s.arrays for s in tiled.stored] == [((0, 1),), ((1, 1), (0, 0))]
    paper = StoredWeights.of(model).summary(FaultModel.preset("neuralfuse_2022"))
    assert [(s.address, s.arrays) for s in paper.stored] == [(0, ((0, 0),)), (0, ((0, 0),))]


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: nn.Linear(8, 4, dtype=torch.complex64), "weight is torch.complex64"),
        (lambda: nn.LazyLinear(4), "has no shape yet: run the model once"),
        (lambda: nn.Linear(8, 4).to(torch.float8_e4m3fn), "float8"),
    ],
)
def test_what_cannot_be_stored_is_refused_in_one_line(make, complaint):
    model = nn.Sequential(nn.Linear(2, 2))
    model.add_module("odd", make())
    for use in (StoredWeights.of, lambda m: perturb(m, CHIP, bit_error_rate=0.0)):
        with pytest.raises(FaultsimError, match=f"^odd.*{complaint}") as error:
            use(model)
        assert "\n" not in str(error.value)
    assert StoredWeights.of(model, select="0.weight").bytes == 4


def test_tensor_subclasses_that_compute_in_their_own_way_are_refused():
    class Odd(Tensor):
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            return super().__torch_function__(function, types, args, kwargs or {})

    class Plain(nn.Parameter):
        pass

    model = nn.Linear(3, 2)
    model._parameters["weight"] = torch.randn(2, 3).as_subclass(Odd)
    with pytest.raises(FaultsimError, match="weight is a Odd, a kind of tensor that is not known"):
        StoredWeights.of(model)
    model._parameters["weight"] = Plain(torch.randn(2, 3))
    assert StoredWeights.of(model).bytes == 6


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


# -- stored weights of another model -------------------------------------------------------------------------------


def test_stored_weights_of_another_model_or_another_time_are_refused():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 7))
    x = torch.randn(30, 20)
    data = [(x, model(x).argmax(1))]
    stored = StoredWeights.of(model)
    evaluate(model, data, [CHIP], bit_error_rate=0.1, stored=stored)
    for other in (copy.deepcopy(model), model[0:1], nn.Sequential(nn.Linear(20, 7))):
        belongs = other[0] is model[0]
        for use in (
            lambda m: evaluate(m, data, [CHIP], bit_error_rate=0.1, stored=stored),
            lambda m: perturbed(m, CHIP, bit_error_rate=0.1, stored=stored).__enter__(),
        ):
            if belongs:
                use(other)
                continue
            with pytest.raises(FaultsimError, match="the stored weights belong to another model"):
                use(other)
    images = torch.zeros(3, 3, 4, 4, dtype=torch.uint8)
    for use in (
        lambda m: export_onnx("never.onnx", m, stored, images),
        lambda m: EOPM(m, stored, bit_error_rate=0.1),
    ):
        with pytest.raises(FaultsimError, match="the stored weights belong to another model"):
            use(copy.deepcopy(model))
    with pytest.raises(FaultsimError, match="cannot be combined with stored weights"):
        evaluate(model, data, [CHIP], bit_error_rate=0.1, stored=stored, per_channel=True)
    with torch.no_grad():
        model[0].weight.mul_(2)
    with pytest.raises(FaultsimError, match=r"0\.weight was changed after it was stored"):
        evaluate(model, data, [CHIP], bit_error_rate=0.1, stored=stored)


def test_evaluate_quantizes_by_channel():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 7))
    x = torch.randn(200, 20)
    data, options = [(x, model(x).argmax(1))], {"bit_error_rate": 0.05}
    found = evaluate(model, data, [CHIP, Chip(4)], **options, per_channel=True)
    stored = StoredWeights.of(model, per_channel=True)
    assert found == evaluate(model, data, [3, np.int64(4)], **options, stored=stored)
    assert found != evaluate(model, data, [CHIP, Chip(4)], **options)


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
