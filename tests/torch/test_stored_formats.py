"""Weights of other formats than int8 in a model's memory: from StoredWeights to evaluations, training and files."""

import numpy as np
import pytest
import torch
from torch import nn

from faultsim import (
    Chip,
    Domain,
    FaultModel,
    FaultsimError,
    MeasuredChip,
    StoredWeights,
    corrupt_stored,
    evaluate,
    evaluation_chips,
    finish_qat,
    load_subject,
    load_weights,
    perturb,
    perturbed,
    prepare_qat,
    save_weights,
    sweep,
)
from faultsim.formats import Format
from faultsim.formats import reference as formats
from faultsim.inference.fold import folded
from faultsim.kernel import reference
from faultsim.network.modes import evaluation_mode
from neuralfuse.adversarial import Adversarial
from neuralfuse.eopm import EOPM
from tests.core.fault_maps import of_cells

# name; bits and cells of a weight, offset codes, clamped when read; exponent and so on are those of its name
INTEGERS = {
    "int4": (4, 4, False, False),
    "int3": (3, 3, False, False),
    "int5-unpacked": (5, 8, False, False),
    "uint8-asymmetric": (8, 8, True, True),
    "uint2": (2, 2, True, True),
}
FLOATS = {"bfloat16": 16, "float32": 32, "float8_e4m3fn": 8}


def model() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 36, 7)
    ).eval()


def numbers(layer, image: np.ndarray) -> np.ndarray:
    """What an image stands for, by the definitions."""
    count, name = layer.values.numel(), layer.format.name
    if name in FLOATS:
        values = formats.floats(formats.weight_bits(image, count, FLOATS[name], FLOATS[name]), name)
        return formats.numbers(values, None, None)
    bits, cells, offset, clamps = INTEGERS[name]
    q = formats.integers(formats.weight_bits(image, count, bits, cells), offset, clamps)
    q = q.reshape(layer.values.shape)
    spread = [-1 if d == layer.axis else 1 for d in range(q.ndim)] if layer.axis >= 0 else []
    scale, center = (
        None if grid is None else grid.numpy().reshape(spread) for grid in (layer.scale, layer.center)
    )
    return formats.numbers(q, scale, center).reshape(-1)


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("name", [*INTEGERS, *FLOATS])
def test_a_chip_reads_the_image_at_the_layers_address(name: str, per_channel: bool):
    """Weights begin on words, one layer after the other; the reference corrupts the bytes and decodes them."""
    if per_channel and name in FLOATS:
        pytest.skip("has no scale")
    net = model()
    stored = StoredWeights.of(net, per_channel, format=name)
    read = perturb(net, Chip(9), bit_error_rate=0.01, per_channel=per_channel, format=name)
    codes, base, wrong = corrupt_stored(stored, Chip(9), bit_error_rate=0.01), 0, 0
    for layer, faulty, weight in zip(
        stored.layers, codes.layers, [read[0].weight, read[4].weight], strict=True
    ):
        image = layer.format.pack(layer.values).numpy()
        got = reference.corrupt(image.view(np.int8), [9], 0.01, "flip", base=base)[0].view(np.uint8)
        want = numbers(layer, got)
        np.testing.assert_array_equal(weight.detach().numpy().reshape(-1), want)
        np.testing.assert_array_equal(faulty.decode().numpy().reshape(-1), want)
        wrong += int((got != image).sum())
        base += len(image)
    assert stored.bytes == base
    assert wrong > 0


def test_int8_by_name_is_the_default():
    """Also in bytes that are no whole words."""
    net = model()
    plain, named = StoredWeights.of(net), StoredWeights.of(net, format="int8")
    assert plain.bytes == named.bytes == 135 + 7 * 180
    for a, b in zip(plain.layers, named.layers, strict=True):
        assert torch.equal(a.values, b.values)
        assert torch.equal(a.scale, b.scale)


def test_addresses_and_words_by_hand():
    """int3: 21 weights a word; 135 weights are 7 words, 1,260 are 60."""
    summary = StoredWeights.of(model(), format="int3").summary()
    assert [(tensor.address, tensor.bytes) for tensor in summary.stored] == [(0, 56), (56, 480)]
    assert summary.words == 67
    assert summary.as_dict()["format"] == "int3"
    assert summary.as_dict()["words"] == 67
    assert "536 bytes, 67 words of 64 bits" in str(summary)
    plain = StoredWeights.of(model()).summary()
    assert not {"format", "words"} & set(plain.as_dict())
    assert "words" not in str(plain)


