"""What goes wrong in a chip: kinds of faults, and chips."""

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from .errors import FaultsimError
from .integers import checked_integer
from .sram import SRAM, Placement


class FaultKind(StrEnum):
    """What a failing cell does to a read."""

    FLIP = "flip"  #: the bit is inverted; the bit error rate is the rate of wrong bits
    STUCK_AT_RANDOM = (
        "stuck_at_random"  #: the bit is replaced by the cell's own; half the failing cells read wrong
    )
    STUCK_AT_0 = "stuck_at_0"
    STUCK_AT_1 = "stuck_at_1"
    TRANSIENT = "transient"  #: each read of a failing cell is wrong with some probability


@dataclass(frozen=True)
class FaultModel:
    """Kind of fault and the memory it happens in. "1 % bit errors" means nothing without it."""

    kind: FaultKind = FaultKind.FLIP
    memory: SRAM = field(default_factory=SRAM)
    polarity: float = 0.5  #: stuck_at_random: probability that a failing cell is stuck at 1
    read_error: float = 0.5  #: transient: probability that one read of a failing cell is wrong

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "kind", FaultKind(self.kind))
        except ValueError:
            known = ", ".join(k.value for k in FaultKind)
            raise FaultsimError(f"unknown fault kind {str(self.kind)!r}: it can be {known}") from None
        for name in ("polarity", "read_error"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise FaultsimError(f"{name} {value} is no probability: it must be within [0, 1]")

    @classmethod
    def preset(cls, name: str) -> "FaultModel":
        """A fault model by name; see PRESETS."""
        try:
            return PRESETS[name]
        except KeyError:
            raise FaultsimError(f"unknown fault preset {name!r}: it can be {', '.join(PRESETS)}") from None

    @property
    def visible_rate(self) -> float:
        """Wrong bits per failing cell, on average over stored zeros and ones."""
        return {FaultKind.FLIP: 1.0, FaultKind.TRANSIENT: self.read_error}.get(self.kind, 0.5)

    def describe(self) -> dict[str, Any]:
        """Everything about it, for results."""
        return {**asdict(self), "visible_flips_per_failing_cell": self.visible_rate}


PRESETS = {
    "iid_flips": FaultModel(),
    # The released code of the paper: stuck-at cells (a visible flip rate of half the bit error rate) in one map that
    # every layer shares, rows repeated; that is where the paper's large standard deviations come from.
    "neuralfuse_2022": FaultModel(FaultKind.STUCK_AT_RANDOM, SRAM(Placement.NEURALFUSE_2022)),
}

SEED_END = 2**64
# Chips that training draws have the highest bit of the seed set, those that evaluations draw have not: no generator is
# ever judged by a chip that it was trained on.
TRAINING = 1 << 63


@dataclass(frozen=True)
class Chip:
    """One chip: where its weak cells are. Everything about it follows from the seed."""

    seed: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", checked_integer(self.seed, "chip seed", 0, SEED_END - 1))


def evaluation_chips(seed: int, count: int) -> list[Chip]:
    """Chips seed * 2**32, ... + count - 1: those of different seeds never meet. 0 <= seed < 2**31."""
    seed = checked_integer(seed, "seed", 0, 2**31 - 1)
    count = checked_integer(count, "number of chips")
    if not 1 <= count <= 2**32:
        raise FaultsimError(f"{count} chips: at least 1 is needed, and 2**32 are the most")
    return [Chip((seed << 32) + i) for i in range(count)]
