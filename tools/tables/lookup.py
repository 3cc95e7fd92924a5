"""The table of class patterns that are looked up instead of drawn."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from neuralfuse.paper.words import format_result, format_spread
from tools.comparison.lookup import CONFIDENCES, GENERATORS
from tools.tables.accuracy import energy, table1
from tools.tables.text import commit_and_date, markdown, reading, remarked

FOLDER = Path("results") / "lookup"


def lookup(root: Path) -> str:
    """Published, drawn by our generators that were trained in stages, and looked up: accuracies and energy."""
    lines = {
        line.cell.generator.name: line
        for line in table1(root)
        if (line.cell.dataset, line.cell.base, line.cell.faults) == ("cifar10", "VGG11", "neuralfuse_2022")
    }
    with reading(root / FOLDER):
        clean, errors = (_read(root / FOLDER / name) for name in ("clean", "errors"))
        rows = []
        for name in GENERATORS:
            published = lines[name].published
            rows.append(
                [
                    name,
                    "the paper",
                    f"{published.clean_fused:.2f}",
                    format_spread(published.perturbed_fused, published.perturbed_fused_std),
                ]
            )
            for result in (one for one in lines[name].results if one.trainer == "staged"):
                rows.append(["", "drawn", *format_result(result)[2:4], energy(result)])
            for confidence in CONFIDENCES:
                variant = f"lookup {name}" + (f"@{confidence:g}" if confidence else "")
                found = errors[variant]
                rows.append(
                    [
                        "",
                        "looked up"
                        + (f" where the confidence is at least {confidence:g}" if confidence else ""),
                        f"{100 * float(clean[variant]['mean']):.2f}",
                        format_spread(100 * float(found["mean"]), 100 * float(found["std"])),
                        f"{100 - 100 * float(found['energy_saving']):.1f}",
                    ]
                )
        about = json.loads((root / FOLDER / "errors" / "sweep.json").read_text(encoding="utf-8"))
        how = about["configuration"]
        remark = (
            f"looked up: {len(how['chips'])} chips, {how['images']:,} images, computed in {how['compute']}; "
            f"{about['device']}; {commit_and_date(about)}"
        )
        head = ["", "patterns", "C.A.+N.F.", "P.A.+N.F.", "energy, %"]
        return remarked(markdown(head, rows, 2), [remark])


def _read(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "summary.csv").open(newline="", encoding="utf-8") as file:
        return {row["variant"]: row for row in csv.DictReader(file)}
