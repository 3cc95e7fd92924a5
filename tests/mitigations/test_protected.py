"""A model in a protected memory: where check bits lie, which faults they have, what domains do, and how many words stay
wrong."""

import numpy as np
import pytest
import torch
from scipy.stats import binom
from torch import nn

import faultsim
from faultsim import Chip, FaultModel, FaultsimError, StoredWeights
from faultsim.kernel import reference
from faultsim.mitigations import (
    SECDED,
    BitMasking,
    BoostedLayers,
    InPlaceCode,
    MemoryMitigation,
    Overhead,
    Parity,
    ProtectedWeights,
    RobustBits,
    WordMasking,
)
from faultsim.mitigations.protected import CHECK_BASE, into_words
from faultsim.sram import BLOCK_BYTES, SRAM

ALARM = 1e-6
"""False-alarm rate of each statistical test."""


def model(inputs: int = 37, outputs: int = 11) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(inputs, outputs), nn.ReLU(), nn.Linear(outputs, 5)).eval()


MEMORIES = {
    "unlimited": FaultModel(),
    "stuck": FaultModel("stuck_at_random"),
    "transient": FaultModel("transient"),
    "tiled": FaultModel(memory=SRAM("tiled", 4096)),
    "per_layer": FaultModel("stuck_at_random", SRAM("tiled_per_layer", 4096)),
    "neuralfuse_2022": FaultModel.preset("neuralfuse_2022"),
}


def check_faults(faults: FaultModel, chip: int, rate: float, base: int, words: int, access: int):
    """Fail and value of check bytes, from the reference's physical cells and its address map."""
    layout = faults.memory.address_map
    where = dict(blocks=layout.blocks, word=layout.word, repeat=layout.repeat)
    at = reference.locate_weights(8 * words, base, **where)[::8] // 8
    size = int(at.max()) + 1
    kind, ones = {
        "flip": ("flip", 0.5),
        "stuck_at_random": ("stuck", 0.5),
        "transient": ("transient", 0.5),
    }[faults.kind]
    fail, value = reference.fault_mask(size, chip, rate, kind, ones, access, base=CHECK_BASE)
    return kind, fail[at], value[at]


@pytest.mark.parametrize("name", MEMORIES)
def test_check_bits_fail_like_all_others(name):
    """The kernel's check bytes are the reference's, read from arrays that hold no weights."""
    faults, access = MEMORIES[name], 3 if name == "transient" else 0
    seen = []

    class Spy(SECDED):
        def decode(self, read, checks, written):
            seen.append((checks.clone(), written.checks))
            return super().decode(read, checks, written)

    stored = StoredWeights.of(model(300, 40))
    ProtectedWeights(stored, Spy()).read_images([Chip(5), Chip(6)], 0.03, None, faults, access)
    for (checks, right), base in zip(seen, stored.bases(faults), strict=True):
        for chip, found in zip((5, 6), checks, strict=True):
            kind, fail, value = check_faults(faults, chip, 0.03, base, len(right), access)
            expected = reference.read_word(kind, right.numpy().view(np.int8), fail, value)
            assert np.array_equal(found.numpy().view(np.int8), expected)
    assert any(bool((checks != right).any()) for checks, right in seen)


def test_check_bits_of_one_chip_are_independent_of_its_weights():
    assert CHECK_BASE % BLOCK_BYTES == 0
    cells = torch.zeros(4096, dtype=torch.int8)
    weights, checks = (faultsim.corrupt(cells, 3, bit_error_rate=0.1, base=at) for at in (0, CHECK_BASE))
    assert not torch.equal(weights, checks)


def test_a_mitigation_that_does_nothing_is_the_plain_memory():
    stored = StoredWeights.of(model(), per_channel=True)
    for faults in MEMORIES.values():
        plain = stored.read_chips([Chip(1), Chip(2)], 0.05, None, faults)
        found = ProtectedWeights(stored, MemoryMitigation()).read_chips(
            [Chip(1), Chip(2)], 0.05, None, faults
        )
        assert all(torch.equal(a, b) for a, b in zip(plain, found, strict=True))


