"""Error-correcting and error-detecting codes: SECDED (72, 64), in-place zero-space ECC, parity."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import FaultsimError
from .codes import FREE, FREE_BIT, LinearCode, make_hsiao_code, make_in_place_code
from .mitigation import Decoded, MemoryMitigation, Overhead, Written

_NO_CODEC = "encoder and decoder (no published energy was found)"
_SECDED = Overhead(1 / 8, 1 / 8, 1 / 8, "72 cells for 64 bits", _NO_CODEC)
_IN_PLACE = Overhead(0.0, 0.0, 0.0, "no cells are added", _NO_CODEC)


class OnError(StrEnum):
    """What happens to a word with an error that is detected and not corrected."""

    KEEP = "keep"
    """It is used as it was read."""
    ZERO = "zero"
    """Its weights read 0."""
    REREAD = "reread"
    """It is read again at Vmin, without errors."""


def checked_policy(policy: str) -> OnError:
    """Return a policy by name; FaultsimError for one that is not known."""
    try:
        return OnError(policy)
    except ValueError:
        known = ", ".join(OnError)
        raise FaultsimError(f"unknown policy {policy!r} for detected errors: it can be {known}") from None


def settle(read: Tensor, flagged: Tensor, written: Tensor, policy: OnError) -> Decoded:
    """Do what the policy says to words with flagged, bool [chips, words]; others as of MemoryMitigation.decode."""
    if policy is OnError.KEEP:
        return Decoded(read)
    if policy is OnError.ZERO:
        return Decoded(read.masked_fill(flagged.unsqueeze(-1), 0))
    return Decoded(torch.where(flagged.unsqueeze(-1), written, read), flagged)


def decode_changed(
    code: LinearCode, read: Tensor, checks: Tensor | None, written: Written
) -> tuple[Tensor, Tensor]:
    """Decode the words that are not as they were written: the others have the syndrome 0.

    Returns
    -------
    Tensor, Tensor
        int8 [chips, words, 8] and, where an error was detected and not corrected, bool [chips, words].
    """
    whole = written.weights.contiguous().view(torch.int64)[:, 0]
    changed = read.contiguous().view(torch.int64)[..., 0] != whole
    if checks is not None and written.checks is not None:
        changed |= checks != written.checks
    at = changed.nonzero(as_tuple=True)
    words = read[at]
    syndrome = code.compute_syndrome(words)
    if checks is not None:
        syndrome ^= checks[at]
    corrected, detected = code.correct(words, syndrome)
    out = read.clone()
    out[at] = corrected
    flagged = torch.zeros_like(changed)
    flagged[at] = detected
    return out, flagged


@dataclass(frozen=True, repr=False)
class SECDED(MemoryMitigation):
    """Hsiao's (72, 64) code: 8 check bits for each 64-bit word correct one wrong bit and detect two.

    The check bits lie in arrays of their own and fail as all others do. Three wrong bits or more may be corrected to a
    wrong word, as in hardware.

    Raises
    ------
    FaultsimError
        For a policy that is not known.
    """

    name: ClassVar[str] = "secded"
    any_format: ClassVar[bool] = True
    policy: str = OnError.KEEP
    """What happens to a word with two wrong bits: keep, zero or reread."""
    overhead: Overhead = _SECDED
    """Default: 72/64 of cells, of energy and of the area of the array."""
    code: LinearCode = field(default_factory=make_hsiao_code, compare=False)
    """The columns of the parity-check matrix."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "policy", checked_policy(self.policy))

    @property
    def label(self) -> str:
        """Name and policy."""
        return f"{self.name}:{self.policy}"

    def encode(self, weights: Tensor) -> Written:
        """Add the check bits."""
        return Written(weights, self.code.compute_syndrome(weights))

    def decode(self, read: Tensor, checks: Tensor | None, written: Written) -> Decoded:
        """Correct what can be corrected, and do what the policy says to the words that are flagged."""
        return settle(
            *decode_changed(self.code, read, checks, written), written.weights, OnError(self.policy)
        )


