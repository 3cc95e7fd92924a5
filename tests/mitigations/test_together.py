"""Mitigations together: do the cells of each fail as it says, and does one decoder see what they leave; are costs the
sum, and is what cannot be combined refused?"""

import pytest
import torch
from torch import nn

from faultsim import Chip, FaultModel, FaultsimError, StoredWeights
from faultsim.mitigations import (
    SECDED,
    BoostedLayers,
    InPlaceCode,
    MemoryMitigation,
    Overhead,
    Parity,
    ProtectedWeights,
    RobustBits,
    Together,
)
from faultsim.mitigations.protected import into_words
from faultsim.studies.entry_labels import parse_entry


@pytest.fixture(scope="module")
def stored() -> StoredWeights:
    torch.manual_seed(0)
    return StoredWeights.of(nn.Sequential(nn.Linear(301, 40), nn.ReLU(), nn.Linear(40, 5)).eval())


def read(
    stored: StoredWeights, mitigation: MemoryMitigation, rate: float, chip: int = 3
) -> list[torch.Tensor]:
    images = ProtectedWeights(stored, mitigation).read_images([Chip(chip)], rate, None, FaultModel())
    return [image[0] for image in images]


def test_parity_sees_only_what_robust_bits_leave(stored):
    """By hand: the wrong bits of a plain read without the top ones, and the parity bits that Parity alone reads."""
    plain = read(stored, MemoryMitigation(), 0.05)
    seen = []

    class Spy(Parity):
        def decode(self, words, checks, written):
            seen.append(checks[0] ^ written.checks)
            return super().decode(words, checks, written)

    read(stored, Spy(), 0.05)
    together = read(stored, Together((Parity(), RobustBits(3))), 0.05)
    order = torch.arange(8)
    zeroed = 0
    for layer, faulty, found, wrong_checks in zip(stored.layers, plain, together, seen, strict=True):
        right, wrong = layer.values, (faulty ^ layer.values) & 31
        ones = sum((wrong >> bit & 1) for bit in range(5)).reshape(-1)
        checks = (wrong_checks.unsqueeze(-1).int() >> order & 1).reshape(-1)[: ones.numel()]
        noticed = ((ones ^ checks) & 1).bool().reshape(right.shape)
        assert torch.equal(found, torch.where(noticed, 0, right ^ wrong))
        zeroed += int(noticed.sum())
    assert zeroed > 1000


def test_a_code_and_boosted_layers(stored):
    """The boosted layer has no fault at Vmin, its check bits neither; the other is SECDED's."""
    boosted = BoostedLayers(("0.*",), 1.0)
    for pair in ((SECDED("zero"), boosted), (boosted, SECDED("zero"))):
        first, second = read(stored, Together(pair), 0.03)
        assert torch.equal(first, stored.layers[0].values)
        alone = read(stored, SECDED("zero"), 0.03)
        assert torch.equal(second, alone[1])
        assert not torch.equal(alone[0], first)


def test_the_kernel_and_python_read_the_same(stored):
    """A decoder of the user's own, which does what the kernel does, with cells of three voltages."""

    class Own(SECDED):
        def decode(self, words, checks, written):
            return super().decode(words, checks, written)

    others = (BoostedLayers(("2.*",), 0.9), RobustBits(1))
    for rate in (0.002, 0.04):
        ours = read(stored, Together((SECDED("reread"), *others)), rate)
        theirs = read(stored, Together((Own("reread"), *others)), rate)
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_in_place_and_robust_bits(stored):
    """With robust signs and bits 6, all that can be wrong is in six bits; a single error is corrected."""
    found = read(stored, Together((InPlaceCode(), RobustBits(8))), 0.2)
    clean = read(stored, InPlaceCode(), 0.0)
    assert all(torch.equal(a, b) for a, b in zip(found, clean, strict=True))


def test_costs_are_the_sum(stored):
    pair = Together((Parity("weight"), RobustBits(2, overhead=Overhead(0, 0.25, 0.5, "ours"))))
    assert (pair.overhead.storage, pair.overhead.access, pair.overhead.area) == (1 / 8, 3 / 8, 5 / 8)
    assert pair.label == "parity:weight+robust-bits:2"
    unknown = Together((SECDED(), BoostedLayers(("0.*",))))
    assert unknown.overhead.area is None
    assert "boost circuit" in unknown.overhead.uncounted
    int4 = StoredWeights.of(nn.Linear(8, 8), format="int4").format
    assert pair.find_overhead(int4).storage == 16 / 64
    assert pair.with_energy(0.5).find_overhead(int4).access == 7 / 8


def test_labels_are_joined():
    found = parse_entry("secded:zero+boosted:0.*+2.*@0.95+robust-bits:1")
    assert found.mitigations == (SECDED("zero"), BoostedLayers(("0.*", "2.*"), 0.95), RobustBits(1))
    assert parse_entry(found.label) == found


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (
            "secded:zero+parity",
            "secded:zero and parity:weight cannot be combined: both say what a word becomes",
        ),
        ("robust-bits:2+boosted", "'boosted' cannot be joined by +"),
        ("secded+robust-bits:two", "robust-bits:two: it can be robust-bits:1 to 8"),
    ],
)
def test_what_cannot_be_combined(label, message):
    with pytest.raises(FaultsimError) as error:
        parse_entry(label)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_words_of_two_are_those_of_one(stored):
    """Nothing is written but what the decoder writes."""
    pair = ProtectedWeights(stored, Together((RobustBits(1), SECDED())))
    for written, layer in zip(pair.written, stored.layers, strict=True):
        assert torch.equal(written.weights, into_words(layer.image))
        assert written.checks is not None
    with pytest.raises(FaultsimError, match="two mitigations or more go together, not 1"):
        Together((SECDED(),))
