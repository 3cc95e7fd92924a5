"""Weight files: does what is written come back bit for bit, shared and computed weights too?"""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_model, save_file, save_model
from torch import nn
from torch.nn.utils import parametrizations

from faultsim import (
    SRAM,
    Chip,
    FaultKind,
    FaultModel,
    FaultsimError,
    Placement,
    StoredWeights,
    bundled,
    load_weights,
    models,
    prepare_qat,
    save_weights,
)
from faultsim.checkpoint import read_file
from faultsim.kernel import reference
from tests.torch.small_networks import Shared, TwoNames, bits, network, unchanged

MAKE = {
    "plain": (network, lambda: torch.randn(2, 3, 8, 8)),
    "quantization-aware": (lambda seed=0: prepare_qat(network(seed)), lambda: torch.randn(2, 3, 8, 8)),
    "shared": (Shared, lambda: torch.randint(0, 12, (2, 3))),
    "shared, quantization-aware": (
        lambda seed=0: prepare_qat(Shared(seed)),
        lambda: torch.randint(0, 12, (2, 3)),
    ),
    "one layer": (lambda seed=0: nn.Linear(3, 2), lambda: torch.randn(2, 3)),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("into", ["plain", "aware"])
@pytest.mark.parametrize("kind", MAKE)
def test_round_trip_is_exact(path, kind, into, per_channel):
    make, inputs = MAKE[kind]
    model, x = make(), inputs()
    before, stored = bits(model), StoredWeights.of(model, per_channel)
    save_weights(path, model, {"model": "mine", "recipe": {"epochs": 3}}, per_channel=per_channel)
    assert unchanged(model, before)

    other = make(seed=1) if into == "plain" else prepare_qat(make(seed=1), per_channel)
    loaded, metadata = load_weights(other, path)
    assert metadata == {"format": 1, "model": "mine", "recipe": {"epochs": 3}}
    assert [layer.names for layer in loaded.layers] == [layer.names for layer in stored.layers]
    for ours, theirs in zip(stored.layers, loaded.layers, strict=True):
        assert torch.equal(ours.values, theirs.values)
        assert torch.equal(ours.scale, theirs.scale)
        assert ours.axis == theirs.axis
    weights = {f"{name}.weight".removeprefix(".") for layer in stored.layers for name in layer.names} | {
        "again.weight"
    }
    for name, value in other.state_dict().items():
        if name.replace("parametrizations.weight.original", "weight") not in weights:
            assert torch.equal(before[name], value)  # biases and normalization, in float
    # written again from what was loaded: the same integers
    again = path.with_name("again.safetensors")
    save_weights(again, other, {"model": "mine", "recipe": {"epochs": 3}}, per_channel=per_channel)
    reloaded, _ = load_weights(make(seed=2), again)
    for ours, theirs in zip(stored.layers, reloaded.layers, strict=True):
        assert torch.equal(ours.values, theirs.values)
    with torch.no_grad():
        assert torch.isfinite(other(x)).all()


def test_the_model_computes_with_what_the_file_holds(path):
    model = network()
    save_weights(path, model)
    other = network(1)
    stored, _ = load_weights(other, path)
    for layer in stored.layers:
        assert torch.equal(other.get_submodule(layer.name).weight, layer.values.float() * layer.scale)


def test_what_a_file_looks_like(path):
    model = prepare_qat(network())
    save_weights(path, model, per_channel=True)
    with safe_open(path, framework="pt") as file:
        names = list(file.keys())
        shapes = {n: (str(file.get_tensor(n).dtype), file.get_slice(n).get_shape()) for n in names}
    assert shapes == {
        "0.weight": ("torch.int8", [4, 3, 3, 3]),
        "0.weight.scale": ("torch.float32", [4]),
        "0.bias": ("torch.float32", [4]),
        "1.weight": ("torch.float32", [4]),
        "1.bias": ("torch.float32", [4]),
        "1.running_mean": ("torch.float32", [4]),
        "1.running_var": ("torch.float32", [4]),
        "1.num_batches_tracked": ("torch.int64", []),
        "2.weight": ("torch.int8", [4, 2, 2, 2]),
        "2.weight.scale": ("torch.float32", [2]),
        "2.bias": ("torch.float32", [2]),
        "4.weight": ("torch.int8", [5, 98]),
        "4.weight.scale": ("torch.float32", [5]),
        "4.bias": ("torch.float32", [5]),
    }


def test_equal_models_give_equal_bytes(path, tmp_path):
    other = tmp_path / "other.safetensors"
    save_weights(path, network(), {"b": 1, "a": 2})
    save_weights(other, network(), {"a": 2, "b": 1})
    assert path.read_bytes() == other.read_bytes()


def test_metadata_is_json(path):
    save_weights(path, network(), {"note": "Größe"})
    assert read_file(path)[1] == {"format": 1, "note": "Größe"}
    with safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["faultsim"])["note"] == "Größe"


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("aware", [False, True])
@pytest.mark.parametrize("make", [network, Shared])
def test_plain_state_dict_in_float_is_quantized(path, make, per_channel, aware):
    model = make()
    save_file({name: value.clone() for name, value in model.state_dict().items()}, path)
    other = make(1)
    if aware:
        prepare_qat(other, per_channel)
    stored, metadata = load_weights(other, path, per_channel=per_channel)
    assert metadata == {}
    for ours, theirs in zip(StoredWeights.of(model, per_channel).layers, stored.layers, strict=True):
        assert torch.equal(ours.values, theirs.values)
        assert torch.equal(ours.scale, theirs.scale)
    loaded = {
        name.replace("parametrizations.weight.original", "weight"): v
        for name, v in other.state_dict().items()
    }
    assert all(torch.equal(loaded[name], value) for name, value in model.state_dict().items())


