"""ONNX files: they compute what torch computes, with the very int8 weights, and only then are they there."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from faultsim import Chip, Domain, FaultModel, FaultsimError, StoredWeights, models, perturbed, prepare_qat
from faultsim.data import load
from faultsim.data.dataset import normalize
from faultsim.onnx.export import INPUTS, TOLERANCE, export_onnx
from faultsim.perturbation import corrupt_stored
from neuralfuse import generators

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def images() -> Tensor:
    return load("digits", "test").images[:5]


def used(network: nn.Module) -> nn.Module:
    """A network whose normalization has seen images, so that all that it computes with is its own."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
    network.train()
    with torch.no_grad():
        network(2 * torch.rand(4, 3, 32, 32) - 1)
    return network.eval()


def answer(path: Path, images: Tensor) -> Tensor:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def initializers(path: Path) -> dict[str, np.ndarray]:
    graph = onnx.load(path).graph
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}


def holds(path: Path, stored: StoredWeights, prefix: str) -> bool:
    """Whether the file's int8 weights and scales are those in memory."""
    found = initializers(path)
    return all(
        np.array_equal(found[f"{prefix}{layer.name}.weight.int8"], layer.values.numpy())
        and np.array_equal(found[f"{prefix}{layer.name}.weight.scale"], layer.scale.numpy())
        for layer in stored.layers
    )


@pytest.mark.parametrize("name", generators.NAMES)
def test_every_generator(name, images, tmp_path):
    network, path = used(generators.create(name)), tmp_path / "g.onnx"
    fuse, stored = generators.NeuralFuse(network), StoredWeights.of(network)
    difference = export_onnx(path, fuse, stored, images, output="transformed")
    assert 0 <= difference <= TOLERANCE
    with torch.no_grad(), perturbed(network, Chip(0), bit_error_rate=0.0):
        expected = fuse(normalize(images))
    assert expected.abs().max() <= 1
    assert (expected - normalize(images)).abs().max() > 0.1
    torch.testing.assert_close(answer(path, normalize(images)), expected, rtol=0, atol=TOLERANCE)
    assert holds(path, stored, "model.generator.")


@pytest.mark.parametrize("name", ["DigitsNet", "VGG11", "ResNet18"])
def test_base_models_and_their_size(name, images, tmp_path):
    """An int8 file takes a byte a weight, a quarter of a float's; the rest is small."""
    model, path = used(models.create(name)), tmp_path / "m.onnx"
    stored = StoredWeights.of(model)
    export_onnx(path, model, stored, images)
    with torch.no_grad(), perturbed(model, Chip(0), bit_error_rate=0.0):
        expected = model(normalize(images))
    torch.testing.assert_close(answer(path, normalize(images)), expected, rtol=0, atol=TOLERANCE)
    assert holds(path, stored, "model.")
    floats = 4 * sum(value.numel() for value in model.state_dict().values())
    assert 0.25 < path.stat().st_size / floats < (0.3 if name == "DigitsNet" else 0.254)


