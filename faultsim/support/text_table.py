"""Tables for a terminal and for a notebook."""

from collections.abc import Collection, Sequence
from html import escape


def align_columns(
    header: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[int] = ()
) -> list[str]:
    """Return a table as lines, each column as wide as its widest cell: nothing is cut.

    Parameters
    ----------
    header, rows
        Cells, as many in each row as in the header.
    right
        Indices of the columns that are aligned right, such as numbers.
    """
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    return [
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (header, *rows)
    ]


def format_html(
    header: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[int] = (), note: str = ""
) -> str:
    """Return a table as HTML; `note` becomes its caption. Arguments are text and are escaped."""

    def line(tag: str, cells: Sequence[str]) -> str:
        styles = ["text-align:right" if i in right else "text-align:left" for i in range(len(cells))]
        return "".join(
            f'<{tag} style="{style}">{escape(cell)}</{tag}>'
            for style, cell in zip(styles, cells, strict=True)
        )

    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    caption = f"<caption>{escape(note)}</caption>" if note else ""
    return f"<table>{caption}<thead><tr>{line('th', header)}</tr></thead><tbody>{body}</tbody></table>"