def test_shared_weights_may_stand_in_a_state_dict_once(path):
    model = Shared()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    del state["read.weight"], state["again.weight"]
    save_file(state, path)
    other = Shared(1)
    load_weights(other, path)
    assert other.read.weight is other.write.weight
    assert torch.equal(other.read.weight, model.read.weight)


@pytest.mark.parametrize("aware", [False, True])
def test_what_save_model_writes_is_read(path, aware):
    """safetensors.torch.save_model writes shared tensors once, under a name of its choice."""
    model = TwoNames()
    save_model(model, path)
    with safe_open(path, framework="pt") as file:
        assert len(file.keys()) == 4 + 5  # of 6 + 5 names
    other = TwoNames(1)
    if aware:
        prepare_qat(other)
    stored, _ = load_weights(other, path)
    for ours, theirs in zip(StoredWeights.of(model).layers, stored.layers, strict=True):
        assert ours.tensors == theirs.tensors
        assert torch.equal(ours.values, theirs.values)
    assert torch.equal(other.two.bias, model.two.bias)
    assert other.two.bias is other.one.bias
    if not aware:
        by_safetensors = TwoNames(2)
        load_model(by_safetensors, path)
        state = other.state_dict()
        assert all(torch.equal(state[name], value) for name, value in by_safetensors.state_dict().items())


def recurrent(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.LSTM(4, 3), nn.MultiheadAttention(4, 2), nn.Embedding(5, 4))


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("aware", [False, True])
def test_every_weight_of_the_memory_is_written_in_int8(path, per_channel, aware):
    model = recurrent()
    if aware:
        prepare_qat(model, per_channel)
    stored = StoredWeights.of(model, per_channel)
    save_weights(path, model, per_channel=per_channel)
    tensors, _ = read_file(path)
    int8 = {name for name, tensor in tensors.items() if tensor.dtype == torch.int8}
    assert int8 == {layer.tensors[0] for layer in stored.layers}
    assert len(int8) == 5
    loaded, _ = load_weights(recurrent(1), path)
    for ours, theirs in zip(stored.layers, loaded.layers, strict=True):
        assert torch.equal(ours.values, theirs.values)
        assert torch.equal(ours.scale, theirs.scale)
    # a file of before: what was not a convolution, a linear layer or an embedding is in float
    floats = {name: value for name, value in tensors.items() if "lstm" not in name and "0." not in name}
    plain = recurrent()
    save_file({**floats, **{f"0.{n}": p.detach().clone() for n, p in plain[0].named_parameters()}}, path)
    loaded, _ = load_weights(recurrent(1), path, per_channel=per_channel)
    assert torch.equal(loaded.layers[0].values, StoredWeights.of(plain, per_channel).layers[0].values)


