"""Worst-case bit flips: the K best of all bits, by brute force; and a generator trained against them."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from faultsim import FaultsimError, StoredWeights, bundled, load_weights, models
from faultsim.data import load
from faultsim.data.dataset import normalize
from faultsim.quantization import dequantize
from faultsim.stored import StoredLayer
from neuralfuse.adversarial import Adversarial, find_worst_flips
from neuralfuse.distributed import Ranks
from neuralfuse.eopm import EOPM
from neuralfuse.generators import NeuralFuse, UNet


def gains(layers: list[StoredLayer], gradients: list[Tensor]) -> list[np.ndarray]:
    """What each bit of each weight adds to the loss, [*shape, 8] a layer: written out in integers, bit by bit."""
    found = []
    for layer, gradient in zip(layers, gradients, strict=True):
        scale = layer.scale if layer.axis < 0 else layer.scale.view(-1, *[1] * (layer.values.dim() - 1))
        slope = (gradient * scale).numpy()[..., None]
        stored = layer.values.numpy()[..., None]
        flipped = (stored.view(np.uint8) ^ (1 << np.arange(8)).astype(np.uint8)).view(np.int8)
        found.append(slope * (flipped.astype(np.int64) - stored).astype(np.float32))
    return found


def taken(masks: list[Tensor]) -> list[np.ndarray]:
    """Which bits the masks invert, bool [*shape, 8] a layer."""
    return [
        np.unpackbits(mask.numpy().view(np.uint8)[..., None], axis=-1, bitorder="little").astype(bool)
        for mask in masks
    ]


@st.composite
def attacks(draw) -> tuple[list[StoredLayer], list[Tensor], int]:
    """A few tiny layers, one scale or one for each channel, gradients with zeros and equal values, and K."""
    layers, gradients = [], []
    for number in range(draw(st.integers(1, 3))):
        shape = (draw(st.integers(1, 3)), draw(st.integers(1, 4)))
        values = draw(st.lists(st.integers(-128, 127), min_size=shape[0] * shape[1], max_size=12))
        values = torch.tensor(values[: shape[0] * shape[1]], dtype=torch.int8).view(shape)
        axis = draw(st.sampled_from([-1, 0]))
        scale = torch.tensor(draw(st.floats(2**-10, 1, width=32)))
        scale = scale if axis < 0 else scale * torch.arange(1, shape[0] + 1)
        numbers = st.integers(-3, 3) | st.floats(-8, 8).map(lambda slope: round(slope, 3))
        slopes = draw(st.lists(numbers, min_size=values.numel(), max_size=values.numel()))
        layers.append(StoredLayer((str(number),), (nn.Linear(1, 1),), values, scale, axis))
        gradients.append(torch.tensor(slopes, dtype=torch.float32).view(shape))
    return layers, gradients, draw(st.integers(1, 8 * sum(layer.values.numel() for layer in layers)))


@given(attacks())
def test_the_flips_are_the_best_of_all_bits(attack):
    layers, gradients, flips = attack
    masks = find_worst_flips(layers, gradients, flips)
    assert [(mask.dtype, mask.shape) for mask in masks] == [(torch.int8, g.shape) for g in gradients]
    every = gains(layers, gradients)
    chosen = np.concatenate([gain[bits] for gain, bits in zip(every, taken(masks), strict=True)])
    best = np.sort(np.concatenate([gain.ravel() for gain in every]))[::-1][:flips]
    np.testing.assert_array_equal(np.sort(chosen)[::-1], best[best > 0])


@given(st.integers(-128, 127), st.integers(-128, 127), st.integers(-3, 3), st.integers(-3, 3))
def test_no_other_three_bits_are_worse(first, second, up, down):
    """Where the loss is linear, what was chosen is the worst of all 697 sets of at most 3 bits of 2 weights."""
    layer = StoredLayer(
        ("w",), (nn.Linear(1, 1),), torch.tensor([first, second]).char(), torch.tensor(1.0), -1
    )
    slopes = torch.tensor([up, down]).float()

    masks = [sum(1 << bit for bit in bits) for count in range(4) for bits in combinations(range(16), count)]
    masks = np.array(masks, dtype="<u2").view(np.int8).reshape(-1, 2)  # a byte a weight
    assert len(masks) == 697

    def loss(mask: np.ndarray) -> np.ndarray:
        return (layer.values.numpy() ^ mask).astype(float) @ slopes.numpy()

    (found,) = find_worst_flips([layer], [slopes], 3)
    assert loss(found.numpy()) == loss(masks).max()


def test_bits_that_would_help_are_left_alone():
    layer = StoredLayer(
        ("w",), (nn.Linear(1, 1),), torch.tensor([127, -128, 3]).char(), torch.tensor(0.1), -1
    )
    (mask,) = find_worst_flips([layer], [torch.tensor([1.0, -1.0, 0.0])], 24)
    assert mask.tolist() == [0, 0, 0]  # the largest and the smallest value, and one that doesn't matter


@pytest.mark.parametrize("flips", [0, -1, 25])
def test_there_are_only_so_many_bits(flips):
    stored = StoredWeights.of(nn.Linear(3, 1))
    with pytest.raises(FaultsimError, match="24 bits"):
        find_worst_flips(stored.layers, [torch.zeros(1, 3)], flips)


@pytest.fixture
def base() -> tuple[nn.Module, StoredWeights]:
    """The shipped model and its stored weights."""
    model = models.create(bundled.MODEL)
    stored, _ = load_weights(model, bundled.WEIGHTS)
    return model, stored


def batch(count: int) -> tuple[Tensor, Tensor]:
    data = load("digits", "train")
    return normalize(data.images[:count]), data.labels[:count]


def small_fuse() -> NeuralFuse:
    torch.manual_seed(3)
    return NeuralFuse(UNet(2))


def attacked(model, stored, images, labels, flips: int) -> StoredWeights:
    """The weights with the worst flips, found by functional calls and another autograd graph."""
    weights = {
        f"{layer.name}.weight": dequantize(layer.values, layer.scale).requires_grad_()
        for layer in stored.layers
    }
    loss = cross_entropy(functional_call(model, weights, images), labels)
    masks = find_worst_flips(stored.layers, torch.autograd.grad(loss, list(weights.values())), flips)
    return StoredWeights(
        replace(layer, values=layer.values ^ mask) for layer, mask in zip(stored.layers, masks, strict=True)
    )


def test_a_step_is_the_plain_formulation(base):
    """The clean loss, and lambda times the loss with the worst flips at this very F(x): losses and gradients."""
    (model, stored), (images, labels) = base, batch(12)
    ours, theirs = small_fuse(), small_fuse()
    with Adversarial(model, stored, flips=50, weight=3.0) as adversarial:
        losses = adversarial.backward(ours, images, labels, 0)
    model.eval()
    worst = attacked(model, stored, theirs(images).detach(), labels, 50)
    fused, found = theirs(images), []
    for weights in (stored, worst):
        with weights.replaced([dequantize(layer.values, layer.scale) for layer in weights.layers]):
            found.append(cross_entropy(model(fused), labels))
    (found[0] + 3.0 * found[1]).backward()
    torch.testing.assert_close(list(losses), [loss.detach() for loss in found], rtol=1e-5, atol=0)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(
            mine.grad, other.grad, rtol=1e-3, atol=1e-4 * float(other.grad.abs().max())
        )


def test_worst_flips_are_far_worse_than_random_ones(base):
    """Ten of half a million bits, chosen, cost more than ten drawn at random would in 20 tries; more cost more."""
    (model, stored), (images, labels) = base, batch(64)
    worst = []
    for flips in (1, 10, 100):
        with Adversarial(model, stored, flips=flips) as adversarial:
            losses = adversarial.input_gradient(images, labels, 0)[0]
            worst.append(float(losses.perturbed))
    assert float(losses.clean) < worst[0] < worst[1] < worst[2]
    rate = 10 / (8 * stored.bytes)
    with EOPM(model, stored, bit_error_rate=rate, n_models=20) as random:
        drawn = random.input_gradient(images, labels, 0)[0].perturbed
    assert worst[1] > 10 * float(drawn)


def test_the_base_model_stays_as_it_is(base):
    (model, stored), (images, labels) = base, batch(8)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    values = [layer.values.clone() for layer in stored.layers]
    own = [id(parameter) for parameter in model.parameters()]
    with Adversarial(model, stored, flips=1000) as adversarial:
        for step in range(2):
            adversarial.backward(small_fuse(), images, labels, step)
            assert not any(w.requires_grad or w.grad is not None for w in adversarial.copies[0].weights)
    assert [id(parameter) for parameter in model.parameters()] == own
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    assert all(torch.equal(layer.values, v) for layer, v in zip(stored.layers, values, strict=True))
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


class Share:
    """One of two processes that share a step, run one after the other: sums are what the others left here."""

    def __init__(self, rank: int, log: list[list[Tensor]]) -> None:
        self.ranks, self.log, self.calls = Ranks(rank, 2), log, 0
        self.pieces = self.ranks.pieces

    def total(self, tensors: list[Tensor]) -> list[Tensor]:
        self.log.append([tensor.clone() for tensor in tensors])
        return self.log[-1]


def test_processes_share_the_images_and_find_the_same_flips(base, monkeypatch):
    """Two halves: the sum of the shares of the weights' gradients is what one process finds, and so is F(x)'s."""
    (model, stored), (images, labels) = base, batch(10)
    with Adversarial(model, stored, flips=100) as alone:
        whole, gradient = alone.input_gradient(images, labels, 0)
    shares = []
    for rank in (0, 1):
        with Adversarial(model, stored, flips=100, ranks=Share(rank, shares)) as part:
            part.input_gradient(images, labels, 0)
    summed = [sum(both) for both in zip(*shares, strict=True)]
    monkeypatch.setattr(Share, "total", lambda self, tensors: summed)
    found = []
    for rank in (0, 1):
        with Adversarial(model, stored, flips=100, ranks=Share(rank, [])) as part:
            found.append(part.input_gradient(images, labels, 0))
    for part in (0, 1):
        torch.testing.assert_close(found[0][0][part] + found[1][0][part], whole[part], rtol=1e-5, atol=0)
    torch.testing.assert_close(
        found[0][1] + found[1][1], gradient, rtol=1e-3, atol=1e-5 * float(gradient.abs().max())
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"flips": 0}, "0 bit flips"),
        ({"flips": 8 * 62_896 + 1}, "503,168 bits"),
        ({"flips": 1, "weight": -1.0}, "must not be negative"),
        ({"flips": 1, "precision": "int4"}, "float32 or bfloat16"),
    ],
)
def test_bad_values_are_refused(base, options, words):
    with pytest.raises(FaultsimError, match=words):
        Adversarial(*base, **options)


def test_bfloat16_follows_float32(base):
    (model, stored), (images, labels) = base, batch(16)
    found = []
    for precision in ("float32", "bfloat16"):
        with Adversarial(model, stored, flips=20, precision=precision) as adversarial:
            losses, _ = adversarial.input_gradient(images, labels, 0)
            found.append([float(loss) for loss in losses])
    assert found[1] == pytest.approx(found[0], rel=0.2, abs=0.05)


def test_a_generator_learns_to_withstand_the_worst_flips(base, threads):
    """On one batch, which it may learn by heart: the loss with the three worst flips, new at each step, falls to a
    fifth in 40 steps."""
    threads(1)
    (model, stored), (images, labels) = base, batch(32)
    torch.manual_seed(1)
    fuse = NeuralFuse(UNet(2))
    optimizer, losses = torch.optim.Adam(fuse.parameters(), lr=1e-2), []
    with Adversarial(model, stored, flips=3) as adversarial:
        for step in range(40):
            optimizer.zero_grad()
            losses.append(float(adversarial.backward(fuse, images, labels, step).perturbed))
            optimizer.step()
    assert sum(losses[-10:]) < sum(losses[:10]) / 5


@pytest.mark.cuda
def test_a_step_never_waits_for_the_device():
    model = models.create("DigitsNet").cuda()
    images, labels = torch.rand(4, 3, 32, 32, device="cuda"), torch.arange(4, device="cuda")
    fuse = small_fuse().cuda()
    with Adversarial(model, StoredWeights.of(model), flips=100) as adversarial:
        adversarial.backward(fuse, images, labels, 0)  # libraries wait when they are used first
        torch.cuda.set_sync_debug_mode("error")
        try:
            adversarial.backward(fuse, images, labels, 1)
        finally:
            torch.cuda.set_sync_debug_mode("default")
