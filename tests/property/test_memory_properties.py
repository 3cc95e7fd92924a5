"""Whatever a model is built of: a weight reads the very bits that the reference finds for it, however it is used."""

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize, prune, remove_weight_norm, weight_norm

from faultsim import SRAM, Chip, FaultKind, FaultModel, Placement, StoredWeights, evaluate, perturb, perturbed
from faultsim.kernel import reference
from faultsim.onnx.export import TOLERANCE, export_onnx
from faultsim.perturbation import corrupt_stored
from faultsim.quantization import prepare_qat

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
STEPS, WIDTH = 3, 8  # every block turns [batch, STEPS, WIDTH] into as much


class Conv1D(nn.Module):
    """As transformers has it: a linear layer with its weight transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.nf = WIDTH
        self.weight, self.bias = nn.Parameter(torch.randn(WIDTH, WIDTH) / 3), nn.Parameter(torch.zeros(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


class Adapter(nn.Module):
    """A linear layer with a low-rank part, as free matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(WIDTH, WIDTH)
        self.lora = nn.ParameterDict({"a": torch.randn(WIDTH, 2) / 3, "b": torch.randn(2, WIDTH) / 3})

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + x @ self.lora["a"] @ self.lora["b"]


class Tied(nn.Module):
    """Two names, an alias and a plain list for one matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(WIDTH, WIDTH)
        self.again, self.out = self.table, nn.Linear(WIDTH, WIDTH, bias=False)
        self.out.weight = self.table.weight
        self.alias = self.table.weight
        self.kept = [self.alias]

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.again(x.argmax(-1)) + self.out(x)
        return functional.linear(x, self.alias) + x @ self.kept[0]


class Free(nn.Module):
    """Parameters of more and of fewer dimensions, none of them in a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.mixes = nn.ParameterList([torch.randn(WIDTH, WIDTH) / 3 for _ in range(11)])
        self.token, self.gain = nn.Parameter(torch.randn(1, 1, WIDTH)), nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        for mix in list(self.mixes)[8:]:
            x = x @ mix
        return x * self.gain + self.token


