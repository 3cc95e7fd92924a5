"""Values next to the published ones, and whether they agree."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One value of a table: ours, the published one, and whether they agree."""

    subject: str
    """What the value belongs to, such as a model."""
    quantity: str
    """What was computed, and how if there is more than one way."""
    ours: float
    published: float
    agrees: bool
    note: str = ""
    """A further value; `Reproduction.note` says what it is."""

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
        """Whether every row agrees."""
        return all(row.agrees for row in self.rows)

    @property
    def summary(self) -> str:
        """One sentence: how many values agree."""
        agreeing = sum(row.agrees for row in self.rows)
        return f"{agreeing} of {len(self.rows)} values agree ({self.criterion})."
