"""A model that computes with faulty weights, and gets its own back."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from faultsim import (
    SRAM,
    Chip,
    FaultKind,
    FaultMap,
    FaultModel,
    FaultsimError,
    MeasuredChip,
    Placement,
    StoredWeights,
    corrupt,
    find_failing_cells,
    perturb,
    perturbed,
    prepare_qat,
)

CHIP = Chip(7)
RATE = 0.03


class Shared(nn.Module):
    """Input and output embedding are one matrix, as in language models."""

    def __init__(self) -> None:
        super().__init__()
        self.read = nn.Embedding(12, 6)
        self.inner = nn.Linear(6, 6)
        self.write = nn.Linear(6, 12, bias=False)
        self.write.weight = self.read.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.write(self.inner(self.read(x)).relu())


class Scaled(nn.Linear):
    """A user's own kind of layer: a subclass."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


class Own(nn.Module):
    """A user's own module: free parameters, layers in a list, a recurrent part."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.randn(6))
        self.layers = nn.ModuleList([Scaled(6, 6), nn.Linear(6, 6)])
        self.recurrent = nn.GRU(6, 6, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x * self.gain).relu()
        return self.recurrent(x)[0]


def conv() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5)
    ).eval()


def normed() -> nn.Module:
    return nn.Sequential(parametrizations.weight_norm(nn.Linear(6, 6)), nn.ReLU(), nn.Linear(6, 4))


def images() -> torch.Tensor:
    return torch.randn(4, 3, 8, 8)


def words() -> torch.Tensor:
    return torch.randint(0, 12, (4, 3))


def vectors() -> torch.Tensor:
    return torch.randn(4, 6)


MODELS = {
    "conv": (conv, images),
    "conv, quantization-aware": (lambda: prepare_qat(conv()), images),
    "conv, aware by channel": (lambda: prepare_qat(conv(), per_channel=True), images),
    "conv, channels last": (lambda: conv().to(memory_format=torch.channels_last), images),
    "shared": (Shared, words),
    "shared, quantization-aware": (lambda: prepare_qat(Shared()), words),
    "weight norm": (normed, vectors),
    "weight norm, quantization-aware": (lambda: prepare_qat(normed()), vectors),
    "orthogonal": (lambda: parametrizations.orthogonal(nn.Linear(6, 6)), vectors),
    # torch's GRU rounds otherwise where weights need a gradient, as those of a copy do
    "own": (lambda: Own().requires_grad_(False), lambda: torch.randn(2, 3, 6)),
    "one layer": (lambda: nn.Linear(6, 4), vectors),
    "bfloat16": (lambda: conv().bfloat16(), lambda: images().bfloat16()),
    "float64": (lambda: conv().double(), lambda: images().double()),
    "float32 and bfloat16": (
        lambda: nn.Sequential(nn.Linear(6, 6), _Cast(torch.bfloat16), nn.Linear(6, 4).bfloat16()),
        vectors,
    ),
}


class _Cast(nn.Module):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.to(self.dtype)


@pytest.fixture(params=MODELS)
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, torch.Tensor]:
    """A model and an input for it."""
    torch.manual_seed(0)
    make, inputs = MODELS[request.param]
    return make(), inputs()


class State:
    """Everything a model is: its parameters, the very objects, and their bits."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.objects = [*model.named_parameters(remove_duplicate=False), *model.named_buffers()]
        self.bits = {name: value.clone() for name, value in model.state_dict().items()}
        self.classes = [type(module) for module in model.modules()]
        self.grads = [p.requires_grad for p in model.parameters()]

    def check(self) -> None:
        now = [*self.model.named_parameters(remove_duplicate=False), *self.model.named_buffers()]
        assert [name for name, _ in now] == [name for name, _ in self.objects]
        assert all(a is b for (_, a), (_, b) in zip(now, self.objects, strict=True))
        state = self.model.state_dict()
        assert list(state) == list(self.bits)
        assert all(torch.equal(state[name], value) for name, value in self.bits.items())
        assert [type(module) for module in self.model.modules()] == self.classes
        assert [p.requires_grad for p in self.model.parameters()] == self.grads


# -- inside ------------------------------------------------------------------------------------------------------


def test_copy_and_context_answer_alike(case):
    model, x = case
    clean = model(x)
    state = State(model)
    copied = perturb(model, CHIP, bit_error_rate=RATE)
    state.check()
    with perturbed(model, CHIP, bit_error_rate=RATE) as same:
        assert same is model
        answer = model(x)
    state.check()
    assert torch.equal(copied(x), answer)
    assert not torch.equal(answer, clean)
    assert torch.equal(model(x), clean)
    assert not {id(p) for p in copied.parameters()} & {id(p) for p in model.parameters()}


def test_without_faults_it_is_the_quantized_model(case):
    model, x = case
    stored = StoredWeights.of(model)
    copied = perturb(model, CHIP, bit_error_rate=0.0)
    for layer in stored.layers:
        held = (layer.values.float() * layer.scale).to(layer.dtype)
        for name in layer.tensors:
            assert torch.equal(copied.get_parameter(name), held)
    with perturbed(model, CHIP, voltage=1.0):
        assert torch.equal(model(x), copied(x))