class Layer(nn.Module):
    """One of torch's layers, called as it wants to be."""

    def __init__(self, layer: nn.Module, call: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.call = layer, call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(self.layer, x)


def along_time(layer: nn.Module, x: Tensor) -> Tensor:
    return layer(x.transpose(1, 2)).transpose(1, 2)


def flat(layer: nn.Module, x: Tensor) -> Tensor:
    return layer(x.reshape(-1, WIDTH)).reshape(x.shape)


def as_plane(layer: nn.Module, x: Tensor) -> Tensor:
    return layer(x.unsqueeze(1)).squeeze(1)


def bagged(layer: nn.Module, x: Tensor) -> Tensor:
    return x + layer(x.reshape(-1, WIDTH).argsort(-1)[:, :3]).reshape(x.shape)


BLOCKS = {
    "linear": lambda: nn.Linear(WIDTH, WIDTH),
    "convolution": lambda: Layer(nn.Conv1d(WIDTH, WIDTH, 3, padding=1, groups=2), along_time),
    "transposed": lambda: Layer(nn.ConvTranspose1d(WIDTH, WIDTH, 3, padding=1), along_time),
    "plane": lambda: Layer(nn.Conv2d(1, 1, 3, padding=1, bias=False), as_plane),
    "volume": lambda: Layer(nn.Conv3d(1, 1, 3, padding=1), lambda m, x: m(x[:, None, None])[:, 0, 0]),
    "lstm": lambda: Layer(nn.LSTM(WIDTH, 4, 2, batch_first=True, bidirectional=True), lambda m, x: m(x)[0]),
    "projected lstm": lambda: Layer(
        nn.LSTM(WIDTH, 9, proj_size=WIDTH, batch_first=True), lambda m, x: m(x)[0]
    ),
    "gru": lambda: Layer(nn.GRU(WIDTH, WIDTH, batch_first=True), lambda m, x: m(x)[0]),
    "rnn": lambda: Layer(nn.RNN(WIDTH, WIDTH, nonlinearity="relu", batch_first=True), lambda m, x: m(x)[0]),
    "cell": lambda: Layer(
        nn.LSTMCell(WIDTH, WIDTH), lambda m, x: m(x.reshape(-1, WIDTH))[0].reshape(x.shape)
    ),
    "attention": lambda: Layer(nn.MultiheadAttention(WIDTH, 2, batch_first=True), lambda m, x: m(x, x, x)[0]),
    "attention, apart": lambda: Layer(
        nn.MultiheadAttention(WIDTH, 2, kdim=5, vdim=6, add_bias_kv=True, batch_first=True),
        lambda m, x: m(x, x[..., :5], x[..., :6])[0],
    ),
    "encoder": lambda: nn.TransformerEncoderLayer(WIDTH, 2, 12, batch_first=True),
    "bilinear": lambda: Layer(nn.Bilinear(WIDTH, WIDTH, WIDTH), lambda m, x: m(x, x)),
    "bag": lambda: Layer(nn.EmbeddingBag(WIDTH, WIDTH, mode="sum"), bagged),
    "normalization": lambda: nn.LayerNorm([STEPS, WIDTH]),
    "Conv1D": Conv1D,
    "adapter": Adapter,
    "tied": Tied,
    "free": Free,
    "weight norm": lambda: parametrizations.weight_norm(nn.Linear(WIDTH, WIDTH)),
    "weight norm, old": lambda: weight_norm(nn.Linear(WIDTH, WIDTH)),
    "spectral norm": lambda: parametrizations.spectral_norm(nn.Linear(WIDTH, WIDTH)),
    "pruned": lambda: prune.l1_unstructured(nn.Linear(WIDTH, WIDTH), "weight", 0.4),
    "quantization-aware": lambda: prepare_qat(nn.Linear(WIDTH, WIDTH)),
}
EXPORTABLE = (
    "linear",
    "convolution",
    "transposed",
    "plane",
    "lstm",
    "adapter",
    "Conv1D",
    "weight norm",
    "free",
)


class Model(nn.Module):
    """A chain of blocks between images [batch, 3, 8, 1] and ten logits."""

    def __init__(self, blocks: list[str], seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.blocks = nn.ModuleList(BLOCKS[name]() for name in blocks)
        self.head = nn.Linear(STEPS * WIDTH, 10)
        self.eval().requires_grad_(False)  # torch's GRU rounds otherwise where weights need a gradient

    def forward(self, images: Tensor) -> Tensor:
        x = images.mean(-1)
        for block in self.blocks:
            x = x + block(x).tanh()
        return self.head(x.flatten(1))


def made_plain(model: Model) -> Model:
    """By torch's own functions."""
    model.requires_grad_(True)  # parametrize leaves no parameter where none trains
    for module in model.modules():
        if parametrize.is_parametrized(module):
            parametrize.remove_parametrizations(module, "weight")
        for hook in list(module._forward_pre_hooks.values()):
            if isinstance(hook, prune.BasePruningMethod):
                prune.remove(module, "weight")
            else:
                remove_weight_norm(module)
    return model.requires_grad_(False)


def by_reference(
    blocks: list[str], seed: int, chip: int, rate: float, faults: FaultModel, per_channel: bool
) -> tuple[Model, dict[str, np.ndarray]]:
    """A model with the weights that the chip reads, as floats, and their int8 values by every name that they have."""
    model, names, memory = made_plain(Model(blocks, seed)), {}, []
    for prefix, module in model.named_modules(remove_duplicate=False):
        for attribute, parameter in module._parameters.items():
            if parameter is None or parameter.dim() < 2 or attribute.startswith("bias"):
                continue
            if isinstance(module, nn.LayerNorm):
                continue
            names.setdefault(id(parameter), []).append(f"{prefix}.{attribute}")
    seen = set()
    for _, module in model.named_modules():
        padded = sorted(module._parameters, key=lambda n: re.sub(r"\d+", lambda m: m[0].zfill(5), n))
        for attribute in padded:
            parameter = module._parameters[attribute]
            if id(parameter) in names and id(parameter) not in seen:
                seen.add(id(parameter))
                memory.append((parameter, 1 if isinstance(module, nn.ConvTranspose1d | Conv1D) else 0))
    layout, base, read = faults.memory.address_map, 0, {}
    kind = {"flip": "flip", "transient": "transient"}.get(faults.kind, "stuck")
    ones = {"stuck_at_1": 1.0, "stuck_at_0": 0.0}.get(faults.kind, 0.5)
    for parameter, axis in memory:
        w = parameter.numpy()
        axes = tuple(d for d in range(w.ndim) if d != axis) if per_channel else None
        scale = (np.abs(w).max(axis=axes, keepdims=True) / np.float32(127)).astype(np.float32)
        q = np.rint(w / scale).astype(np.int8)
        where = {"base": 0 if layout.per_layer else base, "blocks": layout.blocks}
        where |= {"word": layout.word, "repeat": layout.repeat}
        values = reference.corrupt(q, [chip], rate, kind, ones=ones, **where)[0]
        base += -(-q.size // 8) * 8
        read |= dict.fromkeys(names[id(parameter)], values)
        parameter.copy_(torch.from_numpy(values.astype(np.float32) * scale))
    return model, read


chains = st.lists(st.sampled_from(sorted(BLOCKS)), min_size=1, max_size=4)
memories = st.builds(
    FaultModel,
    st.sampled_from(FaultKind),
    st.builds(SRAM, st.sampled_from(Placement), st.sampled_from([4096, 8192])),
)


def check(
    blocks: list[str], seed: int, chip: int, faults: FaultModel, per_channel: bool, rate: float = 0.03
) -> None:
    expected, read = by_reference(blocks, seed, chip, rate, faults, per_channel)
    model, x = Model(blocks, seed), torch.rand(6, 3, WIDTH, 1) * 2 - 1
    before = {name: value.clone() for name, value in model.state_dict().items()}
    options = {"bit_error_rate": rate, "faults": faults, "per_channel": per_channel}
    wanted, clean = expected(x), model(x)
    stored = corrupt_stored(
        StoredWeights.of(model, per_channel), Chip(chip), bit_error_rate=rate, faults=faults
    )
    assert {name for layer in stored.layers for name in layer.tensors} <= set(read)
    assert sum(layer.values.numel() for layer in stored.layers) == sum(
        {id(values): values.size for values in read.values()}.values()
    )
    for layer in stored.layers:
        for name in layer.tensors:
            assert np.array_equal(layer.values.numpy(), read[name]), name
    with perturbed(model, Chip(chip), **options):
        for name in read:
            module, _, attribute = name.rpartition(".")
            assert torch.equal(
                getattr(model.get_submodule(module), attribute), expected.get_parameter(name)
            ), name
        inside = model(x)
    copied = perturb(model, Chip(chip), **options)
    for name in read:
        assert torch.equal(copied.get_parameter(name), expected.get_parameter(name)), name
    assert torch.equal(inside, wanted)
    assert torch.equal(copied(x), wanted)
    data = [(x[:4], wanted[:4].argmax(1)), (x[4:], wanted[4:].argmax(1))]
    if faults.kind is not FaultKind.TRANSIENT:  # which reads anew for each batch
        assert evaluate(model, data, [chip], **options).mean == 1.0
    assert torch.equal(model(x), clean)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@given(chains, st.integers(0, 2**31), st.integers(0, 2**64 - 1), memories, st.booleans())
def test_every_parameter_reads_its_own_bits(blocks, seed, chip, faults, per_channel):
    check(blocks, seed, chip, faults, per_channel)


@pytest.mark.parametrize("block", BLOCKS)
def test_each_kind_of_block_alone(block):
    check([block], 1, 7, FaultModel(), False)
    check([block, "linear", block], 2, 8, FaultModel.preset("neuralfuse_2022"), True)


@settings(max_examples=4)
@given(st.lists(st.sampled_from(EXPORTABLE), min_size=2, max_size=3), st.integers(0, 99), st.booleans())
def test_an_exported_file_holds_these_bits(tmp_path_factory, blocks, seed, per_channel):
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    path = tmp_path_factory.mktemp("export") / "m.onnx"
    expected, read = by_reference(blocks, seed, 7, 0.03, FaultModel(), per_channel)
    model = Model(blocks, seed)
    stored = corrupt_stored(StoredWeights.of(model, per_channel), Chip(7), bit_error_rate=0.03)
    images = torch.randint(0, 256, (5, 3, WIDTH, 1), dtype=torch.uint8)
    export_onnx(path, model, stored, images, inputs="uint8")
    held = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    used = {name for name in read if f"model.{name}.int8" in held}
    assert used >= {name for name in read if "mixes" not in name}  # of a list of eleven, three are used
    assert all(np.array_equal(held[f"model.{name}.int8"], read[name]) for name in used)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    answer = torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
    wanted = expected(images / 127.5 - 1)
    torch.testing.assert_close(
        answer, wanted, rtol=0, atol=2 * TOLERANCE * max(1.0, float(wanted.abs().max()))
    )
