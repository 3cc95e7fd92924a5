"""Kinds of faults, and simulated chips."""

from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from .domains import Domain
from .errors import FaultsimError
from .sram import SRAM, Placement
from .support.integers import checked_integer

if TYPE_CHECKING:
    from .voltage import VoltageCurve


class FaultKind(StrEnum):
    """What a failing cell does to a read."""

    FLIP = "flip"
    """The bit is inverted; the bit error rate is the rate of wrong bits."""
    STUCK_AT_RANDOM = "stuck_at_random"
    """The bit is replaced by the cell's own; half the failing cells read wrong."""
    STUCK_AT_0 = "stuck_at_0"
    """The bit reads 0."""
    STUCK_AT_1 = "stuck_at_1"
    """The bit reads 1."""
    TRANSIENT = "transient"
    """Each read of a failing cell is wrong with some probability."""


@dataclass(frozen=True)
class FaultModel:
    """The kind of fault and the memory it happens in: "1 % bit errors" alone says neither.

    Raises
    ------
    FaultsimError
        For an unknown kind, and for probabilities outside [0, 1].
    """

    kind: FaultKind = FaultKind.FLIP
    """What a failing cell does to a read."""
    memory: SRAM = field(default_factory=SRAM)
    """The memory that holds the weights, and how they lie in it."""
    polarity: float = 0.5
    """For stuck_at_random: probability that a failing cell is stuck at 1."""
    read_error: float = 0.5
    """For transient: probability that one read of a failing cell is wrong."""
    domains: tuple[Domain, ...] = ()
    """Cells that never fail, or that have a voltage of their own; a cell belongs to the first domain that takes it."""

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
        object.__setattr__(self, "domains", tuple(self.domains))

    @classmethod
    def preset(cls, name: str) -> "FaultModel":
        """Return a fault model by name, a key of `PRESETS`."""
        try:
            return PRESETS[name]
        except KeyError:
            raise FaultsimError(f"unknown fault preset {name!r}: it can be {', '.join(PRESETS)}") from None

    def resolve(self, curve: "VoltageCurve | None" = None) -> "FaultModel":
        """Return the fault model with the bit error rates of its domains, from their voltages on a curve."""
        if all(domain.voltage is None for domain in self.domains):
            return self
        from .voltage import VoltageCurve

        curve = curve or VoltageCurve.default()
        return replace(self, domains=tuple(domain.resolve(curve) for domain in self.domains))

    @property
    def visible_rate(self) -> float:
        """Wrong bits per failing cell, on average over stored zeros and ones."""
        return {FaultKind.FLIP: 1.0, FaultKind.TRANSIENT: self.read_error}.get(self.kind, 0.5)

    def describe(self, width: int | None = None) -> dict[str, Any]:
        """Return all fields and the visible rate, for results; `width` as of Domain.describe."""
        found = {**asdict(self), "visible_flips_per_failing_cell": self.visible_rate}
        del found["domains"]  # runs of older versions have none in their configuration
        return found | (
            {"domains": [domain.describe(width) for domain in self.domains]} if self.domains else {}
        )


PRESETS = {
    "iid_flips": FaultModel(),
    # The released code of the paper: stuck-at cells (a visible flip rate of half the bit error rate) in one map that
    # every layer shares, rows repeated; that is where the paper's large standard deviations come from.
    "neuralfuse_2022": FaultModel(FaultKind.STUCK_AT_RANDOM, SRAM(Placement.NEURALFUSE_2022)),
}
"""Fault models that have a name."""

SEED_END = 2**64
"""One more than the largest chip seed."""
TRAINING = 1 << 63
"""Bit of the seed that is set in chips of training and not in those of evaluations: no generator is evaluated on a chip
that it was trained on."""


@dataclass(frozen=True)
class Chip:
    """One simulated chip: which of its cells fail at which bit error rate follows from its seed."""

    seed: int
    """0 to 2**64 - 1."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", checked_integer(self.seed, "chip seed", 0, SEED_END - 1))


def evaluation_chips(seed: int, count: int) -> list[Chip]:
    """Return chips to evaluate on; those of different seeds are never the same.

    Parameters
    ----------
    seed
        0 to 2**31 - 1.
    count
        Number of chips, 1 to 2**32.

    Returns
    -------
    list[Chip]
        Those with the seeds seed * 2**32 to seed * 2**32 + count - 1.
    """
    seed = checked_integer(seed, "seed", 0, 2**31 - 1)
    count = checked_integer(count, "number of chips")
    if not 1 <= count <= 2**32:
        raise FaultsimError(f"{count} chips: at least 1 is needed, and 2**32 are the most")
    return [Chip((seed << 32) + i) for i in range(count)]