@pytest.mark.parametrize("per_channel", [False, True])
def test_quantization_aware_models_compute_with_the_same_numbers_as_their_memory(per_channel):
    torch.manual_seed(0)
    model, x = prepare_qat(conv(), per_channel), images()
    with perturbed(model, CHIP, bit_error_rate=0.0, per_channel=per_channel):
        assert torch.equal(
            model[0].weight, perturb(model, CHIP, bit_error_rate=0, per_channel=per_channel)[0].weight
        )
        inside = model(x)
    torch.testing.assert_close(inside, model(x), rtol=1e-5, atol=1e-6)


def test_weights_are_those_of_corrupt(case):
    model, _ = case
    faults = FaultModel(FaultKind.STUCK_AT_RANDOM, SRAM(Placement.TILED))
    stored = StoredWeights.of(model)
    copied = perturb(model, CHIP, bit_error_rate=RATE, faults=faults)
    for layer, base in zip(stored.layers, stored.bases(faults), strict=True):
        values = corrupt(layer.values, CHIP, bit_error_rate=RATE, faults=faults, base=base)
        wanted = (values.float() * layer.scale).to(layer.dtype)
        assert torch.equal(copied.get_parameter(layer.tensors[0]), wanted)


def test_weights_follow_each_other_in_memory():
    """Layers begin on a word of 8 bytes, in the order of the modules; shared weights are stored once."""
    stored = StoredWeights.of(Shared())
    assert [(layer.names, layer.values.numel()) for layer in stored.layers] == [
        (("read", "write"), 72),
        (("inner",), 36),
    ]
    assert stored.bytes == 108
    assert stored.bases(FaultModel()) == [0, 72]
    odd = StoredWeights.of(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2)))
    assert odd.bases(FaultModel()) == [0, 16]
    assert odd.bases(FaultModel(memory=SRAM(Placement.TILED_PER_LAYER))) == [0, 0]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (FaultKind.STUCK_AT_1, [[-1, -1, -1], [-1, -1, -1]]),
        (FaultKind.STUCK_AT_0, [[0, 0, 0], [0, 0, 0]]),
        (FaultKind.FLIP, [[-128, 126, -1], [0, -3, 99]]),  # ~q = -q - 1
    ],
)
@pytest.mark.parametrize("qat", [False, True])
def test_hand_computed(kind, expected, qat):
    """Every cell fails: each weight is known without drawing anything."""
    layer = nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[127.0, -127.0, 0.0], [-1.0, 2.0, -100.0]]) / 4)
    if qat:
        prepare_qat(layer)
    x = torch.tensor([[1.0, 2.0, 4.0]])
    with perturbed(layer, CHIP, bit_error_rate=1.0, faults=FaultModel(kind)):
        assert torch.equal(layer.weight * 4, torch.tensor(expected).float())
        answer = layer(x)
    rows = [sum(q * w for q, w in zip(row, (1, 2, 4), strict=True)) / 4 for row in expected]
    assert answer.tolist() == [rows]
    assert torch.equal(
        perturb(layer, CHIP, bit_error_rate=1, faults=FaultModel(kind)).weight * 4,
        torch.tensor(expected).float(),
    )


def test_gradients_reach_the_input_and_not_the_weights(case):
    model, x = case
    if not x.is_floating_point():
        x = torch.randn(4, 6, dtype=next(model.parameters()).dtype)
        model = model.inner  # words have no gradient
    x.requires_grad_()
    state = State(model)
    with perturbed(model, CHIP, bit_error_rate=RATE):
        model(x).float().square().sum().backward()
    inside = x.grad.clone()
    state.check()
    x.grad = None
    perturb(model, CHIP, bit_error_rate=RATE)(x).float().square().sum().backward()
    torch.testing.assert_close(inside, x.grad, rtol=1e-4, atol=1e-6)  # memory formats may differ
    assert inside.abs().sum() > 0


def test_other_weights_of_a_transient_chip_at_each_access():
    model = nn.Linear(50, 50)
    faults = FaultModel(FaultKind.TRANSIENT)
    reads = [perturb(model, CHIP, bit_error_rate=0.1, faults=faults, access=i).weight for i in (0, 1, 1)]
    assert not torch.equal(reads[0], reads[1])
    assert torch.equal(reads[1], reads[2])


