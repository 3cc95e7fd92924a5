"""What lies in the faulty memory: every weight that a model multiplies by, by the identity of its parameters."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from faultsim import (
    SRAM,
    Chip,
    FaultModel,
    FaultsimError,
    Placement,
    StoredWeights,
    evaluate,
    models,
    perturb,
    perturbed,
    prepare_qat,
)
from faultsim.memory import Share
from faultsim.network.inventory import take_inventory
from faultsim.onnx.export import export_onnx
from neuralfuse.eopm import EOPM
from tests.torch.shared_parameters import CHIP, Everything

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