def test_biases_in_the_memory_come_back_whether_or_not_they_are_selected(path):
    model = network()
    save_weights(path, model, select="*")
    tensors, _ = read_file(path)
    assert tensors["4.bias"].dtype == torch.int8
    held = tensors["4.bias"] * tensors["4.bias.scale"]
    for select in ("*", None):
        other = network(1)
        stored, _ = load_weights(other, path, select=select)
        assert torch.equal(other[4].bias, held)
        assert ("4.bias",) in [layer.tensors for layer in stored.layers] or select is None


def test_weights_that_are_computed_are_loaded_from_what_they_are_computed_from(path):
    def normed(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 3)), nn.Linear(3, 2))

    model = normed(0)
    save_file({name: value.clone() for name, value in model.state_dict().items()}, path)
    other = normed(1)
    stored, _ = load_weights(other, path)
    assert torch.equal(stored.layers[0].values, StoredWeights.of(model).layers[0].values)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    state["0.parametrizations.weight.original1"][0] = 0.0  # a direction of length 0: the weight is 0 / 0
    save_file(state, path)
    before = bits(other)
    with pytest.raises(FaultsimError, match="layer 0: weights with NaN"):
        load_weights(other, path)
    assert unchanged(other, before)


def test_weight_norm_is_written_as_the_weight_it_gives(path):
    torch.manual_seed(0)
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 3)))
    save_weights(path, model)
    stored, _ = load_weights(nn.Sequential(nn.Linear(4, 3)), path)
    assert torch.equal(stored.layers[0].values, StoredWeights.of(model).layers[0].values)
    before = bits(model)
    with pytest.raises(FaultsimError, match=r"'0\.weight' is computed from other parameters"):
        load_weights(model, path)
    assert unchanged(model, before)


@pytest.mark.parametrize(("name", "size"), [("DigitsNet", 62_896), ("DigitsVGG", 539_608)])
def test_the_shipped_models(name, size):
    from faultsim.bundled import train

    model = models.create(name)
    stored, metadata = load_weights(model, bundled.MODELS[name])
    assert stored.bytes == size
    assert (metadata["model"], metadata["dataset"], metadata["num_classes"]) == (name, "digits", 10)
    recipe = metadata["recipe"]
    if (
        "schedule" not in recipe
    ):  # DigitsNet was trained when there was one schedule besides none, and one precision
        recipe = {**recipe, "schedule": {True: "one_cycle"}[recipe["one_cycle"]], "precision": "float32"}
        del recipe["one_cycle"]
    assert recipe == vars(train.RECIPES[name])
    assert metadata["test_accuracy"] > 0.98
    assert bundled.MODELS[name].stat().st_size < 1_000_000


@pytest.mark.parametrize("place", Placement)
@pytest.mark.parametrize("kind", FaultKind)
def test_chips_read_the_shipped_model_alike_on_each_device(device, kind, place):
    """All layers at their addresses, against the reference: hence CPU and GPU give the same faults."""
    stored, _ = load_weights(models.create(bundled.MODEL).to(device), bundled.WEIGHTS)
    faults = FaultModel(kind, SRAM(place, 8 * 4096), read_error=0.3)
    word, ones = {
        FaultKind.FLIP: ("flip", 0.5),
        FaultKind.STUCK_AT_RANDOM: ("stuck", 0.5),
        FaultKind.STUCK_AT_0: ("stuck", 0.0),
        FaultKind.STUCK_AT_1: ("stuck", 1.0),
        FaultKind.TRANSIENT: ("transient", 0.3),
    }[kind]
    layout, seeds, wrong = faults.memory.address_map, [7, 2**63 + 5], 0
    found = stored.read_chips([Chip(seed) for seed in seeds], 0.01, None, faults, access=2)
    for layer, base, weights in zip(stored.layers, stored.bases(faults), found, strict=True):
        where = {"base": base, "blocks": layout.blocks, "word": layout.word, "repeat": layout.repeat}
        values = layer.values.cpu().numpy()
        read = reference.corrupt(values, seeds, 0.01, word, ones=ones, access=2, **where)
        axis = None if layer.axis < 0 else layer.axis + 1
        want = reference.dequantize(read, layer.scale.cpu().numpy(), axis, "float32")
        assert torch.equal(weights.cpu(), torch.from_numpy(want))
        assert weights.device.type == device
        wrong += int((read != values).sum())
    assert wrong > 500
