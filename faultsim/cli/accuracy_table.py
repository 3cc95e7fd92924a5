"""How Tables 1, 9 and 10 are shown: the published row, and ours under each fault model."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING

from ..results import without_nan

if TYPE_CHECKING:
    from neuralfuse.reproduce.accuracy import Line, Published

    from neuralfuse.results import Result

HEADINGS = ("C.A.", "P.A.", "C.A.+N.F.", "P.A.+N.F.", "IP")


def as_json(name: str, lines: "Sequence[Line]") -> str:
    """One object a cell: what the paper reports, and every result; accuracies in percent."""
    rows = [
        {
            **asdict(line.cell),
            "published": line.published and asdict(line.published),
            "results": [
                {
                    **_ours(result),
                    **how(result),
                    "configuration": result.configuration,
                    "provenance": result.provenance,
                }
                for result in line.results
            ],
        }
        for line in lines
    ]
    return json.dumps(without_nan({"table": name, "rows": rows}), indent=2, allow_nan=False)


def how(result: "Result") -> dict[str, object]:
    """What every result has to say about itself."""
    recipe, generator = result.configuration["base"]["recipe"], result.configuration["generator"]
    return {
        "recipe": recipe["name"].split(",")[0],
        "base_epochs": recipe["epochs"],
        "n_models": generator["training"]["n_models"],
        "epochs": generator["epochs"],
        "precision": generator["training"]["precision"],
        "device": result.provenance["device"],
        "trained_on": result.provenance["generator"]["device"],
        "commit": result.provenance["commit"],
        "date": result.provenance["date"],
    }


def _ours(result: "Result") -> dict[str, float]:
    parts = ("clean", "perturbed", "clean_fused", "perturbed_fused")
    means = {part: result.mean(part) for part in parts}
    stds = {f"{part}_std": result.std(part) for part in ("perturbed", "perturbed_fused")}
    return means | stds | {"improvement": result.improvement}


def show(name: str, lines: "Sequence[Line]") -> None:
    """The table on stdout, within 80 columns."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    number = name.removeprefix("table")
    rate = lines[0].cell.bit_error_rate
    title = f"Table {number}: accuracy at a bit error rate of {100 * rate:g} %, in percent"
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", show_edge=False, padding=(0, 0))
    table.add_column("")
    for heading in HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("how", justify="right", no_wrap=True)
    notes: list[str] = []
    for (dataset, base, generator), group in groupby(
        lines, key=lambda line: (line.cell.dataset, line.cell.base, line.cell.generator)
    ):
        of_row = list(group)
        table.add_row(f"{dataset} {base} {generator}")
        known = of_row[0].published
        table.add_row("  the paper" if known else "  not in the paper", *published_cells(known))
        for line in of_row:
            for result in line.results:
                conditions = note(how(result))
                if conditions not in notes:
                    notes.append(conditions)
                table.add_row(f"  {line.cell.faults}", *our_cells(result), f"[{notes.index(conditions) + 1}]")
            if not line.results:
                table.add_row(f"  {line.cell.faults}")
    console.print(table)
    measured = sum(bool(line.results) for line in lines)
    console.print(
        f"{measured} of {len(lines)} results are there. ±: population standard deviation over chips."
    )
    for index, conditions in enumerate(notes, 1):
        console.print(f"[{index}] {conditions}")


def published_cells(row: "Published | None") -> list[str]:
    """A published row as it is printed, under HEADINGS."""
    if row is None:
        return []
    return [
        _number(row.clean),
        _spread(row.perturbed, row.perturbed_std),
        _number(row.clean_fused),
        _spread(row.perturbed_fused, row.perturbed_fused_std),
        "" if row.improvement is None else f"{row.improvement:+.2f}",
    ]


def our_cells(result: "Result") -> list[str]:
    """A result as it is printed, under HEADINGS."""
    ours = _ours(result)
    return [
        _number(ours["clean"]),
        _spread(ours["perturbed"], ours["perturbed_std"]),
        _number(ours["clean_fused"]),
        _spread(ours["perturbed_fused"], ours["perturbed_fused_std"]),
        f"{ours['improvement']:+.2f}",
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _spread(mean: float | None, std: float | None) -> str:
    return _number(mean) + ("" if std is None else f" ±{std:5.2f}")


def note(conditions: dict[str, object]) -> str:
    """What `how` says, in one line."""
    c = conditions
    devices = (
        c["device"] if c["device"] == c["trained_on"] else f"{c['device']} (trained on {c['trained_on']})"
    )
    commit = c["commit"] or "an installed copy"
    return (
        f"base recipe {c['recipe']}, {c['base_epochs']} epochs; N = {c['n_models']}, {c['epochs']} epochs, "
        f"{c['precision']}; {devices}; {commit}; {str(c['date'])[:10]}"
    )
