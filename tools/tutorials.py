"""Tutorials: scripts in docs/tutorials whose output is recorded beside them, shown in the site and checked by a test.

    python -m tools.tutorials [NAME ...]     # run and record (default: all of them)

A script begins with a docstring: its title, an empty line, what it is about. Then come cells. A cell begins with a line
`# %% Title`, goes on with comments, which the page shows as text, and ends with code. NAME.txt holds what each cell
prints, under a line `# %% Title`.
"""

import ast
import io
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "tutorials"
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+(?:e-?\d+)?| %)")
TOLERANCE = 0.02
POINTS = 5.0


@dataclass(frozen=True)
class Cell:
    """A part of a script."""

    title: str
    text: str
    """Markdown."""
    code: str
    line: int
    """Of the script, where the code begins, counted from 0."""


def names() -> list[str]:
    """List the tutorials."""
    return sorted(path.stem for path in FOLDER.glob("*.py"))


def read(name: str) -> tuple[str, str, list[Cell]]:
    """Read a script.

    Returns
    -------
    title, introduction, cells
    """
    source = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    title, _, introduction = (ast.get_docstring(ast.parse(source)) or "").partition("\n\n")
    lines = source.splitlines()
    starts = [i for i, line in enumerate(lines) if line.startswith("# %% ")]
    cells = []
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        first = start + 1
        while first < end and lines[first].startswith("#"):
            first += 1
        text = "\n".join(line[2:] for line in lines[start + 1 : first])
        cells.append(Cell(lines[start][5:], text, "\n".join(lines[first:end]).strip("\n"), first))
    return title, introduction, cells


@contextmanager
def _inside_empty_folder() -> Iterator[None]:
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def run(name: str) -> list[str]:
    """Run a script in an empty folder; return what each of its cells prints."""
    said = []
    scope = {"__name__": "__main__"}
    with _inside_empty_folder():
        for cell in read(name)[2]:
            code = "\n" * cell.line + cell.code
            with redirect_stdout(io.StringIO()) as out:
                exec(compile(code, str(FOLDER / f"{name}.py"), "exec"), scope)
            said.append("\n".join(line.rstrip() for line in out.getvalue().rstrip().splitlines()))
    return said


def recorded(name: str) -> list[str]:
    """Read what each cell printed when the output was recorded."""
    text = (FOLDER / f"{name}.txt").read_text(encoding="utf-8")
    return [part.partition("\n")[2].strip("\n") for part in re.split(r"^# %% ", text, flags=re.M)[1:]]


def record(name: str) -> None:
    """Run a script and write down what it prints."""
    parts = [f"# %% {cell.title}\n{said}\n" for cell, said in zip(read(name)[2], run(name), strict=True)]
    (FOLDER / f"{name}.txt").write_text("\n".join(parts), encoding="utf-8")


def differ(said: str, expected: str) -> bool:
    """Whether two outputs differ by more than the roundings of another processor can make.

    Words and integers have to be equal. Numbers with a decimal point may differ by 2 % of the recorded number: sums are
    rounded differently from one processor to another. Percentages may differ by 5 points: some are the accuracy of a
    network that is trained in the tutorial, where the roundings grow.
    """
    if NUMBER.sub("#", said) != NUMBER.sub("#", expected):
        return True
    for ours, theirs in zip(NUMBER.finditer(said), NUMBER.finditer(expected), strict=True):
        a, b = (float(found.group().replace(",", "").removesuffix(" %")) for found in (ours, theirs))
        percent = theirs.group().endswith("%") or expected[theirs.end() :].startswith((" %", " to"))
        if abs(a - b) > (POINTS if percent else TOLERANCE * abs(b)):
            return True
    return False


def page(name: str) -> str:
    """Make the tutorial's page, in Markdown."""
    title, introduction, cells = read(name)
    parts = [f"# {title}", introduction]
    for cell, said in zip(cells, recorded(name), strict=True):
        parts += [f"## {cell.title}", cell.text]
        if cell.code:
            parts.append(f"```python\n{cell.code.replace('  # fmt: skip', '')}\n```")
        if said:
            parts.append(f'```text title="prints"\n{said}\n```')
    parts.append(
        f"*The whole script: `docs/tutorials/{name}.py`. The tests run it and check what it prints.*"
    )
    return "\n\n".join(part for part in parts if part) + "\n"


if __name__ == "__main__":
    for chosen in sys.argv[1:] or names():
        record(chosen)
