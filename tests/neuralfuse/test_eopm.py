"""EOPM: its gradient is the plain formulation's, and nothing but the generator learns."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from faultsim import Chip, FaultModel, FaultsimError, StoredWeights, evaluation_chips, models, prepare_qat
from faultsim.faults import TRAINING
from faultsim.inference.graphs import Graphed
from faultsim.sram import SRAM
from neuralfuse.distributed import Ranks
from neuralfuse.eopm import EOPM, training_chips
from neuralfuse.generators import NeuralFuse, UNet

RATE = 0.02


def base(dtype: torch.dtype = torch.float32) -> nn.Module:
    """A small classifier with everything that has weights or statistics; in training mode, to see what changes."""
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(4),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(32, 10),
    )
    model[1].running_var.uniform_(0.5, 2)
    return model.to(dtype)


def batch(dtype: torch.dtype = torch.float32, count: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    images = 2 * torch.rand(count, 3, 8, 8, generator=generator, dtype=dtype) - 1
    return images, torch.randint(0, 10, [count], generator=generator)


def fuse_with(dtype: torch.dtype = torch.float32) -> NeuralFuse:
    torch.manual_seed(3)
    return NeuralFuse(prepare_qat(UNet(2))).to(dtype)


def gradients(module: nn.Module) -> list[Tensor]:
    return [parameter.grad for parameter in module.parameters()]


def as_chips(seeds: Tensor) -> list[Chip]:
    return [Chip(seed % 2**64) for seed in seeds.tolist()]


def plain_loss(model, stored, fuse, images, labels, chips, faults, weight) -> tuple[Tensor, Tensor, Tensor]:
    """The formulation of the paper, word for word: each model has F(x) computed for itself, one loss, one backward."""

    def loss(chip: Chip, rate: float) -> Tensor:
        read = stored.read_chips([chip], rate, None, faults)
        weights = {f"{layer.name}.weight": w[0] for layer, w in zip(stored.layers, read, strict=True)}
        return cross_entropy(functional_call(model, weights, fuse(images)), labels)

    clean = loss(chips[0], 0.0)
    perturbed = torch.stack([loss(chip, RATE) for chip in chips]).mean()
    return clean + weight * perturbed, clean, perturbed


FAULTS = {
    "flip": FaultModel(),
    "neuralfuse_2022": FaultModel.preset("neuralfuse_2022"),
    "transient, tiled": FaultModel("transient", SRAM("tiled", capacity_bytes=4096)),
}


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize(("n_models", "in_flight"), [(1, None), (5, None), (5, 4), (2, 9)])
def test_the_gradient_is_that_of_the_plain_formulation(faults, n_models, in_flight):
    model, (images, labels), step, weight = base(torch.float64), batch(torch.float64), 7, 3.0
    stored = StoredWeights.of(model)
    ours, theirs = fuse_with(torch.float64), fuse_with(torch.float64)
    options = dict(bit_error_rate=RATE, faults=faults, n_models=n_models, weight=weight, seed=4)
    with EOPM(model, stored, **options, in_flight=in_flight) as eopm:
        assert len(eopm.copies) == min(in_flight or 1, 1 + n_models)
        losses = eopm.backward(ours, images, labels, step)
    chips = as_chips(training_chips(4, step, n_models))
    loss, clean, perturbed = plain_loss(model.eval(), stored, theirs, images, labels, chips, faults, weight)
    loss.backward()
    assert perturbed != clean
    torch.testing.assert_close(tuple(losses), (clean.detach(), perturbed.detach()), rtol=1e-13, atol=0)
    for mine, other in zip(gradients(ours), gradients(theirs), strict=True):
        assert other.abs().max() > 0
        torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-14)


def test_the_generator_runs_once_a_step():
    calls = []
    fuse, (images, labels) = fuse_with(), batch()
    fuse.register_forward_hook(lambda *_: calls.append(1))
    model = base()
    with EOPM(model, StoredWeights.of(model), bit_error_rate=RATE, n_models=4) as eopm:
        eopm.backward(fuse, images, labels, 0)
    assert len(calls) == 1
    assert fuse.generator.down[0][1].num_batches_tracked == 1


@pytest.mark.parametrize("aware", [False, True], ids=["plain", "quantization-aware"])
def test_the_base_model_stays_as_it_is(aware):
    model, (images, labels) = base(), batch()
    if aware:
        prepare_qat(model)
    model[0].eval()
    before = copy.deepcopy(model.state_dict())
    parameters = {name: id(p) for name, p in model.named_parameters()}
    modes = [module.training for module in model.modules()]
    with EOPM(model, StoredWeights.of(model), bit_error_rate=0.1, n_models=3) as eopm:
        for step in range(3):
            eopm.backward(fuse_with(), images, labels, step)
            assert gradients(model) == [None] * len(gradients(model))
    assert gradients(model) == [None] * len(gradients(model))
    assert {name: id(p) for name, p in model.named_parameters()} == parameters
    assert all(p.requires_grad for p in model.parameters())
    assert [module.training for module in model.modules()] == modes
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_the_base_model_is_given_back_after_an_error():
    model, (images, _) = base(), batch()
    own = model[0].weight
    eopm = EOPM(model, StoredWeights.of(model), bit_error_rate=RATE)
    with eopm:
        assert not own.requires_grad
        assert not model.training
    with pytest.raises(IndexError, match="out of"), eopm:
        eopm.input_gradient(images, torch.full([6], 10), 0)
    assert model[0].weight is own
    assert own.requires_grad
    assert model.training


def test_buffers_hold_one_model_whatever_n_is(monkeypatch):
    """All reads go to the same memory, and no forward pass keeps what an earlier one needed."""
    model, (images, labels) = base(), batch()
    stored = StoredWeights.of(model)
    sizes, alive = {}, []
    monkeypatch.setattr(
        StoredWeights,
        "read",
        lambda *a, read=StoredWeights.read: (alive.append([t.data_ptr() for t in a[4]]), read(*a)),
    )
    for n_models in (1, 8):
        saved, most = set(), 0

        def pack(tensor: Tensor, saved=saved):
            nonlocal most
            token = Saved(tensor, saved)
            most = max(most, len(saved))
            return token

        with EOPM(model, stored, bit_error_rate=RATE, n_models=n_models) as eopm:
            (weights,) = eopm.copies
            assert sum(buffer.numel() for buffer in weights.buffers) == stored.bytes
            with torch.autograd.graph.saved_tensors_hooks(pack, lambda token: token.tensor):
                eopm.input_gradient(images, labels, 0)
        sizes[n_models] = most
    assert sizes[1] == sizes[8] > 0
    assert [len(set(map(tuple, reads))) for reads in (alive[:2], alive[2:])] == [1, 1]
    assert len(alive) == 2 + 9


class Saved:
    """A tensor that autograd keeps, counted while it lives."""

    def __init__(self, tensor: Tensor, living: set) -> None:
        self.tensor, self.living = tensor, living
        living.add(id(self))

    def __del__(self) -> None:
        self.living.discard(id(self))


def test_the_weights_of_each_step_are_those_of_new_chips():
    model, (images, labels) = base(), batch()
    stored, seen = StoredWeights.of(model), []
    with EOPM(model, stored, bit_error_rate=RATE, n_models=3) as eopm:
        (used,) = eopm.copies
        model.register_forward_pre_hook(
            lambda *_: seen.append(tuple(torch.cat([w.flatten() for w in used.weights]).tolist()))
        )
        for step in range(4):
            eopm.input_gradient(images, labels, step)
    clean, perturbed = seen[::4], [w for i, w in enumerate(seen) if i % 4]
    assert len(set(clean)) == 1
    assert len({*clean, *perturbed}) == 1 + 12


@given(
    st.integers(0, 2**31 - 1),
    st.integers(0, 2**31 - 1),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.integers(1, 20),
)
def test_training_chips_meet_neither_each_other_nor_evaluation(seed, other, step, later, count):
    def drawn(seed: int, step: int) -> list[int]:
        return [chip.seed for chip in as_chips(training_chips(seed, step, count))]

    first = drawn(seed, step)
    assert first == drawn(seed, step)
    assert first[0] == TRAINING + (seed << 32) + step * count
    assert len(set(first)) == count
    if later != step:
        assert not set(first) & set(drawn(seed, later))
    if other != seed:
        assert not set(first) & set(drawn(other, later))
    assert drawn(seed, torch.tensor(step)) == first, "a number on the device"
    assert all(chip & TRAINING for chip in first)
    assert not any(chip.seed & TRAINING for chip in evaluation_chips(other, count))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((-1, 0, 1), "seed -1"),
        ((2**31, 0, 1), "seed 2147483648"),
        ((0, -1, 1), "step -1"),
        ((0, 2**32 // 10, 10), "2\\*\\*32"),
        ((0, 0, 0), "at least one chip"),
    ],
)
def test_no_chips_beyond_the_stream(arguments, words):
    with pytest.raises(FaultsimError, match=words):
        training_chips(*arguments)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n_models": 0}, "at least 1"),
        ({"in_flight": 0}, "in flight: at least 1"),
        ({"weight": -1.0}, "must not be negative"),
        ({"weight": float("nan")}, "must not be negative"),
        ({"precision": "int4"}, "float32 or bfloat16"),
        ({"bit_error_rate": 1.5}, "outside"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_bad_values_are_refused(options, words):
    model = base()
    with pytest.raises(FaultsimError, match=words):
        EOPM(model, StoredWeights.of(model), **{"bit_error_rate": RATE, **options})


def test_bfloat16_follows_float32():
    torch.manual_seed(0)
    model, (images, labels) = models.create("DigitsNet"), (torch.rand(4, 3, 32, 32), torch.arange(4))
    stored, found = StoredWeights.of(model), []
    for precision in ("float32", "bfloat16"):
        with EOPM(model, stored, bit_error_rate=RATE, n_models=2, precision=precision) as eopm:
            losses, gradient = eopm.input_gradient(images, labels, 0)
            assert {buffer.dtype for buffer in eopm.copies[0].buffers} == {getattr(torch, precision)}
        assert gradient.dtype == torch.float32
        found.append((losses, gradient))
    (exact, gradient), (rough, similar) = found
    torch.testing.assert_close(tuple(rough), tuple(exact), rtol=0.02, atol=0.02)
    assert torch.cosine_similarity(gradient.flatten(), similar.flatten(), dim=0) > 0.9


@pytest.mark.cuda
def test_a_step_never_waits_for_the_device():
    model = models.create("DigitsNet").cuda()
    images, labels = torch.rand(4, 3, 32, 32, device="cuda"), torch.arange(4, device="cuda")
    fuse, stored = fuse_with().cuda(), StoredWeights.of(model)
    with EOPM(model, stored, bit_error_rate=RATE, n_models=2) as eopm:
        eopm.backward(fuse, images, labels, 0)  # libraries wait when they are used first
        torch.cuda.set_sync_debug_mode("error")
        try:
            eopm.backward(fuse, images, labels, 1)
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.cuda
@pytest.mark.parametrize("replayed", [False, True], ids=["as written", "replayed"])
def test_models_side_by_side_add_up_to_the_same_gradient(replayed):
    """Steps with models on streams of their own, whose memory is taken again by the next step."""
    torch.manual_seed(0)
    device = torch.device("cuda")
    model = models.create("DigitsNet").to(device)
    images, labels = torch.rand(64, 3, 32, 32, device=device), torch.arange(64, device=device) % 10
    stored, found = StoredWeights.of(model), []
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for in_flight in (1, 3):
            with EOPM(model, stored, bit_error_rate=RATE, n_models=7, in_flight=in_flight) as eopm:

                def step(images: Tensor, number: Tensor, eopm=eopm) -> Tensor:
                    losses, gradient = eopm.input_gradient(images, labels, number)
                    return torch.cat([torch.stack(losses), gradient.flatten()])

                call = Graphed(step, device) if replayed else step
                numbers = [torch.tensor(number, device=device) for number in range(8)]
                found.append(torch.stack([call(images, number).clone() for number in numbers]))
    one, three = found
    assert len({tuple(row) for row in one[:, :2].tolist()}) == 8
    for ours, theirs in zip(three, one, strict=True):
        assert float((ours - theirs).norm()) < 1e-4 * float(theirs.norm())


@pytest.mark.parametrize(
    ("n_models", "images", "ranks"), [(1, 6, 1), (2, 6, 1), (5, 6, 2), (3, 10, 3), (5, 4, 1)]
)
def test_images_divided_among_the_models(n_models, images, ranks):
    """The mean over a model's own images stands for the mean over all; with several processes the sum is the same. Each
    image passes through one model."""
    model, (inputs, labels), weight = base(torch.float64).eval(), batch(torch.float64, images), 3.0
    stored = StoredWeights.of(model)
    options = dict(bit_error_rate=RATE, n_models=n_models, weight=weight, seed=4, divided=True)
    found, losses, passed = torch.zeros_like(inputs), torch.zeros(2, dtype=torch.float64), 0

    def count(module, args, output):
        nonlocal passed
        passed += len(args[0])

    hook = model.register_forward_hook(count)
    for rank in range(ranks):
        with EOPM(model, stored, **options, ranks=Ranks(rank, ranks)) as eopm:
            share, gradient = eopm.input_gradient(inputs, labels, 7)
            assert eopm.passes == 1
            losses, found = losses + torch.stack(share), found + gradient
    hook.remove()
    assert passed == images
    leaf = inputs.clone().requires_grad_()
    chips = as_chips(training_chips(4, 7, n_models))
    expected, parts = 0.0, []
    for index in range(1 + n_models):
        part = slice(images * index // (1 + n_models), images * (index + 1) // (1 + n_models))
        rate, chip = (0.0, chips[0]) if index == 0 else (RATE, chips[index - 1])
        read = stored.read_chips([chip], rate, None, FaultModel())
        weights = {f"{layer.name}.weight": w[0] for layer, w in zip(stored.layers, read, strict=True)}
        if len(labels[part]):
            loss = cross_entropy(functional_call(model, weights, leaf[part]), labels[part])
            expected = expected + (loss if index == 0 else weight / n_models * loss)
            parts.append(float(loss.detach()) / (1 if index == 0 else n_models))
        else:
            parts.append(0.0)
    expected.backward()
    torch.testing.assert_close(found, leaf.grad, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(losses, torch.tensor([parts[0], sum(parts[1:])], dtype=torch.float64))
