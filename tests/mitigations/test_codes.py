"""Codes, for every position: all single errors corrected, all doubles flagged; in-place words lose nothing but what is
clamped; and every mitigation reads what its bit-by-bit reference reads."""

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from faultsim.errors import FaultsimError
from faultsim.formats import INT8
from faultsim.mitigations import SECDED, BitMasking, InPlaceCode, LinearCode, Parity, WordMasking, reference
from faultsim.mitigations.codes import FREE, make_hsiao_code, make_in_place_code

words = st.lists(st.integers(-128, 127), min_size=8, max_size=8)


def int8(*rows) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.int8)


def random_words(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(-128, 128, (count, 8), generator=torch.Generator().manual_seed(seed)).to(torch.int8)


def flips(count: int, wrong: int) -> torch.Tensor:
    """Every way to flip `wrong` of the first `count` bits: uint8 [ways, count / 8]."""
    ways = list(combinations(range(count), wrong))
    bits = np.zeros((len(ways), count), np.uint8)
    for column in range(wrong):
        bits[np.arange(len(ways)), [way[column] for way in ways]] = 1
    return torch.from_numpy(np.packbits(bits, axis=1, bitorder="little"))


def test_hsiao_code_is_the_published_construction():
    columns = make_hsiao_code().columns
    assert sorted(c.bit_count() for c in columns) == [3] * 56 + [5] * 8
    # all check bits belong to equally many bits: the point of Hsiao's choice
    assert [sum(c >> bit & 1 for c in columns) for bit in range(8)] == [26] * 8


def test_gates_by_hand():
    """Each of the 8 check bits of Hsiao's code is the parity of 26 bits: 25 XORs, and one more with the bit as read. A
    parity bit of a weight takes 7 and 8."""
    assert make_hsiao_code().count_gates() == (200, 208)
    assert Parity("weight").make_codec(INT8).matrix.count_gates() == (8 * 7, 8 * 8)


def test_in_place_code_uses_every_odd_column_of_seven_bits_once():
    assert sorted(make_in_place_code().columns) == [c for c in range(128) if c.bit_count() % 2]


@pytest.mark.parametrize("wrong", [1, 2])
def test_secded_corrects_every_single_and_flags_every_double(wrong):
    errors = flips(72, wrong)
    for word in random_words(3):
        code = SECDED("reread")
        written = code.encode(word.expand(len(errors), 8).contiguous())
        read = written.weights ^ errors[:, :8].view(torch.int8)
        for policy in ("keep", "zero", "reread"):
            found = SECDED(policy).decode(read[None], written.checks[None] ^ errors[None, :, 8], written)
            right = {"keep": read, "zero": torch.zeros_like(read), "reread": written.weights}[policy]
            assert torch.equal(found.weights[0], written.weights if wrong == 1 else right)
            assert (found.flagged is not None) == (policy == "reread")
            if found.flagged is not None:
                assert bool((found.flagged == (wrong == 2)).all())


@pytest.mark.parametrize("wrong", [1, 2])
def test_in_place_corrects_every_single_and_flags_every_double(wrong):
    errors = flips(64, wrong)
    for word in random_words(3, seed=1):
        code = InPlaceCode("reread")
        written = code.encode(word.expand(len(errors), 8).contiguous())
        found = code.decode((written.weights ^ errors.view(torch.int8))[None], None, written)
        clamped = torch.where(FREE != 0, word.clamp(-64, 63), word)
        assert torch.equal(found.weights[0], clamped.expand(len(errors), 8))
        assert bool((found.flagged == (wrong == 2)).all())


@given(words)
def test_in_place_keeps_what_fits(word):
    given_word = int8(word)
    written = InPlaceCode().encode(given_word)
    read = InPlaceCode().decode(written.weights[None], None, written).weights[0]
    assert read[0, 7] == word[7]
    assert read[0, :7].tolist() == [min(max(w, -64), 63) for w in word[:7]]


def test_the_words_of_the_reference_are_binomial():
    """The share of words with 0, 1 and 2 failing cells of 72, at 1 %, as the specification of mitigations gives it."""
    assert binom.pmf([0, 1, 2], 72, 0.01) == pytest.approx([0.48499, 0.35272, 0.12648], abs=6e-6)


@given(
    words, st.lists(st.integers(0, 71), max_size=6, unique=True), st.sampled_from(["keep", "zero", "reread"])
)
def test_codes_read_what_the_reference_reads(word, positions, policy):
    error = np.zeros(72, np.uint8)
    error[positions] = 1
    error = torch.from_numpy(np.packbits(error, bitorder="little"))
    given_word = int8(word)
    code = SECDED(policy)
    written = code.encode(given_word)
    columns = code.code.columns
    assert int(written.checks) == reference.compute_checks(reference.to_bits(given_word[0].numpy()), columns)
    read, checks = given_word ^ error[:8].view(torch.int8), written.checks ^ error[8]
    expected = reference.settle_word(
        *reference.decode_word(read[0].numpy(), int(checks), columns), given_word[0].numpy(), policy
    )
    assert np.array_equal(code.decode(read[None], checks[None], written).weights[0, 0].numpy(), expected)

    code = InPlaceCode(policy)
    written, columns = code.encode(given_word), code.code.columns
    assert np.array_equal(
        written.weights[0].numpy(), reference.encode_in_place(given_word[0].numpy(), columns)
    )
    read = written.weights ^ error[:8].view(torch.int8)
    decoded, flagged = reference.decode_word(read[0].numpy(), None, columns)
    expected = reference.settle_word(
        reference.restore_signs(decoded), flagged, reference.restore_signs(written.weights[0].numpy()), policy
    )
    assert np.array_equal(code.decode(read[None], None, written).weights[0, 0].numpy(), expected)

    for granularity in ("weight", "word"):
        parity = Parity(granularity)
        written = parity.encode(given_word)
        read, checks = given_word ^ error[:8].view(torch.int8), written.checks ^ error[8]
        expected = reference.zero_wrong_parity(read[0].numpy(), int(checks), granularity)
        assert np.array_equal(
            parity.decode(read[None], checks[None], written).weights[0, 0].numpy(), expected
        )


def test_masking_of_every_weight_and_every_error():
    """All 256 weights x 256 errors: the reference, never a larger magnitude, never another sign."""
    weights = torch.arange(-128, 128).to(torch.int8).repeat_interleave(256)
    read = weights ^ torch.arange(256, dtype=torch.uint8).view(torch.int8).repeat(256)
    written = BitMasking().encode(weights.view(-1, 8))
    masked = BitMasking().decode(read.view(1, -1, 8), None, written).weights.view(-1)
    for words in zip(masked.view(-1, 8)[::3], read.view(-1, 8)[::3], weights.view(-1, 8)[::3], strict=True):
        found, faulty, right = (word.numpy() for word in words)
        assert np.array_equal(found, reference.mask_bits(faulty, right))
    assert bool((masked.int().abs() <= weights.int().abs()).all())
    assert bool((masked.int() * weights.int() >= 0).all())
    assert torch.equal(masked[read == weights], weights[read == weights])
    zeroed = WordMasking().decode(read.view(1, -1, 8), None, written).weights.view(-1)
    assert torch.equal(zeroed, torch.where(read == weights, weights, 0))


def test_word_masking_of_words():
    word = int8([1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 4, 5, 6, 7, 8])
    read = word.clone()
    read[1, 3] = -4
    masked = WordMasking("word").decode(read[None], None, WordMasking("word").encode(word)).weights[0]
    assert masked.tolist() == [word[0].tolist(), [0] * 8]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SECDED("retry"), "unknown policy 'retry' for detected errors: it can be keep, zero, reread"),
        (lambda: Parity("byte"), "unknown granularity 'byte': it can be weight or word"),
        (lambda: LinearCode([1] * 64), "a code needs 64 different columns of odd weight, from 1 to 255"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(FaultsimError) as error:
        make()
    assert str(error.value) == message
