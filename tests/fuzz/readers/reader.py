"""What a reader of files is, and what those of every kind share."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tests.fuzz import mutations

JSON = (mutations.inside_json,)


@dataclass(frozen=True)
class Reader:
    """One way into the program.

    read     (file, folder to work in) -> what was understood, to be compared
    summed   whether the format has sums or says things twice: what is accepted of it must then be what it was
    inside   mutations that keep such sums right
    """

    name: str
    samples: dict[str, bytes]  #: by the name that the file must have
    read: Callable[[Path, Path], object]
    summed: bool = False
    inside: tuple[mutations.Mutation, ...] = ()
    same: Callable[[object, object], bool] = field(default=lambda found, whole: found == whole)


def digest(*values: object) -> str:
    """Of arrays and tensors."""
    found = hashlib.sha256()
    for value in values:
        found.update(np.ascontiguousarray(value).tobytes())
    return found.hexdigest()


def keep_sample(folder: Path, name: str, write: Callable[[Path], object]) -> dict[str, bytes]:
    path = folder / name
    write(path)
    return {name: path.read_bytes()}
