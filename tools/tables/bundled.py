"""Tables of what the package itself knows: the bundled networks, the recipes of training, the paper's energy saving."""

from __future__ import annotations

import csv
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from energy.saving import compute_saving, count_weight_accesses
from faultsim import models
from faultsim.checkpoint import read_file
from faultsim.support.intervals import half_width
from faultsim.training.classifier import RECIPES, Recipe
from faultsim.voltage import VoltageCurve
from neuralfuse import bundled, generators
from neuralfuse.paper.computed import VOLTAGE, count_accesses
from tools.tables.text import commit_and_date, markdown, reading, remarked


def shipped(root: Path) -> str:
    """What the shipped generator wins with the shipped model, as `faultsim evaluate --json` said it.

    The last column compares with the model alone, at the higher voltage at which it takes as much energy as both
    networks, on the same chips.
    """
    folder = root / "results" / "shipped"
    rows, remarks = [], []
    for path in sorted(folder.glob("evaluate-*.json")):
        with reading(path):
            both, alone = _read(path), _read(folder / path.name.replace("evaluate", "equal-energy"))
            how = both["configuration"]
            if how["chips"] != alone["configuration"]["chips"]:
                raise ValueError("its chips are not those of the comparison at equal energy")
            found = {row["name"]: row for row in both["accuracy"]}
            (raised,) = (row for row in alone["accuracy"] if row["name"] == "P.A.")
            values = [found["P.A."]["mean"], raised["mean"], found["P.A.+N.F."]["mean"]]
            won = np.subtract(found["P.A.+N.F."]["chips"], raised["chips"])
            half = half_width(float(won.std(ddof=1)), len(won))
            rows.append(
                [
                    f"{100 * how['bit_error_rate']:g} %",
                    *(f"{100 * value:.1f}" for value in values),
                    f"{100 * won.mean():+.1f} ({100 * (won.mean() - half):.1f} to {100 * (won.mean() + half):.1f})",
                ]
            )
            remarks.append(
                f"{len(how['chips'])} chips, {how['images']} images of {how['dataset']}, {how['faults']['kind']}; "
                f"without errors {100 * found['C.A.']['mean']:.1f} and {100 * found['C.A.+N.F.']['mean']:.1f}; "
                f"{both['device']}; {commit_and_date(both)}"
            )
    head = [
        "bit errors",
        "alone, %",
        "alone at equal energy, %",
        "behind ConvQS, %",
        "won at equal energy, points (95 % interval)",
    ]
    return remarked(
        markdown(head, rows, 1), [*dict.fromkeys(remarks), shipped_classifier(), shipped_cascade(folder)]
    )


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def shipped_classifier() -> str:
    """What the generator's encoder knows by itself, as its training measured it."""
    path = bundled.GENERATORS["DigitsVGG"].weights
    with reading(path):
        found = read_file(path)[1]["classifier"]
        share = found["accesses"] / count_weight_accesses(models.create("DigitsVGG"), (3, 32, 32))
        return (
            f"ConvQS's encoder with a linear head, at Vmin, without DigitsVGG: {100 * found['accuracy']:.1f} %, for "
            f"{100 * share:.1f} % of DigitsVGG's energy at Vmin"
        )


def shipped_cascade(folder: Path) -> str:
    """What that encoder and the model reach as a cascade, as `faultsim compare --out` wrote it."""
    with reading(folder / "cascade"):
        with (folder / "cascade" / "summary.csv").open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["variant"].startswith("cascade")]
        confidence = rows[0]["variant"].partition("@")[2]
        accuracies = ", ".join(f"{100 * float(row['mean']):.1f}" for row in rows)
        rates = ", ".join(f"{100 * float(row['bit_error_rate']):g}" for row in rows)
        energy = max(1 - float(row["energy_saving"]) for row in rows)
        return (
            f"that encoder first, and DigitsVGG where its confidence is below {confidence} (`faultsim compare --model "
            f"DigitsVGG --mitigations cascade`): {accuracies} % at {rates} % bit errors, for at most "
            f"{100 * energy:.1f} % of that energy; {commit_and_date(_read(folder / 'cascade' / 'sweep.json'))}"
        )


def recipes(_: Path) -> str:
    """How base models are trained."""
    head = [field.name.replace("_", " ") for field in fields(Recipe)]
    rows = [[f"{getattr(recipe, field.name)}" for field in fields(Recipe)] for recipe in RECIPES.values()]
    return markdown(["recipe", *head[1:]], rows, 1)


def saving(_: Path) -> str:
    """Table 7: energy saving in percent at 0.83 Vmin."""
    curve = VoltageCurve.default()
    counts = {name: count_accesses(name, "closed-form") for name in (*models.BASE_MODELS, *generators.NAMES)}
    rows = [
        [
            base,
            *(
                f"{100 * compute_saving(counts[base], curve, VOLTAGE, counts[name]):.2f}"
                for name in generators.NAMES
            ),
        ]
        for base in models.BASE_MODELS
    ]
    return markdown(["", *generators.NAMES], rows, 1)
