"""Activations as fault sites: the numbers that layers read, bit by bit, against a computation in NumPy."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from faultsim import SRAM, Chip, FaultMap, FaultModel, MeasuredChip, Placement, perturbed
from faultsim.activations.memory import INPUT_BLOCKS, ActivationMemory, perturbed_activations
from faultsim.activations.ranges import ActivationRanges, SiteRange, calibrate
from faultsim.errors import FaultsimError
from faultsim.faults import FaultKind
from faultsim.kernel import reference

RATE = 0.05
UNIT = 1 / 64  # of the activations: with weights of eighths, all sums of float32 are exact


def read_reference(
    x: np.ndarray, seed: int, bits: int, scale: float, kind: str = "flip", rate: float = RATE, **where: int
) -> np.ndarray:
    """What a layer reads instead of float32 [samples, ...]: stored as integers of `bits` bits, as many as fit into
    each 64-bit word, read by a chip, in NumPy."""
    most = 2 ** (bits - 1) - 1
    q = np.clip(np.rint(x.astype(np.float32) / np.float32(scale)), -most, most).astype(np.int64)
    found = []
    for sample in q.reshape(len(x), -1):
        per_word = 64 // bits
        words = np.zeros(-(-sample.size // per_word), np.uint64)
        for i, code in enumerate(sample.tolist()):
            words[i // per_word] |= np.uint64((code % 2**bits) << (i % per_word * bits))
        image = words.view(np.uint8).view(np.int8)
        [read] = reference.corrupt(image, [seed], rate, kind, block_offset=INPUT_BLOCKS, **where)
        words = read.view(np.uint64)
        codes = [int(words[i // per_word]) >> (i % per_word * bits) & 2**bits - 1 for i in range(sample.size)]
        found.append([code - 2**bits if code > most else code for code in codes])
    return (np.array(found, np.float32) * np.float32(scale)).reshape(x.shape)


def eighths(*shape: int, seed: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(-7, 8, shape).astype(np.float32) / 8)


def exact(model: nn.Module) -> nn.Module:
    """A model whose weights are eighths, in evaluation mode."""
    for at, parameter in enumerate(model.parameters()):
        parameter.data = eighths(*parameter.shape, seed=at)
    return model.eval()


def inputs(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(-150, 151, shape).astype(np.float32) * UNIT)


def ranges(unit: float = UNIT, bits: int = 8, /, **elements: int) -> ActivationRanges:
    most = (2 ** (bits - 1) - 1) * unit
    return ActivationRanges("input", {name: SiteRange(-most, most / 2, n) for name, n in elements.items()})


def mlp() -> nn.Module:
    return exact(nn.Sequential(nn.Linear(20, 33), nn.ReLU(), nn.Linear(33, 5)))


MLP = {"0": 20, "2": 33}


@pytest.mark.parametrize("kind", ["flip", "stuck_at_random", "stuck_at_0", "transient"])
@pytest.mark.parametrize("bits", [8, 5, 4])
def test_a_perceptron_computes_what_numpy_computes(bits: int, kind: str) -> None:
    model, x, unit = mlp(), inputs(6, 20), UNIT * 2 ** (8 - bits)
    faults = FaultModel(FaultKind(kind), SRAM(Placement.TILED, 4096))
    memory = ActivationMemory(ranges(unit, bits, **MLP), f"int{bits}", faults)
    with torch.no_grad(), perturbed_activations(model, 7, memory, bit_error_rate=RATE, access=3):
        found = model(x)
    ones = {"stuck_at_0": 0.0, "stuck_at_random": 0.5, "transient": 0.5}.get(kind, 0.5)
    how = {"kind": kind if kind in ("flip", "transient") else "stuck", "ones": ones, "access": 3, "blocks": 1}
    second = -(-20 // (64 // bits)) * 8  # its address: after the words of the first
    first, last = model[0], model[2]
    h = read_reference(x.numpy(), 7, bits, unit, base=0, **how) @ first.weight.detach().numpy().T
    h = np.maximum(h + first.bias.detach().numpy(), 0)
    h = read_reference(h, 7, bits, unit, base=second, **how) @ last.weight.detach().numpy().T
    assert np.array_equal(found.numpy(), h + last.bias.detach().numpy())
    assert not torch.equal(found, model(x))


def test_a_convolution_computes_what_numpy_computes() -> None:
    model = exact(nn.Sequential(nn.Conv2d(2, 3, 3, stride=2, padding=1)))
    x = inputs(4, 2, 7, 6)
    memory = ActivationMemory(ranges(**{"0": 2 * 7 * 6}))
    with torch.no_grad(), perturbed_activations(model, Chip(2**63 + 5), memory, bit_error_rate=RATE):
        found = model(x.to(memory_format=torch.channels_last))  # the addresses are row-major all the same
    read = read_reference(x.numpy(), 2**63 + 5, 8, UNIT, blocks=64)
    padded = np.pad(read, ((0, 0), (0, 0), (1, 1), (1, 1)))
    weight, bias = (tensor.detach().numpy() for tensor in (model[0].weight, model[0].bias))
    expected = np.zeros((4, 3, 4, 3), np.float32)
    for i in range(4):
        for j in range(3):
            window = padded[:, None, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
            expected[:, :, i, j] = (window * weight).sum((2, 3, 4)) + bias
    assert np.array_equal(found.numpy(), expected)


def test_all_samples_of_a_batch_meet_the_same_cells() -> None:
    model, memory = mlp(), ranges(**MLP)
    x = inputs(9, 20)
    with torch.no_grad(), perturbed_activations(model, 3, memory, bit_error_rate=RATE):
        assert torch.equal(model(x), torch.cat([model(sample[None]) for sample in x]))


def test_weights_and_activations_of_a_chip_fail_in_cells_of_their_own() -> None:
    x = torch.zeros(1, 4096)
    ones = nn.Linear(4096, 1, bias=False)
    nn.init.ones_(ones.weight)
    where = ActivationMemory(ranges(**{"": 4096}), faults=FaultModel())
    seen = []
    ones.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    with torch.no_grad(), perturbed(ones, 5, bit_error_rate=0.01):
        with perturbed_activations(ones, 5, where, bit_error_rate=0.01):
            ones(x)
        wrong = [(ones.weight[0] != 1).numpy(), (seen[0][0] != 0).numpy()]
    assert min(w.sum() for w in wrong) > 200  # about 317 of 4,096 bytes
    assert not np.array_equal(*wrong)


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 2**64 - 1),
    st.sampled_from(["uint8-asymmetric", "int8-asymmetric", "uint4", "int3-unpacked"]),
)
def test_faults_are_nested_and_codes_stay_within_their_range(seed: int, form: str) -> None:
    model = nn.Sequential(nn.Identity())
    x = torch.linspace(-1, 3, 500)[None]
    seen = ActivationRanges("output", {"0": SiteRange(-1.0, 3.0, 500)})
    memory = ActivationMemory(seen, form)
    reads = []
    for rate in (0.0, 0.01, 0.1):
        with perturbed_activations(model, seed, memory, bit_error_rate=rate):
            reads.append(model(x)[0])
    clean = reads[0]
    codes = memory.codes
    grid_codes, grid = codes.encode(torch.cat([x[0], -3.0 * x.new_ones(0 if codes.asymmetric else 1)]))
    assert torch.allclose(
        clean, codes.decode(grid_codes, grid)[:500], atol=1e-6
    )  # as a weight would be stored
    wrong = [read != clean for read in reads]
    assert not (wrong[1] & ~wrong[2] & (reads[1] == reads[2])).any()
    if codes.asymmetric:
        assert all(read.min() >= -1 - 1e-6 and read.max() <= 3 + 1e-6 for read in reads)
    assert wrong[2].any()


def test_a_measured_chip_reads_its_own_map() -> None:
    model = nn.Sequential(nn.Identity())
    cells = {"row": [0, 0, 0, 0], "column": [8, 10, 16, 24], "stuck_at": [-1, -1, 1, 0]}  # bytes 1, 1, 2, 3
    count = len(cells["row"])
    found = {name: np.array(values) for name, values in cells.items()}
    chip = MeasuredChip(
        FaultMap(
            array=np.zeros(count, int), voltage=np.full(count, 0.82), arrays=1, lowest_voltage=0.8, **found
        )
    )
    x = torch.tensor([[1.0, 2.0, 3.0, 5.0, 5.0], [1.0, 8.0, 4.0, 4.0, 0.0]])
    seen = ActivationRanges("output", {"0": SiteRange(-127.0, 127.0, 5)})
    with perturbed_activations(model, chip, ActivationMemory(seen, faults=FaultModel()), voltage=0.8):
        assert model(x).tolist() == [[1.0, 2 ^ 5, 3.0, 4.0, 5.0], [1.0, 8 ^ 5, 5.0, 4.0, 0.0]]
    with perturbed_activations(model, chip, ActivationMemory(seen, faults=FaultModel()), voltage=0.9):
        assert torch.equal(model(x), x)


@pytest.mark.parametrize("error", [None, RuntimeError])
def test_nothing_is_left_of_the_hooks(error: type[Exception] | None) -> None:
    model, x = mlp(), inputs(2, 20)
    kinds, before = [type(m) for m in model.modules()], model(x)
    try:
        with perturbed_activations(model, 1, ranges(**MLP), bit_error_rate=RATE):
            assert not torch.equal(model(x), before)
            assert type(model[0]) is not nn.Linear
            if error:
                raise error("inside")
    except RuntimeError:
        assert error
    assert [type(m) for m in model.modules()] == kinds
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())
    assert torch.equal(model(x), before)


@pytest.mark.parametrize("backend", ["eager", "aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_models_read_the_same_whenever_they_were_compiled(backend: str) -> None:
    model, x = mlp(), inputs(3, 20)
    memory = ranges(**MLP)
    early = torch.compile(copy.deepcopy(model), backend=backend)
    late = torch.compile(copy.deepcopy(model), backend=backend)
    with torch.no_grad():
        clean = early(x)
        for chip in (1, 2, 1):
            with perturbed_activations(model, chip, memory, bit_error_rate=RATE):
                expected = model(x)
            for compiled in (early, late):
                inside = compiled._orig_mod
                with perturbed_activations(inside, chip, memory, bit_error_rate=RATE):
                    assert torch.equal(compiled(x), expected)
                assert torch.equal(compiled(x), clean)
        assert not torch.equal(expected, clean)


def test_gradients_pass_as_if_activations_had_been_read() -> None:
    layer, memory = exact(nn.Sequential(nn.Linear(20, 4))), ranges(**{"0": 20})
    x = inputs(2, 20).requires_grad_()
    with perturbed_activations(layer, 1, memory, bit_error_rate=RATE):
        read = layer(x)
        read.sum().backward()
        with torch.no_grad():
            assert torch.equal(layer(x), read)
    assert torch.equal(x.grad, layer[0].weight.sum(0).expand(2, 20))
    weights = read_reference(x.detach().numpy(), 1, 8, UNIT, blocks=64).sum(0)  # of what was read
    assert np.array_equal(layer[0].weight.grad[0].numpy(), weights)


# -- calibration ------------------------------------------------------------------------------------------------------


def test_calibration_finds_the_extremes_of_all_batches(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 3), nn.ReLU())
    with torch.no_grad():
        model[0].weight.copy_(torch.arange(40.0).reshape(10, 4))
    batches = [(torch.tensor([[1, 2]]), None), (torch.tensor([[9, 0, 3]]), None)]
    found = calibrate(model, batches)
    assert found.sites == {"1": SiteRange(0.0, 39.0, 12)}  # the indices of the embedding are no activations
    written = calibrate(model, batches, at="output", select="0")
    assert written.sites == {"0": SiteRange(0.0, 39.0, 12)}
    assert written.at == "output"
    found.save(tmp_path / "ranges.json")
    assert ActivationRanges.load(tmp_path / "ranges.json") == found
    assert model.training
    assert not model[1]._forward_pre_hooks


def test_a_percentile_cuts_the_ends() -> None:
    model = nn.Sequential(nn.Identity())
    data = [torch.cat([torch.linspace(0, 1, 9_990), torch.tensor([-100.0] * 5 + [300.0] * 5)])[:, None]]
    whole = calibrate(model, data, select="0").sites["0"]
    cut = calibrate(model, data, select="0", percentile=99.9).sites["0"]
    step = 400 / 2048
    assert (whole.low, whole.high) == (-100, 300)
    assert -step <= cut.low <= 0
    assert 1 <= cut.high <= 1 + step


def test_a_tensor_that_is_given_twice_is_one() -> None:
    attention = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    x = torch.randn(2, 5, 8)

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = attention

        def forward(self, x: Tensor) -> Tensor:
            return self.attention(x, x, x + 1)[0]

    model = Own().eval()
    found = calibrate(model, [x], select="attention")
    assert list(found.sites) == ["attention", "attention:2"]
    seen: list[Tensor] = []
    attention.register_forward_hook(lambda module, args, output: seen.extend(args))
    with torch.no_grad(), perturbed_activations(model, 1, found, bit_error_rate=RATE):
        model(x)
    query, key, value = seen
    assert query is key
    assert not torch.equal(query, x)
    assert not torch.equal(value, x + 1)


BAD = {
    "another model": (lambda: run(ranges(**{"7": 3})), "no layer '7'"),
    "larger": (lambda: run(ranges(**{"0": 19})), "layer 0: an activation of 20 elements"),
    "float": (lambda: ActivationMemory(ranges(**MLP), "bfloat16"), "cannot be stored as bfloat16"),
    "no rate": (lambda: run(ranges(**MLP), bit_error_rate=None), "either a voltage or a bit error rate"),
    "no name": (
        lambda: calibrate(mlp(), [inputs(1, 20)], select="conv*"),
        "no layer has a name like 'conv*'",
    ),
    "no data": (lambda: calibrate(mlp(), []), "is there any data"),
    "nan": (lambda: calibrate(mlp(), [torch.full((1, 20), torch.nan)]), "layer 0: activations with NaN"),
    "percentile": (lambda: calibrate(mlp(), [inputs(1, 20)], percentile=40), "above 50"),
    "at": (lambda: calibrate(mlp(), [inputs(1, 20)], at="weights"), "input or output"),
    "shape": (lambda: calibrate(mlp(), [inputs(1, 19)]), "the model fails on inputs float32 [1, 19]"),
}


def run(where: ActivationRanges, bit_error_rate: float | None = RATE) -> None:
    model = mlp()
    with perturbed_activations(model, 1, where, bit_error_rate=bit_error_rate):
        model(inputs(1, 20))


@pytest.mark.parametrize(("call", "words"), BAD.values(), ids=BAD)
def test_what_does_not_fit_is_refused_in_one_line(call, words: str) -> None:
    with pytest.raises(FaultsimError) as error:
        call()
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"format": "faultsim activation ranges 1", "at": "input", "sites": {"0": [1, 0, 3]}}',
        '{"format": "faultsim activation ranges 1", "at": "input", "sites": {"0": [0, 1e39, 3]}}',
        '{"format": "faultsim activation ranges 1", "at": "input", "sites": {"0": [0, 1, 0]}}',
        '{"format": "faultsim activation ranges 1", "at": "within", "sites": {"0": [0, 1, 1]}}',
    ],
)
def test_files_that_hold_something_else_are_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "ranges.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(FaultsimError, match=r"ranges\.json"):
        ActivationRanges.load(file)
    with pytest.raises(FaultsimError, match=r"missing\.json"):
        ActivationRanges.load(tmp_path / "missing.json")


def test_a_file_says_what_it_is(tmp_path: Path) -> None:
    ranges(**MLP).save(tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text())["format"] == "faultsim activation ranges 1"
