"""Voltage domains: cells of the weight memory that never fail, or that have a supply voltage of their own.

A domain takes in tensors by name, bits of their words, or both. A cell belongs to the first domain that takes it in;
what no domain takes in has the voltage (or bit error rate) of the experiment.
"""

import json
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import FaultsimError, summarize_error
from .io.bounds import parse_json, read_text
from .support.integers import checked_integer

if TYPE_CHECKING:
    from .voltage import VoltageCurve

MOST_BITS = 32
"""Bits of the widest stored weight."""
LARGEST = 1e18
"""Voltages and energies are below it."""
_MOST_BYTES = 1 << 20
_MOST_CHARACTERS = 1000
"""In a pattern: the time to read one grows faster than its length."""


@dataclass(frozen=True)
class Domain:
    """Cells that share a supply.

    With a voltage, its cells fail as the curve says at that voltage. With a bit error rate, they fail at that rate;
    with both, at that rate, and the voltage counts for the energy. With neither, they never fail.

    Raises
    ------
    FaultsimError
        For numbers out of range, bits that a word does not have, and no patterns.
    """

    name: str = "protected"
    """For tables."""
    layers: tuple[str, ...] = ("*",)
    """Patterns of tensor names as in the shell, such as `encoder.*`."""
    bits: tuple[int, ...] | None = None
    """Positions in a stored weight: 0 is the least significant, and the most significant is 7 of int8, 3 of int4 and
    15 of bfloat16; negative ones count from the top, -1 is the sign. None: all bits."""
    voltage: float | None = None
    """In the unit of the curve."""
    bit_error_rate: float | None = None
    """Fraction of failing cells."""
    energy_per_access: float | None = None
    """Relative to an ordinary cell at Vmin. Default: that of the curve at the voltage; 1 for cells that never fail."""

    def __post_init__(self) -> None:
        layers = (self.layers,) if isinstance(self.layers, str) else tuple(self.layers)
        if not layers or not all(isinstance(pattern, str) for pattern in layers):
            raise FaultsimError(
                f"domain {self.name!r}: layers must be patterns of names, not {self.layers!r}"
            )
        if (longest := max(map(len, layers))) > _MOST_CHARACTERS:
            raise FaultsimError(
                f"domain {self.name[:40]!r}: a pattern may have {_MOST_CHARACTERS} characters, not {longest}"
            )
        object.__setattr__(self, "layers", layers)
        if self.bits is not None:
            if isinstance(self.bits, str | int) or not len(self.bits):
                raise FaultsimError(f"domain {self.name!r}: bits must be a list of positions, such as [7, 6]")
            named = f"a bit of domain {self.name!r}"
            bits = {checked_integer(bit, named, -MOST_BITS, MOST_BITS - 1) for bit in self.bits}
            object.__setattr__(self, "bits", tuple(sorted(bits)))
        for name in ("voltage", "energy_per_access", "bit_error_rate"):
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < LARGEST:
                raise FaultsimError(
                    f"domain {self.name[:40]!r}: {name} must be a number of at least 0, not {str(value)[:40]}"
                )
            object.__setattr__(self, name, float(value))
        if self.bit_error_rate is not None:
            from .hit_table import checked_rate  # imports NumPy, which a chip and its memory do without

            checked_rate(self.bit_error_rate)

    @classmethod
    def top_bits(cls, count: int, layers: Sequence[str] = ("*",), name: str | None = None) -> "Domain":
        """Return the domain of the `count` most significant bits of each weight, in cells that never fail."""
        count = checked_integer(count, "number of protected bits", 1, MOST_BITS)
        return cls(name or f"top {count} bits", tuple(layers), tuple(range(-count, 0)))

    def positions(self, width: int) -> tuple[int, ...]:
        """Return the positions in a weight of so many bits, from the least significant one.

        Raises
        ------
        FaultsimError
            For a bit that such a weight does not have.
        """
        if self.bits is None:
            return tuple(range(width))
        for bit in self.bits:
            if not -width <= bit < width:
                raise FaultsimError(
                    f"domain {self.name!r} has bit {bit}, and the bits of these weights are 0 to {width - 1}, or -1 to "
                    f"{-width} from the top"
                )
        return tuple(sorted({bit % width for bit in self.bits}))

    @property
    def never_fails(self) -> bool:
        """Whether its cells are free of faults at any voltage."""
        return self.voltage is None and not self.bit_error_rate

    def takes(self, names: Sequence[str]) -> bool:
        """Whether a pattern matches one of a tensor's names."""
        return any(fnmatchcase(name, pattern) for name in names for pattern in self.layers)

    def resolve(self, curve: "VoltageCurve") -> "Domain":
        """Return the domain with the bit error rate of its voltage, where only the voltage is known."""
        if self.voltage is None or self.bit_error_rate is not None:
            return self
        return replace(self, bit_error_rate=curve.bit_error_rate(self.voltage))

    def find_energy(self, curve: "VoltageCurve") -> float | None:
        """Return the energy of an access relative to Vmin; None for a bit error rate that the curve does not reach."""
        if self.energy_per_access is not None:
            return self.energy_per_access
        if self.voltage is not None:
            return curve.energy_per_access(self.voltage)
        if self.never_fails:
            return 1.0
        try:
            return curve.energy_per_access(curve.voltage(self.bit_error_rate or 0.0))
        except FaultsimError:
            return None

    def describe(self, width: int | None = None) -> dict[str, Any]:
        """Return JSON values; for weights of a known width, the positions of bits in them."""
        own = self if width is None or self.bits is None else replace(self, bits=self.positions(width))
        return json.loads(json.dumps(asdict(own)))

    def __str__(self) -> str:
        """Return one line, such as "no faults in domain top 2 bits"."""
        if self.never_fails:
            return f"no faults in domain {self.name}"
        where = [] if self.voltage is None else [f"voltage {self.voltage:g}"]
        if self.bit_error_rate is not None:
            where.append(f"bit error rate {self.bit_error_rate:.3g}")
        return f"domain {self.name} at {', '.join(where)}"