def test_one_cell_of_a_measured_chip_by_hand():
    """int4: the second layer begins at byte 72 (135 weights are 9 words); its weight 3 has bits 4 to 7 of byte 73."""
    net = model()
    stored = StoredWeights.of(net, format="int4")
    bit = 8 * 73 + 7  # the sign of weight 3
    chip = MeasuredChip(of_cells((float("nan"), 0, bit // 64, bit % 64, -1)))
    with torch.no_grad(), perturbed(net, chip, voltage=0.8, format="int4"):
        first, second = net[0].weight.clone(), net[4].weight.clone()
    assert torch.equal(first, stored.layers[0].decode())
    clean = stored.layers[1].decode()
    changed = (second != clean).nonzero().tolist()
    assert changed == [[0, 3]]
    scale = stored.layers[1].scale
    q = int(stored.layers[1].values[0, 3])
    assert second[0, 3] == (q - 8 if q >= 0 else q + 8) * scale


def test_evaluations_and_sweeps_say_the_format_and_count_by_words():
    subject, chips = load_subject(images=32), evaluation_chips(0, 2)
    four = load_subject(images=32, format="int4")
    found = evaluate(subject.model, subject.data, chips, bit_error_rate=0.02, format="int4")
    again = evaluate(four.model, four.data, chips, bit_error_rate=0.02, stored=four.stored)
    assert found == again
    assert 2 * four.accesses == subject.accesses  # twice as many weights in a word
    assert four.network["format"] == "int4"
    assert "format" not in subject.network
    rows = sweep(four.model, four.data, chips, voltages=[0.8], format="int4").rows()
    assert rows[0]["format"] == "int4"
    assert rows[0]["energy_per_inference"] == pytest.approx(four.accesses * rows[0]["energy_per_access"])


@pytest.mark.parametrize("name", ["int4", "uint4-asymmetric", "float8_e5m2-scaled", "bfloat16"])
def test_training_sees_the_grid_and_files_keep_it(name: str, tmp_path):
    net, made = model(), Format.parse(name)
    want = [made.decode(*made.encode(layer.weight)) for layer in (net[0], net[4])]
    prepare_qat(net, format=name)
    for layer, weight in zip((net[0], net[4]), want, strict=True):
        assert torch.equal(layer.weight, weight)
    x = torch.randn(2, 3, 8, 8)
    net(x).sum().backward()  # straight through
    assert net[4].parametrizations.weight.original.grad.abs().sum() > 0
    finish_qat(net)
    save_weights(tmp_path / "net.safetensors", net, {"model": "x"}, format=name)
    other = model()
    stored, about = load_weights(other, tmp_path / "net.safetensors")
    assert about["weight_format"] == stored.format.name == made.name
    for layer, weight in zip(stored.layers, want, strict=True):
        torch.testing.assert_close(layer.decode(), weight, rtol=1e-6, atol=1e-7)
    stored.check(other)
    eight, _ = load_weights(model(), tmp_path / "net.safetensors", format="int8")
    assert eight.format.name == "int8"


@pytest.mark.parametrize("name", ["int4", "uint4-asymmetric", "bfloat16"])
def test_gradients_pass_a_memory_of_any_format(name: str):
    net, x = model(), torch.randn(2, 3, 8, 8)
    with perturbed(net, Chip(1), bit_error_rate=1e-3, format=name, straight_through=True):
        net(x).sum().backward()
    assert net[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ["int4", "uint4-asymmetric", "bfloat16", "float8_e4m3fn-scaled"])
def test_folded_normalization_computes_the_same(name: str):
    net = model()
    net[1].running_mean.normal_()
    net[1].running_var.uniform_(0.5, 2)
    net[1].weight.data.normal_()  # of both signs
    stored, x = StoredWeights.of(net, format=name), torch.randn(2, 3, 8, 8)
    with evaluation_mode(net), torch.no_grad():
        weights = [layer.decode() for layer in stored.layers]
        with stored.replaced(weights):
            want = net(x)
        with folded(net, stored) as memory:
            out = memory.empty(1)
            faults = FaultModel()
            from faultsim.kernel import ops

            memory.read(ops.encode_chips([Chip(0)]), ops.encode_rate(0.0), faults, out)
            with memory.replaced([w[0] for w in out]):
                got = net(x)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_a_generator_learns_from_weights_of_four_bits():
    net = model()
    fuse = nn.Conv2d(3, 3, 1)
    with EOPM(net, StoredWeights.of(net, format="int4"), bit_error_rate=0.02, n_models=2) as objective:
        losses = objective.backward(fuse, torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 3]), 0)
    assert torch.isfinite(losses.perturbed)
    assert fuse.weight.grad.abs().sum() > 0


def test_what_cannot_be_is_refused_in_one_line():
    net, int4 = model(), StoredWeights.of(model(), format="int4")
    own = StoredWeights.of(net, format="int4")
    for message, call in (
        ("unknown format 'int9'", lambda: StoredWeights.of(net, format="int9")),
        ("no scale for each channel", lambda: StoredWeights.of(net, True, format="bfloat16")),
        ("uses? EOPM|use EOPM", lambda: Adversarial(net, own, flips=1)),
        ("has bit -5", lambda: own.check_domains(FaultModel(domains=(Domain.top_bits(5),)))),
        ("cannot be combined with stored weights", lambda: perturbed(net, 0, bit_error_rate=0.1, stored=own,
                                                                     format="int4").__enter__()),
        ("another model", lambda: int4.check(net)),
    ):  # fmt: skip
        with pytest.raises(FaultsimError, match=message) as error:
            call()
        assert "\n" not in str(error.value)


def test_layers_in_robust_cells_read_right():
    net = model()
    stored = StoredWeights.of(net, format="int4")
    faults = FaultModel(domains=(Domain("head", ("4.*",)),))
    read = corrupt_stored(stored, Chip(2), bit_error_rate=0.2, faults=faults)
    assert torch.equal(read.layers[1].values, stored.layers[1].values)
    assert not torch.equal(read.layers[0].values, stored.layers[0].values)
