"""Tables as data: as text in a terminal, as HTML in a notebook."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Table:
    """A table of texts."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: tuple[int, ...] = ()
    """Which columns hold words, which are flush left; the others hold numbers, flush right."""

    def __str__(self) -> str:
        lines = align((self.header, *self.rows), self.words)
        return "\n".join([self.title, *lines] if self.title else lines)

    def html(self) -> str:
        """Return the table as HTML."""

        def line(tag: str, cells: Sequence[str]) -> str:
            sides = ["left" if i in self.words else "right" for i in range(len(cells))]
            texts = (
                f'<{tag} style="text-align: {side}">{escape(cell)}</{tag}>'
                for side, cell in zip(sides, cells, strict=True)
            )
            return f"<tr>{''.join(texts)}</tr>"

        caption = f'<caption style="text-align: left">{escape(self.title)}</caption>' if self.title else ""
        body = "\n".join(line("td", row) for row in self.rows)
        return (
            f"<table>{caption}\n<thead>{line('th', self.header)}</thead>\n<tbody>\n{body}\n</tbody></table>"
        )


def align(rows: Sequence[Sequence[str]], words: Sequence[int] = ()) -> list[str]:
    """Return the rows as lines whose columns are as wide as they have to be; the columns `words` are flush left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if i in words else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def tables_html(tables: Sequence[Table], notes: Sequence[str]) -> str:
    """Return tables and the notes below them as HTML."""
    below = "<br>\n".join(map(escape, notes))
    return "\n".join([*(table.html() for table in tables), f"<p><small>{below}</small></p>"])
