"""Error-correcting and error-detecting codes: SECDED (72, 64), in-place zero-space ECC, parity."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..errors import FaultsimError
from ..formats import Format
from .codec import Codec, CodecMitigation, SyndromeCodec
from .codes import BITS, FREE, FREE_BIT, CheckMatrix, LinearCode, make_hsiao_code, make_in_place_code
from .mitigation import WORD, Overhead, Written

_NO_CODEC = "encoder and decoder (no published energy was found)"
_SECDED = Overhead(1 / 8, 1 / 8, 1 / 8, "72 cells for 64 bits", _NO_CODEC)
_PARITY = {
    "weight": Overhead(1 / 8, 1 / 8, 1 / 8, "9 cells for 8 bits", _NO_CODEC),
    "word": Overhead(1 / 64, 1 / 64, 1 / 64, "65 cells for 64 bits", _NO_CODEC),
}
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


def make_code_codec(code: LinearCode, policy: OnError, stored: Format) -> SyndromeCodec:
    """Make the codec that corrects single errors, and does what the policy says to words with two."""
    kept = torch.where(code.detections.unsqueeze(-1), 0, -1).to(torch.int8).repeat(1, WORD)
    return SyndromeCodec(
        stored,
        matrix=code,
        flip=code.corrections,
        keep=None if policy is OnError.KEEP else kept,
        rereads=policy is OnError.REREAD,
    )


@dataclass(frozen=True, repr=False)
class SECDED(CodecMitigation):
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

    def make_codec(self, stored: Format) -> Codec:
        """Return what the kernel does with words of a format."""
        return make_code_codec(self.code, OnError(self.policy), stored)


@dataclass(frozen=True, repr=False)
class InPlaceCode(CodecMitigation):
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

    def make_codec(self, stored: Format) -> Codec:
        """Return what the kernel does with words of eight int8 weights."""
        own = make_code_codec(self.code, OnError(self.policy), stored)
        return _InPlaceCodec(**vars(own))


class _InPlaceCodec(SyndromeCodec):
    """Its check bits lie in the free bits of the words."""

    def encode(self, weights: Tensor) -> Written:
        """Clamp the first seven weights, and write the check bits into their bits 6."""
        free = FREE.to(weights.device)
        data = torch.where(free != 0, weights.clamp(-64, 63), weights) & ~free
        order = torch.arange(WORD, device=weights.device)  # there is no eighth check bit
        bits = self.matrix.compute_syndrome(data).unsqueeze(-1).int() >> order & 1
        return Written(data | (bits << FREE_BIT).to(torch.int8))

    @property
    def check_bytes(self) -> int:
        """0: no cells are added."""
        return 0

    def describe(self, device: torch.device) -> dict[str, Any]:
        """Return the arguments of the kernel's Codec: the signs are put back into the free bits."""
        return {**super().describe(device), "borrowed": int(FREE.view(torch.int64))}


@dataclass(frozen=True, repr=False)
class Parity(CodecMitigation):
    """A parity bit for each weight, or for each 64-bit word; what is found wrong reads 0.

    An even number of wrong bits goes unnoticed. The parity bits lie in arrays of their own and fail as all others do.

    Raises
    ------
    FaultsimError
        For a granularity that is not known.
    """

    name: ClassVar[str] = "parity"
    any_format: ClassVar[bool] = True
    granularity: str = "weight"
    """What has a parity bit, and reads 0: weight or word."""
    overhead: Overhead | None = None  # type: ignore[assignment]  # set below
    """Default: a cell for each parity bit, of equal energy and area; here as for int8 weights, see find_overhead."""

    def __post_init__(self) -> None:
        check_granularity(self.granularity)
        if self.overhead is None:
            object.__setattr__(self, "overhead", _PARITY[self.granularity])

    def find_overhead(self, stored: Format) -> Overhead:
        """Return what it adds to a memory of weights of a format: a word has as many parity bits as weights."""
        own = self.overhead or _PARITY[self.granularity]
        if own is not _PARITY["weight"] or stored.cells == 8:
            return own
        count = stored.weights_per_word
        added = count / BITS
        return Overhead(added, added, added, f"{BITS + count} cells for {BITS} bits", _NO_CODEC)

    @property
    def label(self) -> str:
        """Name and granularity."""
        return f"{self.name}:{self.granularity}"

    def make_codec(self, stored: Format) -> Codec:
        """Return what the kernel does with words of a format: check bit j is for weight j, or bit 0 for the word."""
        masks = [((1 << stored.width) - 1) << at * stored.cells for at in range(stored.weights_per_word)]
        if self.granularity == "word":
            masks = [sum(masks)]
        matrix = CheckMatrix(
            [sum((mask >> bit & 1) << at for at, mask in enumerate(masks)) for bit in range(BITS)]
        )
        keep = torch.full((matrix.check_bytes, 256, WORD), -1, dtype=torch.int8)
        for at, mask in enumerate(masks):
            weight = torch.tensor(list(mask.to_bytes(WORD, "little")), dtype=torch.uint8).view(torch.int8)
            wrong = (torch.arange(256) >> at % 8 & 1).bool()
            keep[at // 8, wrong] &= ~weight
        return SyndromeCodec(stored, matrix=matrix, keep=keep)


def check_granularity(granularity: str) -> None:
    """Raise FaultsimError unless it is weight or word."""
    if granularity not in ("weight", "word"):
        raise FaultsimError(f"unknown granularity {granularity!r}: it can be weight or word")
