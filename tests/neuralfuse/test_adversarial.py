"""Worst-case bit flips: the K best of all bits, by brute force; and a generator trained against them."""

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from faultsim import FaultsimError, StoredWeights
from faultsim.stored import StoredLayer
from neuralfuse.adversarial import worst_flips


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
    masks = worst_flips(layers, gradients, flips)
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

    (found,) = worst_flips([layer], [slopes], 3)
    assert loss(found.numpy()) == loss(masks).max()


def test_bits_that_would_help_are_left_alone():
    layer = StoredLayer(
        ("w",), (nn.Linear(1, 1),), torch.tensor([127, -128, 3]).char(), torch.tensor(0.1), -1
    )
    (mask,) = worst_flips([layer], [torch.tensor([1.0, -1.0, 0.0])], 24)
    assert mask.tolist() == [0, 0, 0]  # the largest and the smallest value, and one that doesn't matter


@pytest.mark.parametrize("flips", [0, -1, 25])
def test_there_are_only_so_many_bits(flips):
    stored = StoredWeights.of(nn.Linear(3, 1))
    with pytest.raises(FaultsimError, match="24 bits"):
        worst_flips(stored.layers, [torch.zeros(1, 3)], flips)
