"""Linear codes on 64-bit words: parity bits, and Hsiao's codes that correct one wrong bit and detect two.

M. Y. Hsiao, "A class of optimal minimum odd-weight-column SEC-DED codes", IBM Journal of Research and Development
14(4), 1970: all columns of the parity-check matrix are different and of odd weight. The syndrome of one error is its
column; that of two errors has even weight, so it is no column and not 0.
"""

from collections.abc import Sequence
from functools import cache, cached_property
from itertools import combinations

import torch
from torch import Tensor

from ..errors import FaultsimError
from .mitigation import WORD

BITS = 64
"""Bits of a word, by position: bit k of weight j is 8 * j + k."""


class CheckMatrix:
    """Check bits of 64-bit words, given by a column for each bit of the word.

    Parameters
    ----------
    columns
        64 integers of up to 32 bits: the check bits that each bit of the word belongs to.
    """

    def __init__(self, columns: Sequence[int]) -> None:
        self.columns = tuple(columns)

    @cached_property
    def check_bytes(self) -> int:
        """Bytes of the check bits of a word."""
        return max(1, -(-max(self.columns).bit_length() // 8))

    @cached_property
    def rows(self) -> tuple[int, ...]:
        """The bits of a word, as masks, whose parity is each of the 8 * check_bytes check bits."""
        return tuple(
            sum((column >> check & 1) << bit for bit, column in enumerate(self.columns))
            for check in range(8 * self.check_bytes)
        )

    def count_gates(self) -> tuple[int, int]:
        """Return how many two-input XORs the encoder and the syndrome take, as trees without shared parts."""
        ones = [row.bit_count() for row in self.rows if row]
        return sum(ones) - len(ones), sum(ones)

    @cached_property
    def _of_bytes(self) -> Tensor:
        """Syndrome of each value of each byte of a word, int64 [8, 256]."""
        found = torch.zeros(WORD, 256, dtype=torch.int64)
        values = torch.arange(256)
        for position, column in enumerate(self.columns):
            found[position // 8] ^= (values >> position % 8 & 1) * column
        return found

    def compute_syndrome(self, words: Tensor) -> Tensor:
        """Return the check bits of words, int8 [..., 8]: uint8 [...], or [..., check_bytes] where there are several."""
        if self.check_bytes == 1:
            return self._look_up(words, self._of_bytes.to(words.device, torch.uint8))
        order = 8 * torch.arange(self.check_bytes, device=words.device)
        found = self._look_up(words, self._of_bytes.to(words.device))
        return (found.unsqueeze(-1) >> order & 255).to(torch.uint8)

    def _look_up(self, words: Tensor, tables: Tensor) -> Tensor:
        values = words.view(torch.uint8).int()
        syndrome = tables[0][values[..., 0]]
        for byte in range(1, WORD):
            syndrome ^= tables[byte][values[..., byte]]
        return syndrome


class LinearCode(CheckMatrix):
    """A code on 64-bit words that corrects one wrong bit and detects two.

    Parameters
    ----------
    columns
        64 integers from 1 to 255: the check bits that each bit of the word belongs to.

    Raises
    ------
    FaultsimError
        Unless the columns are different and of odd weight.
    """

    def __init__(self, columns: Sequence[int]) -> None:
        super().__init__(columns)
        odd = all(0 < column < 256 and column.bit_count() % 2 for column in self.columns)
        if len(self.columns) != BITS or len(set(self.columns)) != BITS or not odd:
            raise FaultsimError("a code needs 64 different columns of odd weight, from 1 to 255")

    @cached_property
    def corrections(self) -> Tensor:
        """What is flipped for each syndrome, int8 [256, 8]; nothing for those of the check bits."""
        found = torch.zeros(256, WORD, dtype=torch.uint8)
        for position, column in enumerate(self.columns):
            found[column, position // 8] = 1 << position % 8
        return found.view(torch.int8)

    @cached_property
    def detections(self) -> Tensor:
        """Whether a syndrome is that of an error that cannot be corrected, bool [256]."""
        found = torch.ones(256, dtype=torch.bool)
        found[[0, *self.columns, *(1 << bit for bit in range(8))]] = False
        return found


@cache
def make_hsiao_code() -> LinearCode:
    """Return Hsiao's (72, 64) code: all 56 columns of weight 3, and 8 of weight 5 that load all check bits alike."""
    three = [sum(1 << bit for bit in bits) for bits in combinations(range(8), 3)]
    five = [(0b11111 << turn | 0b11111 >> 8 - turn) & 255 for turn in range(8)]
    return LinearCode([*three, *five])


FREE_BIT = 6
"""Bit of a weight in [-64, 63] that equals its sign, and so is free."""
FREE = torch.tensor([1 << FREE_BIT] * (WORD - 1) + [0], dtype=torch.int8)
"""The free bits of a word: those of all weights but the last."""


@cache
def make_in_place_code() -> LinearCode:
    """Return the (64, 57) code of in-place zero-space ECC: its 7 check bits are the free bits of a word.

    There are 64 columns of 7 bits and odd weight: each of them is used once, those of weight 1 for the check bits.
    """
    others = iter(
        sorted((c for c in range(128) if c.bit_count() in (3, 5, 7)), key=lambda c: (c.bit_count(), c))
    )
    checks = {8 * weight + FREE_BIT: 1 << weight for weight in range(WORD - 1)}
    return LinearCode([checks[at] if at in checks else next(others) for at in range(BITS)])
