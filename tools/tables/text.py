"""Markdown tables, the remarks below them, and one line for damaged data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from textwrap import fill

from faultsim.errors import FaultsimError


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]], words: int) -> str:
    """A table. Its first `words` columns are aligned left, the others right; what a row lacks at its end is empty."""
    marks = ["---"] * words + ["---:"] * (len(head) - words)
    texts = [
        "|" + "|".join(f" {cell} " if cell else " " for cell in [*row, *[""] * (len(head) - len(row))]) + "|"
        for row in (head, *rows)
    ]
    return "\n".join([texts[0], "|" + "|".join(marks) + "|", *texts[1:]])


def remarked(table: str, remarks: Iterable[str]) -> str:
    """A table with remarks below it, as wide as the documents."""
    items = [fill(f"- {remark}", 120, subsequent_indent="  ", break_on_hyphens=False) for remark in remarks]
    return "\n".join([table, "", *items]).rstrip()


class Notes:
    """Numbered remarks below a table; equal ones share a number."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def number(self, text: str) -> str:
        if text not in self.texts:
            self.texts.append(text)
        return f"[{self.texts.index(text) + 1}]"

    def below(self, table: str) -> str:
        return remarked(table, [f"[{i}] {text}" for i, text in enumerate(self.texts, 1)])


@contextmanager
def reading(what: object) -> Iterator[None]:
    """Damaged data become one line that says which."""
    try:
        yield
    except FaultsimError:
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise FaultsimError(f"{what}: damaged, or of another version ({error!r})") from None


def commit_and_date(provenance: dict) -> str:
    return f"{provenance['commit'] or 'an installed copy'}, {provenance['date'][:10]}"