def count_words(rate: float, words: int = 200_000):
    """Words with 0, 1, 2 and 3 or more wrong cells of 72, of a chip."""
    data = torch.zeros(words, 8, dtype=torch.int8)
    layer = nn.Linear(8, words, bias=False)
    stored = StoredWeights.of(layer)
    wrong = []

    class Count(SECDED):
        def decode(self, read, checks, written):
            bits = torch.cat(
                [(read ^ written.weights).view(torch.uint8), (checks ^ written.checks)[..., None]], -1
            )
            wrong.append(sum((bits >> k & 1).sum(-1, dtype=torch.int64) for k in range(8))[0])
            return super().decode(read, checks, written)

    protected = ProtectedWeights(stored, Count("reread"))
    flagged = protected.measure_flagged([Chip(11)], rate, None, FaultModel())[0]
    assert data.shape[0] == len(wrong[0])
    return np.bincount(wrong[0].clamp(max=3).numpy(), minlength=4), flagged


def test_words_have_the_binomial_numbers_of_wrong_cells():
    """At 1 %: 0.48499, 0.35272, 0.12648 and 0.03581 of the words; each within its exact interval at ALARM / 4."""
    counts, flagged = count_words(0.01)
    for count, share in zip(counts, (0.48499, 0.35272, 0.12648, 0.03581), strict=True):
        low, high = binom.interval(1 - ALARM / 4, counts.sum(), share)
        assert low <= count <= high
    # the share that the specification of mitigations gives, 14.6 % within 3 %
    assert flagged == pytest.approx(0.146, rel=0.03)


def test_remaining_errors_of_secded_lie_in_the_stated_bands():
    layer = nn.Linear(8, 200_000, bias=False)
    stored = StoredWeights.of(layer)
    right = stored.layers[0].values
    for rate, kept in ((0.003, 6.0e-4), (0.01, 5.4e-3)):
        read = ProtectedWeights(stored, SECDED("keep")).read_images([Chip(1)], rate, None, FaultModel())[0][0]
        bits = (read ^ right).view(torch.uint8)
        wrong = sum(int((bits >> k & 1).sum()) for k in range(8)) / (8 * right.numel())
        assert wrong == pytest.approx(kept, rel=0.06)  # a Monte Carlo value of +-3 %, and our own


def test_robust_bits_never_fail_and_others_do():
    stored = StoredWeights.of(model())
    read = ProtectedWeights(stored, RobustBits(3)).read_images([Chip(4)], 0.2, None, FaultModel())
    plain = faultsim.corrupt_stored(stored, 4, bit_error_rate=0.2)
    for found, faulty, layer in zip(read, plain.layers, stored.layers, strict=True):
        assert torch.equal(found[0] & -32, layer.values & -32)
        assert torch.equal(found[0] & 31, faulty.values & 31)


def test_boosted_layers_are_read_at_their_voltage():
    stored = StoredWeights.of(model())
    protected = ProtectedWeights(stored, BoostedLayers(("2.*",), voltage=1.0))
    read = protected.read_images([Chip(4)], 0.1, None, FaultModel())
    assert torch.equal(read[1][0], stored.layers[1].values)
    assert torch.equal(read[0][0], faultsim.corrupt_stored(stored, 4, bit_error_rate=0.1).layers[0].values)


def test_protected_weights_go_wherever_stored_weights_go():
    net = model()
    protected = ProtectedWeights(StoredWeights.of(net), SECDED("reread"))
    data = [(torch.randn(64, 37), torch.randint(0, 5, (64,)))]
    chips = faultsim.evaluation_chips(0, 3)
    rate = 1e-4  # no word has three wrong cells on these chips: everything is corrected or read again
    clean = faultsim.evaluate(net, data, chips[:1], bit_error_rate=0.0, metric="cross_entropy").mean
    found = faultsim.evaluate(net, data, chips, bit_error_rate=rate, stored=protected, metric="cross_entropy")
    assert found.values == pytest.approx([clean] * 3, rel=1e-6)
    read = faultsim.corrupt_stored(protected, chips[0], bit_error_rate=0.2)
    expected = protected.read_images(chips[:1], 0.2, None, FaultModel())
    assert all(
        torch.equal(layer.values, values[0]) for layer, values in zip(read.layers, expected, strict=True)
    )
    assert type(read) is StoredWeights


