"""The paper's tables and figures, computed again and laid beside the published values.

What needs no trained model is computed on the spot, by a function that returns a `Reproduction` (here and in
computed.py). What does is made of cells (cells.py), which a plan turns into steps (plan.py) within a budget
(budget.py); results are laid beside the published rows (rows.py), drawn (figures.py) and counted (status.py).
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from faultsim.errors import FaultsimError

# name -> (module of this package, function in it)
_TABLES = {
    "figure2": ("computed", "figure2"),
    "table6": ("computed", "table6"),
    "table7": ("computed", "table7"),
    "table8": ("computed", "table8"),
}

NAMES = tuple(_TABLES)
"""Names that `reproduce` knows."""


@dataclass(frozen=True)
class Row:
    """One value of a table: ours, the published one, and whether they agree."""

    subject: str
    """What the value belongs to, such as a model."""
    quantity: str
    """What was computed, and how where there is more than one way."""
    ours: float
    published: float
    agrees: bool
    note: str = ""
    """What else is worth a look; `Reproduction.note` says what it is."""

    @property
    def difference(self) -> float:
        """Ours minus the published value."""
        return self.ours - self.published


@dataclass(frozen=True)
class Reproduction:
    """A table of the paper, computed again."""

    title: str
    rows: tuple[Row, ...]
    decimals: int
    """Digits after the point that are worth printing."""
    criterion: str
    """When a row agrees, in words."""
    note: str = ""
    """What the notes of the rows are, if they have any."""

    @property
    def agrees(self) -> bool:
        """Whether every row does."""
        return all(row.agrees for row in self.rows)


def reproduce(name: str) -> Reproduction:
    """Compute the table of that name. Raises FaultsimError for an unknown name."""
    if name not in _TABLES:
        raise FaultsimError(f"unknown table {name!r}; known are {', '.join(NAMES)}")
    module, function = _TABLES[name]
    return getattr(importlib.import_module(f"{__package__}.{module}"), function)()
