"""`make tables`: writes the tables that are made from data into the Markdown files, each between its markers.

The data are results/ and benchmarks/results/ beside this folder; published values, energies and recipes come
from the packages. All tables are made before the first file is written: whatever is wrong with data or a document
leaves every document as it was.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from faultsim.errors import FaultsimError
from faultsim.io.files import write_text
from tools.tables.accuracy import accuracies, accuracies_in_full, base_models, half_percent, transfers
from tools.tables.bundled import recipes, saving, shipped
from tools.tables.comparison import mitigations
from tools.tables.lookup import lookup
from tools.tables.precision import precision
from tools.tables.speed import activations, codecs, eopm, evaluation, formats, inference, kernel, peers, scale
from tools.tables.text import reading
from tools.tables.transfer import other_recipe

ROOT = Path(__file__).resolve().parents[2]

TABLES: dict[str, dict[str, Callable[[Path], str]]] = {
    "README.md": {"shipped": shipped},
    "docs/results.md": {
        "accuracies": accuracies,
        "half_percent": half_percent,
        "transfers": transfers,
        "other_recipe": other_recipe,
        "lookup": lookup,
        "precision": precision,
        **{
            f"mitigations_{base}_{preset}": partial(mitigations, base, preset)
            for base in ("VGG11", "VGG7")
            for preset in ("neuralfuse_2022", "iid_flips")
        },
        "saving": saving,
    },
    "docs/table1.md": {"recipes": recipes, "bases": base_models, "table1": accuracies_in_full},
    "docs/benchmarks.md": {
        "kernel": kernel,
        "formats": formats,
        "eopm": eopm,
        "evaluation": evaluation,
        "inference": inference,
        "activations": activations,
        "peers": peers,
        "codecs": codecs,
    },
    "docs/scale.md": {"scale": scale},
}


def filled(root: Path, name: str) -> str:
    """A document with its tables as they have to be. Raises FaultsimError unless each has its place."""
    path = root / name
    with reading(path):
        text = path.read_text(encoding="utf-8")
    for table, text_of in TABLES[name].items():
        begin, end = f"<!-- table {table}: written by make tables -->", f"<!-- end of table {table} -->"
        if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
            raise FaultsimError(
                f"{path}: the table {table} needs one line {begin} and after it one line {end}"
            )
        before, rest = text.split(begin)
        text = f"{before}{begin}\n\n{text_of(root)}\n\n{end}{rest.split(end)[1]}"
    return text


def main(root: Path = ROOT) -> int:
    """Write the tables into the documents of a checkout; return the exit status."""
    try:
        documents = {root / name: filled(root, name) for name in TABLES}
        for path, text in documents.items():
            if text != path.read_text(encoding="utf-8"):
                write_text(path, text)
                print(f"written: {path.relative_to(root)}")
    except FaultsimError as error:
        print(error, file=sys.stderr)
        return 2
    return 0