@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize("count", [1, 2, 7])
def test_inputs_and_batch_sizes(inputs, count, images, tmp_path):
    """From pixels, in both layouts, the same as from normalized images; with batches of sizes never traced."""
    model, path = used(models.create("DigitsNet")), tmp_path / "m.onnx"
    export_onnx(path, model, StoredWeights.of(model), images, inputs=inputs)
    pixels = load("digits", "test").images[20 : 20 + count]
    given = {
        "float32": normalize(pixels),
        "uint8": pixels,
        "uint8-nhwc": pixels.permute(0, 2, 3, 1).contiguous(),
    }[inputs]
    with torch.no_grad(), perturbed(model, Chip(0), bit_error_rate=0.0):
        expected = model(normalize(pixels))
    torch.testing.assert_close(answer(path, given), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("placement", ["iid_flips", "neuralfuse_2022"])
def test_weights_as_a_chip_reads_them(placement, images, tmp_path):
    model, path = used(models.create("DigitsNet")), tmp_path / "m.onnx"
    faults = FaultModel.preset(placement)
    options = {"voltage": 0.83, "faults": faults}
    stored = StoredWeights.of(model)
    read = corrupt_stored(stored, Chip(7), **options)
    wrong = [(a.values != b.values).sum() for a, b in zip(stored.layers, read.layers, strict=True)]
    assert sum(wrong) > 0
    export_onnx(path, model, read, images)
    assert holds(path, read, "model.")
    with torch.no_grad(), perturbed(model, Chip(7), **options):
        expected = model(normalize(images))
    atol = TOLERANCE * max(1, float(expected.abs().max()))
    torch.testing.assert_close(answer(path, normalize(images)), expected, rtol=0, atol=atol)


class Everything(nn.Module):
    """A shared weight, one that is never used, weights of three dimensions, no bias, and a matrix product of a map."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.third, self.line = nn.Conv2d(4, 4, 1, bias=False), nn.Conv1d(4, 6, 3)
        self.second.weight = self.third.weight
        self.rows, self.unused = nn.Linear(30, 10, bias=False), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.third(self.second(self.first(x))).mean(-1)
        return self.rows(self.line(x)).mean(1)


@pytest.mark.parametrize("aware", [False, True], ids=["plain", "quantization-aware"])
@pytest.mark.parametrize("per_channel", [False, True], ids=["per tensor", "per channel"])
def test_any_layer(aware, per_channel, images, tmp_path):
    torch.manual_seed(1)
    model, path = Everything(), tmp_path / "m.onnx"
    if aware:
        prepare_qat(model, per_channel)
    model.second.eval()
    modes = [module.training for module in model.modules()]
    parameters = [(p, p.clone(), p.requires_grad) for p in model.parameters()]
    stored = StoredWeights.of(model, per_channel)
    export_onnx(path, model, stored, images)
    with torch.no_grad(), perturbed(model, Chip(0), bit_error_rate=0.0, per_channel=per_channel):
        expected = model(normalize(images))
    torch.testing.assert_close(answer(path, normalize(images)), expected, rtol=0, atol=TOLERANCE)
    tensors = initializers(path)
    int8 = {name for name, tensor in tensors.items() if name.endswith(".int8") and tensor.dtype == np.int8}
    assert int8 == {f"model.{name}.weight.int8" for name in ("first", "second", "line", "rows")}
    assert [module.training for module in model.modules()] == modes
    for (before, values, gradient), after in zip(parameters, model.parameters(), strict=True):
        assert after is before
        assert torch.equal(after, values)
        assert (after.requires_grad, after.grad) == (gradient, None)


FORMATS = {
    "int7": ("int8", 17),
    "int4": ("int4", 21),
    "uint3": ("int4", 21),
    "uint5-asymmetric": ("int8", 17),
    "float32": ("float32", 17),
    "float16": ("float16", 17),
    "bfloat16": ("bfloat16", 17),
    "float8_e4m3fn-scaled-clamp": ("float8e4m3fn", 19),
    "float8_e5m2": ("float8e5m2", 19),
}
"""The type of ONNX that holds each format, and the version of ONNX's operators that has it."""


@pytest.mark.parametrize("name", FORMATS)
def test_weights_of_any_format(name, images, tmp_path):
    """Layers of all kinds compute with the memory's numbers, and the file holds these, in as few bits as ONNX has."""
    torch.manual_seed(1)
    model, path = Everything().eval(), tmp_path / "m.onnx"
    kind, opset = FORMATS[name]
    for per_channel in (False, True) if "int" in name or "scaled" in name else (False,):
        stored = corrupt_stored(
            StoredWeights.of(model, per_channel, format=name),
            Chip(1),
            bit_error_rate=0.02,
            faults=FaultModel(domains=(Domain.top_bits(1 if "int" in name else 9 if "bf" in name else 6),)),
        )
        export_onnx(path, model, stored, images)
        assert onnx.load(path).opset_import[0].version == opset
        with torch.no_grad(), stored.replaced([layer.decode() for layer in stored.layers]):
            expected = model(normalize(images))
        torch.testing.assert_close(answer(path, normalize(images)), expected, rtol=TOLERANCE, atol=TOLERANCE)
        found = initializers(path)
        for layer in stored.layers[:2]:
            offset, least = (
                (4, -3) if name == "uint3" else (16, -15) if name == "uint5-asymmetric" else (0, -1e9)
            )
            numbers = np.maximum(layer.values.float().nan_to_num(nan=0).numpy() - offset, least)
            of_file = found[f"model.{layer.name}.weight.{kind}"].astype(np.float32)
            assert np.array_equal(of_file, numbers)
    (codes,) = (t for t in onnx.load(path).graph.initializer if t.name == f"model.rows.weight.{kind}")
    assert (
        len(codes.raw_data)
        == 300 * {"int4": 4, "float32": 32}.get(kind, 16 if kind.endswith("16") else 8) // 8
    )


def test_what_a_policy_makes_of_weights_that_are_not_finite_is_in_the_file(images, tmp_path):
    torch.manual_seed(1)
    model, path = Everything().eval(), tmp_path / "m.onnx"
    with torch.no_grad():
        model.rows.weight[0, :4] = torch.tensor([1.0, 1.5, -1.0, 0.5])
    most = torch.finfo(torch.bfloat16).max
    for policy, numbers in (("zero", [0, 0, 0, 0.5]), ("clamp", [most, 0, -most, 0.5]), ("keep", None)):
        own = StoredWeights.of(model, format=f"bfloat16-{policy}")
        (at,) = (i for i, layer in enumerate(own.layers) if layer.name == "rows")
        values = own.layers[at].values.clone()  # bit 14 of 1.0 and 1.5 makes infinity and NaN
        values[0, :3] = (values[0, :3].view(torch.int16) ^ (1 << 14)).view(torch.bfloat16)
        assert not values[0, :3].isfinite().any()
        read = own.with_layers(
            [*own.layers[:at], replace(own.layers[at], values=values), *own.layers[at + 1 :]]
        )
        if numbers is None:
            with pytest.raises(FaultsimError, match="answers with these bfloat16 weights are not finite"):
                export_onnx(path, model, read, images)
            continue
        export_onnx(path, model, read, images)
        assert initializers(path)["model.rows.weight.bfloat16"][0, :4].astype(float).tolist() == numbers


def test_the_file_says_what_it_is(images, tmp_path):
    model, path = models.create("DigitsNet"), tmp_path / "m.onnx"
    export_onnx(path, model, StoredWeights.of(model), images, metadata={"model": "DigitsNet", "chip": 7})
    (entry,) = onnx.load(path).metadata_props
    assert (entry.key, json.loads(entry.value)) == ("faultsim", {"chip": 7, "model": "DigitsNet"})
    graph = onnx.load(path).graph
    assert [entry.name for entry in graph.input] == ["images"]
    assert [entry.name for entry in graph.output] == ["logits"]
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


class Moody(nn.Module):
    """Answers differently each time, as a model does whose graph holds what was true once only."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.calls = nn.Linear(3, 2), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.layer(x.mean([2, 3])) + 0.01 * self.calls


class Strange(nn.Module):
    """Has an operator that ONNX has not."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j0(self.layer(x.mean([2, 3])))


@pytest.mark.parametrize(
    ("model", "words"), [(Moody(), "differs from torch's"), (Strange(), "cannot be exported")]
)
def test_what_is_not_the_same_is_not_written(model, words, images, tmp_path, capfd):
    (tmp_path / "m.onnx").write_bytes(b"what was there")
    with pytest.raises(FaultsimError, match=words):
        export_onnx(tmp_path / "m.onnx", model, StoredWeights.of(model), images)
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    assert (tmp_path / "m.onnx").read_bytes() == b"what was there"
    assert capfd.readouterr().out == ""  # torch prints the graph of what it cannot export


@pytest.mark.parametrize(
    ("options", "count", "words"),
    [({"inputs": "jpeg"}, 5, "float32, uint8, uint8-nhwc"), ({}, 2, "at least 3")],
)
def test_bad_values_are_refused(options, count, words, images, tmp_path):
    model = models.create("DigitsNet")
    with pytest.raises(FaultsimError, match=words):
        export_onnx(tmp_path / "m.onnx", model, StoredWeights.of(model), images[:count], **options)
    assert not list(tmp_path.iterdir())