def test_measured_chips_read_through_their_map():
    torch.manual_seed(0)
    model, x = conv(), images()
    arrays = -(-StoredWeights.of(model).bytes // 4096)
    measured = MeasuredChip(find_failing_cells(CHIP, arrays, 0.01))
    faults = FaultModel()
    with perturbed(model, measured, voltage=0.83, faults=faults):
        through_map = model(x)
    with perturbed(model, CHIP, voltage=0.83, faults=faults):
        assert torch.equal(through_map, model(x))
    with (
        pytest.raises(FaultsimError, match="needs a voltage"),
        perturbed(model, measured, bit_error_rate=0.01),
    ):
        pass
    small = MeasuredChip(find_failing_cells(CHIP, 1, 0.01))
    big = nn.Linear(100, 100)
    with pytest.raises(FaultsimError, match="covers 4,096 bytes"):
        perturb(big, small, voltage=0.9)
    assert isinstance(measured.fault_map, FaultMap)


# -- afterwards --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_weights_are_back_whatever_happens(case, error):
    model, x = case
    clean = model(x)
    state = State(model)

    def fails() -> None:
        with perturbed(model, CHIP, bit_error_rate=RATE):
            model(x)
            raise error

    with pytest.raises(error):
        fails()
    state.check()
    assert torch.equal(model(x), clean)


def test_nested_use(case):
    model, x = case
    clean = model(x)
    state = State(model)
    stored = StoredWeights.of(model)
    answers = {}
    for seed in (1, 2):
        with perturbed(model, Chip(seed), bit_error_rate=RATE):
            answers[seed] = model(x)
    with perturbed(model, Chip(1), bit_error_rate=RATE, stored=stored):
        with perturbed(model, Chip(2), bit_error_rate=RATE, stored=stored):
            assert torch.equal(model(x), answers[2])
        assert torch.equal(model(x), answers[1])
    state.check()
    assert torch.equal(model(x), clean)


def test_writing_to_the_weights_inside_does_no_harm(case):
    model, x = case
    clean = model(x)
    layer = model.get_submodule(StoredWeights.of(model).layers[0].name)
    with torch.no_grad(), perturbed(model, CHIP, bit_error_rate=RATE):
        layer.weight.fill_(3)
    assert torch.equal(model(x), clean)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("qat", [False, True])
def test_compiled_models(backend, qat):
    torch.manual_seed(0)
    torch._dynamo.reset()
    plain, x = conv(), images()
    if qat:
        prepare_qat(plain)
    compiled = torch.compile(plain, backend=backend)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), plain(x))
        for seed in range(3):
            with perturbed(compiled, Chip(seed), bit_error_rate=RATE):
                inside = compiled(x)
            with perturbed(plain, Chip(seed), bit_error_rate=RATE):
                torch.testing.assert_close(inside, plain(x))
            assert not torch.allclose(inside, plain(x))
        torch.testing.assert_close(compiled(x), plain(x))


def test_numpy_arrays_and_plain_seeds():
    weights = np.random.default_rng(0).integers(-127, 128, (30, 40), np.int8)
    wanted = corrupt(torch.from_numpy(weights), CHIP, bit_error_rate=RATE).numpy()
    for given in (weights, np.asfortranarray(weights), np.repeat(weights, 2, 1)[:, ::2]):
        read = corrupt(given, np.int64(7), bit_error_rate=RATE)
        assert isinstance(read, np.ndarray)
        assert read.dtype == np.int8
        assert np.array_equal(read, wanted)
        assert np.array_equal(given, weights)
    transient = FaultModel(FaultKind.TRANSIENT)
    reads = [corrupt(weights, 7, bit_error_rate=0.1, faults=transient, access=np.uint8(i)) for i in (0, 1, 1)]
    assert not np.array_equal(reads[0], reads[1])
    assert np.array_equal(reads[1], reads[2])
    shifted = corrupt(weights, 7, bit_error_rate=RATE, base=8)
    assert np.array_equal(shifted.ravel()[:-8], (wanted ^ weights).ravel()[8:] ^ weights.ravel()[:-8])


# -- bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("use", [perturb, lambda *a, **k: perturbed(*a, **k).__enter__()])
@pytest.mark.parametrize(
    ("where", "complaint"),
    [
        ({}, "either a voltage or a bit error rate"),
        ({"voltage": 0.9, "bit_error_rate": 0.1}, "either a voltage or a bit error rate"),
        ({"bit_error_rate": 1.5}, "outside \\[0, 1\\]"),
        ({"bit_error_rate": -0.1}, "outside \\[0, 1\\]"),
        ({"bit_error_rate": float("nan")}, "outside \\[0, 1\\]"),
        ({"bit_error_rate": "much"}, "not a number"),
        ({"voltage": 0.1}, "outside the curve '14nm'"),
        ({"voltage": float("nan")}, "outside the curve '14nm'"),
    ],
)
def test_bad_operating_points(use, where, complaint):
    model = nn.Linear(3, 3)
    state = State(model)
    with pytest.raises(FaultsimError, match=complaint):
        use(model, CHIP, **where)
    state.check()


@pytest.mark.parametrize(
    "model", [nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3)), nn.Module(), nn.LayerNorm([3, 3])]
)
def test_models_without_weights_are_refused(model):
    for use in (perturb, lambda *a, **k: perturbed(*a, **k).__enter__()):
        with pytest.raises(FaultsimError, match="no weights to store"):
            use(model, CHIP, bit_error_rate=0.1)


def test_the_model_can_be_copied_and_saved_inside():
    """Whoever saves a model inside gets what the chip reads."""
    model = prepare_qat(conv())
    with perturbed(model, CHIP, bit_error_rate=RATE):
        copied = copy.deepcopy(model)
        inside = model[0].weight.clone()
    assert torch.equal(copied[0].weight, inside)