Part = tuple[int, Domain | None]
"""Mask of some bits of a weight, and the domain that they belong to; None: the voltage of the experiment."""


@lru_cache(maxsize=4096)
def split_bits(domains: tuple[Domain, ...], names: tuple[str, ...], width: int) -> tuple[Part, ...]:
    """Divide the bits of a tensor's weights, of `width` bits, among domains; every bit is in one part."""
    left, parts = (1 << width) - 1, []
    for domain in domains:
        if domain.takes(names) and (mask := left & sum(1 << bit for bit in domain.positions(width))):
            parts.append((mask, domain))
            left &= ~mask
    return (*parts, (left, None)) if left else tuple(parts)


def check_domains(domains: Sequence[Domain], tensors: Sequence[Sequence[str]], width: int) -> None:
    """Raise FaultsimError for domains of one name, patterns that match no tensor, and bits beyond `width`."""
    names = [domain.name for domain in domains]
    if len(set(names)) < len(names):
        raise FaultsimError(f"two voltage domains have the same name: {', '.join(names)}")
    for domain in domains:
        domain.positions(width)
        for pattern in domain.layers:
            if not any(fnmatchcase(name, pattern) for tensor in tensors for name in tensor):
                raise FaultsimError(
                    f"domain {domain.name!r}: no tensor in the faulty memory matches {pattern!r}; "
                    "faultsim memory lists their names"
                )


def load_domains(path: str | PathLike[str]) -> tuple[Domain, ...]:
    """Read voltage domains from a file.

    Parameters
    ----------
    path
        TOML (.toml) with a table [[domain]] for each, or JSON: {"domain": [...]}. Keys are the fields of Domain;
        `top_bits = k` stands for the k most significant bits.

    Raises
    ------
    FaultsimError
        For a file that cannot be read, and what is no domain.
    """
    path = Path(path)
    try:
        text = read_text(path, _MOST_BYTES)
        found = tomllib.loads(text) if path.suffix == ".toml" else parse_json(text)
    except FileNotFoundError:
        raise FaultsimError(f"domain file {path} does not exist") from None
    except (OSError, ValueError, RecursionError) as error:
        raise FaultsimError(f"domain file {path} cannot be read: {summarize_error(error)}") from None
    tables = found.get("domain") if isinstance(found, dict) and set(found) == {"domain"} else None
    if not isinstance(tables, list) or not tables:
        raise FaultsimError(
            f"domain file {path}: it must hold a list named domain, [[domain]] in TOML, and no more"
        )
    return tuple(_read_domain(path, table) for table in tables)


def _read_domain(path: Path, table: Any) -> Domain:
    """One table of a file."""
    known = {field.name for field in fields(Domain)} | {"top_bits"}
    if not isinstance(table, dict) or (unknown := sorted(set(table) - known)):
        what = f"unknown key {unknown[0]!r}" if isinstance(table, dict) else "a domain must be a table"
        raise FaultsimError(f"domain file {path}: {what}; the keys are {', '.join(sorted(known))}")
    values = dict(table)
    if not isinstance(values.get("name", ""), str):
        raise FaultsimError(f"domain file {path}: name must be text, not {values['name']!r}")
    for key in ("layers", "bits"):
        if key in values and not isinstance(values[key], list):
            raise FaultsimError(f"domain file {path}: {key} must be a list, not {values[key]!r}")
    try:
        if "top_bits" in values:
            if "bits" in values:
                raise FaultsimError("bits cannot be combined with top_bits")
            values["bits"] = Domain.top_bits(values.pop("top_bits")).bits
        return Domain(**values)
    except FaultsimError as error:
        raise FaultsimError(f"domain file {path}: {error}") from None