def test_a_mitigation_of_the_users_own():
    class ZeroAll(MemoryMitigation):
        name = "zero-all"

        def decode(self, read, checks, written):
            return faultsim.mitigations.Decoded(torch.zeros_like(read))

    read = ProtectedWeights(StoredWeights.of(model()), ZeroAll()).read_images([1], 0.1, None, FaultModel())
    assert not any(values.any() for values in read)


@pytest.mark.parametrize("stored", ["int4", "float16"])
def test_codes_protect_words_of_any_format(stored):
    """Words with one wrong bit are right again, and the others are read again: nothing stays wrong at this rate."""
    net = model()
    plain = StoredWeights.of(net, format=stored)
    clean = plain.read_chips([Chip(1)], 0.0, None, FaultModel())
    faulty = plain.read_chips([Chip(1)], 0.005, None, FaultModel())
    read = ProtectedWeights(plain, SECDED("reread")).read_chips([Chip(1)], 0.005, None, FaultModel())
    assert not all(torch.equal(a, b) for a, b in zip(faulty, clean, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(read, clean, strict=True))
    with pytest.raises(FaultsimError, match=f"in-place:keep is for int8 weights, and these are {stored}"):
        ProtectedWeights(plain, InPlaceCode())


def test_bits_are_masked_in_two_s_complement_only():
    ProtectedWeights(StoredWeights.of(model(), format="int4"), BitMasking())
    for stored in ("uint8", "float16"):
        with pytest.raises(
            FaultsimError, match=f"integers in two's complement, and these weights are {stored}"
        ):
            ProtectedWeights(StoredWeights.of(model(), format=stored), BitMasking())


@pytest.mark.parametrize("name", ["int4", "int3", "int5-unpacked"])
def test_weights_of_fewer_bits_are_masked_one_by_one(name):
    """By hand, from what a plain memory returns: a weight with a wrong bit reads 0, or the bit reads as the sign."""
    plain = StoredWeights.of(model(), format=name)
    codes = faultsim.corrupt_stored(plain, Chip(1), bit_error_rate=0.1)
    width = plain.format.width
    for mitigation in (WordMasking(), BitMasking()):
        read = faultsim.corrupt_stored(ProtectedWeights(plain, mitigation), Chip(1), bit_error_rate=0.1)
        for own, faulty, found in zip(plain.layers, codes.layers, read.layers, strict=True):
            expected = []
            for written, got in zip(
                own.values.flatten().tolist(), faulty.values.flatten().tolist(), strict=True
            ):
                wrong = (written ^ got) & 2**width - 1
                if isinstance(mitigation, WordMasking) or wrong >> width - 1:
                    expected.append(0 if wrong else got)
                else:
                    expected.append(got & ~wrong | (wrong if got < 0 else 0))
            assert found.values.flatten().tolist() == expected


@pytest.mark.parametrize(
    ("name", "added"), [("int8", 1 / 8), ("int4", 1 / 4), ("int3", 21 / 64), ("bfloat16", 1 / 16)]
)
def test_each_weight_adds_a_parity_bit(name, added):
    found = Parity().find_overhead(StoredWeights.of(model(), format=name).format)
    assert (found.storage, found.access, found.area) == (added, added, added)
    own = Parity(overhead=Overhead(access=0.5))
    assert own.find_overhead(StoredWeights.of(model(), format=name).format) is own.overhead


def test_words_are_filled_up_with_zeros():
    words = into_words(torch.arange(11).to(torch.int8).view(11, 1))
    assert words.tolist() == [[0, 1, 2, 3, 4, 5, 6, 7], [8, 9, 10, 0, 0, 0, 0, 0]]


def test_bad_input(tmp_path):
    stored = StoredWeights.of(model())
    cells = faultsim.find_failing_cells(Chip(1), 1, 0.01)
    with pytest.raises(FaultsimError, match="check bits lie in arrays of their own"):
        ProtectedWeights(stored, Parity()).read_images(
            [faultsim.MeasuredChip(cells)], None, 0.83, FaultModel()
        )
    with pytest.raises(FaultsimError, match="no tensor in the faulty memory matches 'fc"):
        ProtectedWeights(stored, BoostedLayers(("fc.*",)))
    with pytest.raises(FaultsimError, match="number of robust bits 33 must be from 1 to 32"):
        RobustBits(33)
    with pytest.raises(FaultsimError, match="access -1 of a mitigation"):
        Overhead(access=-1)
    assert BitMasking().label == "bit-masking"
