"""Tables as data: what a command prints, a terminal and a notebook show."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from ..support.text_table import align_columns, format_html


@dataclass(frozen=True)
class Table:
    """A table of texts."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: tuple[int, ...] = ()
    """Indices of the columns that hold words, which are flush left; the others hold numbers, flush right."""

    @property
    def numbers(self) -> list[int]:
        """Indices of the columns that hold numbers."""
        return [i for i in range(len(self.header)) if i not in self.words]

    def __str__(self) -> str:
        lines = align_columns(self.header, self.rows, self.numbers)
        return "\n".join([self.title, *lines] if self.title else lines)

    def _repr_html_(self) -> str:
        return format_html(self.header, self.rows, self.numbers, self.title)


def format_tables(tables: Sequence[Table], notes: Sequence[str]) -> str:
    """Return tables, and the notes below them, as HTML."""
    below = "<br>\n".join(map(escape, notes))
    return "\n".join([*(table._repr_html_() for table in tables), f"<p><small>{below}</small></p>"])
