"""The paper's tables as data, to compare with. README.md in this folder says what each file holds."""

from __future__ import annotations

import csv
from importlib.resources import files

from faultsim.errors import FaultsimError

NAMES = (
    "adversarial_training",
    "base_models",
    "efficiency_ratio",
    "energy_saving",
    "model_costs",
    "relaxed_access",
    "transfer",
)
"""Names that `table` knows."""


def table(name: str) -> list[dict[str, str]]:
    """The rows of one file, as text; an empty text is a cell that is unreadable in the source.

    Raises FaultsimError for an unknown name.
    """
    if name not in NAMES:
        raise FaultsimError(f"unknown published table {name!r}; known are {', '.join(NAMES)}")
    text = (files(__package__) / f"{name}.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))
