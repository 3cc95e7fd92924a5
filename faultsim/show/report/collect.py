"""Directories -> the runs in them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path

from ...errors import FaultsimError
from . import sweeps, training
from .document import Section
from .sweep_files import INFORMATION

DEPTH = 2
"""How many folders below a directory are searched."""
DAMAGED = "Damaged"
"""The kind of a section on files that cannot be read."""
_DATA = (".json", ".jsonl", ".csv", ".png")


@dataclass(frozen=True)
class Reader:
    """What reads one kind of run from a directory."""

    files: tuple[str, ...]
    """Patterns of the names of all files that belong to it."""
    read: Callable[[Path, str], list[Section]]
    """(directory, its name for the reader) -> sections, none when nothing of its kind is there. Raises FaultsimError
    when nothing can be said because of a damaged file."""


def _sweep(directory: Path, shown: str) -> list[Section]:
    return [sweeps.make_section(directory, shown)] if (directory / INFORMATION).exists() else []


def _training(directory: Path, shown: str) -> list[Section]:
    charts, notes = [], []
    for path in sorted(directory.glob(f"*{training.ENDING}")):
        try:
            charts.append(training.make_chart(path))
        except FaultsimError as error:
            notes.append(str(error))
    if notes and not charts:
        raise FaultsimError(notes[0])
    section = Section("Training curves", "Training", shown, charts=tuple(charts), notes=tuple(notes))
    return [section] if charts else []


OWN = (
    Reader(("sweep.json", "results.csv", "summary.csv", "sweep.png"), _sweep),
    Reader((f"*{training.ENDING}",), _training),
)
"""Readers of what faultsim itself writes."""


def collect(directories: Sequence[Path], readers: Sequence[Reader] = OWN) -> list[Section]:
    """Make sections on all runs in directories and the folders in them, down to DEPTH.

    Parameters
    ----------
    directories : sequence of Path
        Where to look.
    readers : sequence of Reader
        What can read a run. Default: what faultsim itself writes.

    Returns
    -------
    list of Section
        A damaged run becomes a section that says so.

    Raises
    ------
    FaultsimError
        For a directory that does not exist, holds no run, or holds damaged runs only.
    """
    found: dict[Path, list[Section]] = {}  # a folder that was named twice is shown once
    for top in directories:
        if not top.is_dir():
            raise FaultsimError(
                f"{top} is {'no directory' if top.exists() else 'not there'}: give a run directory"
            )
        read = {folder.resolve(): _read(folder, readers) for folder in _folders(top)}
        sections = [section for of_folder in read.values() for section in of_folder]
        if not sections:
            raise FaultsimError(
                f"{top} holds no run: give a directory that sweep-voltage, reproduce, train-base or train-generator "
                "wrote to"
            )
        if all(section.kind == DAMAGED for section in sections):
            raise FaultsimError(sections[0].notes[0])
        found |= {folder: sections for folder, sections in read.items() if folder not in found}
    return [section for of_folder in found.values() for section in of_folder]


def _folders(top: Path, depth: int = DEPTH) -> Iterator[Path]:
    yield top
    if depth:
        try:
            below = sorted(p for p in top.iterdir() if p.is_dir() and not p.name.startswith("."))
        except OSError as error:
            raise FaultsimError(f"{top} cannot be read: {error.strerror or error}") from None
        for folder in below:
            yield from _folders(folder, depth - 1)


def list_files(top: Path) -> list[Path]:
    """Return the data files that a report on a directory can be made of."""
    return [path for folder in _folders(top) for path in sorted(folder.iterdir()) if path.suffix in _DATA]


def _read(directory: Path, readers: Sequence[Reader]) -> list[Section]:
    sections = []
    for reader in readers:
        try:
            sections += reader.read(directory, str(directory))
        except FaultsimError as error:
            sections.append(Section(directory.name, DAMAGED, str(directory), notes=(str(error),)))
    strangers = _strangers(directory, readers) if sections else []
    if strangers:
        note = f"not shown, for faultsim doesn't know what they are: {', '.join(strangers)}"
        sections[-1] = replace(sections[-1], notes=(*sections[-1].notes, note))
    return sections


def _strangers(directory: Path, readers: Sequence[Reader]) -> list[str]:
    """Return the names of data files that belong to none of the readers."""
    names = sorted(p.name for p in directory.iterdir() if p.suffix in _DATA and not p.name.startswith("."))
    known = [pattern for reader in readers for pattern in reader.files]
    return [name for name in names if not any(fnmatch(name, pattern) for pattern in known)]
