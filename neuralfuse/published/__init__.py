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
    "full_costs",
    "full_efficiency_ratio",
    "full_ensemble_transfer",
    "full_lambda",
    "full_mac_energy_saving",
    "full_reduced_precision",
    "full_universal_input_perturbation",
    "model_costs",
    "relaxed_access",
    "transfer",
)
"""Names that read_table knows."""


def read_table(name: str) -> list[dict[str, str]]:
    """Read a published table.

    Parameters
    ----------
    name : str
        One of NAMES.

    Returns
    -------
    list of dict
        The rows, as text; an empty text is a cell that is unreadable in the source.

    Raises
    ------
    FaultsimError
        For an unknown name.
    """
    if name not in NAMES:
        raise FaultsimError(f"unknown published table {name!r}: it can be {', '.join(NAMES)}")
    text = (files(__package__) / f"{name}.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))
