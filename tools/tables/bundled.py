"""Tables of what the package itself knows: the bundled networks, the recipes of training, the paper's energy saving."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

from energy.saving import compute_saving, count_weight_accesses
from faultsim import models
from faultsim.io.checkpoint import read_file
from faultsim.training.classifier import RECIPES, Recipe
from faultsim.voltage import VoltageCurve
from neuralfuse import bundled, generators
from neuralfuse.paper.computed import VOLTAGE, count_accesses

from .text import commit_and_date, markdown, reading, remarked


def shipped(root: Path) -> str:
    """What the shipped generator wins with the shipped model, as `faultsim evaluate --json` said it."""
    rows, remarks = [], []
    for path in sorted((root / "results" / "shipped").glob("evaluate-*.json")):
        with reading(path):
            report = json.loads(path.read_text(encoding="utf-8"))
            found = {row["name"]: row for row in report["accuracy"]}
            values = [f"{100 * found[name]['mean']:.1f}" for name in ("P.A.", "P.A.+N.F.")]
            low, high = found["IP"]["interval"]
            won = f"{100 * found['IP']['mean']:+.1f} ({100 * low:.1f} to {100 * high:.1f})"
            how = report["configuration"]
            rows.append([f"{100 * how['bit_error_rate']:g} %", *values, won])
            remarks.append(
                f"{len(how['chips'])} chips, {how['images']} images of {how['dataset']}, {how['faults']['kind']}; "
                f"without errors {100 * found['C.A.']['mean']:.1f} and {100 * found['C.A.+N.F.']['mean']:.1f}; "
                f"{report['device']}; {commit_and_date(report)}"
            )
    head = ["bit errors", "alone, %", "behind ConvQ, %", "won, points (95 % interval)"]
    return remarked(markdown(head, rows, 1), [*dict.fromkeys(remarks), shipped_classifier()])


def shipped_classifier() -> str:
    """What the generator's encoder knows by itself, as its training measured it."""
    path = bundled.GENERATORS["DigitsVGG"].weights
    with reading(path):
        found = read_file(path)[1]["classifier"]
        share = found["accesses"] / count_weight_accesses(models.create("DigitsVGG"), (3, 32, 32))
        return (
            f"ConvQ's encoder with a linear head, at Vmin, without DigitsVGG: {100 * found['accuracy']:.1f} %, for "
            f"{100 * share:.1f} % of DigitsVGG's energy at Vmin"
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