@dataclass(frozen=True, repr=False)
class InPlaceCode(MemoryMitigation):
    """In-place zero-space ECC (Guan et al., NeurIPS 2019): a (64, 57) code inside the eight weights of a word.

    Bit 6 of a weight in [-64, 63] equals its sign. The first seven weights of each word are clamped to that range, and
    their bits 6 hold the check bits; a read puts the signs back. A model that was not trained for it loses what the
    clamp takes away.

    Raises
    ------
    FaultsimError
        For a policy that is not known.
    """

    name: ClassVar[str] = "in-place"
    policy: str = OnError.KEEP
    """What happens to a word with two wrong bits: keep, zero or reread."""
    overhead: Overhead = _IN_PLACE
    code: LinearCode = field(default_factory=make_in_place_code, compare=False)
    """The columns of the parity-check matrix."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "policy", checked_policy(self.policy))

    @property
    def label(self) -> str:
        """Name and policy."""
        return f"{self.name}:{self.policy}"

    def encode(self, weights: Tensor) -> Written:
        """Clamp the first seven weights, and write the check bits into their bits 6."""
        free = FREE.to(weights.device)
        data = torch.where(free != 0, weights.clamp(-64, 63), weights) & ~free
        return Written(data | self._place_checks(self.code.compute_syndrome(data)))

    def decode(self, read: Tensor, checks: Tensor | None, written: Written) -> Decoded:
        """Correct what can be corrected, and put the signs back into bits 6."""
        corrected, flagged = decode_changed(self.code, read, None, written)
        return settle(self._restore(corrected), flagged, self._restore(written.weights), OnError(self.policy))

    def _place_checks(self, checks: Tensor) -> Tensor:
        """Return check bits uint8 [...] as the free bits of words, int8 [..., 8]; there is no eighth."""
        order = torch.arange(8, device=checks.device)
        bits = checks.unsqueeze(-1).int() >> order & 1
        return (bits << FREE_BIT).to(torch.int8)

    def _restore(self, words: Tensor) -> Tensor:
        """Return words with the sign in each free bit."""
        free = FREE.to(words.device)
        return (words & ~free) | (words >> 7 & free)


@dataclass(frozen=True, repr=False)
class Parity(MemoryMitigation):
    """A parity bit for each weight, or for each 64-bit word; what is found wrong reads 0.

    An even number of wrong bits goes unnoticed. The parity bits lie in arrays of their own and fail as all others do.

    Raises
    ------
    FaultsimError
        For a granularity that is not known.
    """

    name: ClassVar[str] = "parity"
    granularity: str = "weight"
    """What has a parity bit, and reads 0: weight or word."""
    overhead: Overhead | None = None  # type: ignore[assignment]  # set below
    """Default: a cell for each parity bit, of equal energy and area."""

    def __post_init__(self) -> None:
        check_granularity(self.granularity)
        if self.overhead is None:
            added = 1 / 8 if self.granularity == "weight" else 1 / 64
            cells = "9 cells for 8 bits" if self.granularity == "weight" else "65 cells for 64 bits"
            object.__setattr__(self, "overhead", Overhead(added, added, added, cells, _NO_CODEC))

    @property
    def label(self) -> str:
        """Name and granularity."""
        return f"{self.name}:{self.granularity}"

    def encode(self, weights: Tensor) -> Written:
        """Add the parity bits: bit j of a word's check bits for weight j, or bit 0 for the word."""
        return Written(weights, self._compute_parity(weights))

    def decode(self, read: Tensor, checks: Tensor | None, written: Written) -> Decoded:
        """Zero what has the wrong parity."""
        if checks is None:
            raise FaultsimError("parity needs its check bits")
        wrong = self._compute_parity(read) ^ checks
        if self.granularity == "word":
            return Decoded(read.masked_fill((wrong & 1).bool().unsqueeze(-1), 0))
        order = torch.arange(8, device=read.device)
        return Decoded(read.masked_fill((wrong.unsqueeze(-1).int() >> order & 1).bool(), 0))

    def _compute_parity(self, weights: Tensor) -> Tensor:
        bits = weights.view(torch.uint8)
        for shift in (4, 2, 1):
            bits = bits ^ bits >> shift
        bits = bits & 1
        if self.granularity == "word":
            return (bits.sum(-1) & 1).to(torch.uint8)
        return (bits << torch.arange(8, dtype=torch.uint8, device=bits.device)).sum(-1).to(torch.uint8)


def check_granularity(granularity: str) -> None:
    """Raise FaultsimError unless it is weight or word."""
    if granularity not in ("weight", "word"):
        raise FaultsimError(f"unknown granularity {granularity!r}: it can be weight or word")
