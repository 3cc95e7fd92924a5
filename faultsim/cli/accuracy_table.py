"""How cells are shown: the published row, and ours under each fault model."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple
from itertools import groupby
from typing import TYPE_CHECKING

from ..io.run_directory import without_nan

if TYPE_CHECKING:
    from rich.console import Console

    from neuralfuse.paper.efficiency import Efficiency
    from neuralfuse.paper.result import Cell, Result
    from neuralfuse.paper.rows import Line, Published

HEADINGS = ("C.A.", "P.A.", "C.A.+N.F.", "P.A.+N.F.", "IP")


def as_json(found: "Mapping[str, Sequence[Line]]") -> str:
    """Of each table one object a cell: what the paper reports, and every result; accuracies in percent."""
    tables = [
        {
            "table": name,
            "rows": [
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
            ],
        }
        for name, lines in found.items()
    ]
    return json.dumps(without_nan(tables[0] if len(tables) == 1 else tables), indent=2, allow_nan=False)


def how(result: "Result") -> dict[str, object]:
    """What every result has to say about itself."""
    recipe, generator = result.configuration["base"]["recipe"], result.configuration["generator"]
    return {
        "recipe": recipe["name"].split(",")[0],
        "base_epochs": recipe["epochs"],
        "trainer": _trainer({"trainer": result.trainer, **generator["training"]}),
        "epochs": generator["epochs"],
        "base_passes": result.base_passes,
        "begun_after": generator.get("start", {}).get("epochs"),
        "precision": generator["training"]["precision"],
        "device": result.provenance["device"],
        "trained_on": result.provenance["generator"]["device"],
        "commit": result.provenance["commit"],
        "date": result.provenance["date"],
        "memory": result.provenance.get("memory"),  # results of older versions don't say it
    }


def _ours(result: "Result") -> dict[str, float]:
    parts = ("clean", "perturbed", "clean_fused", "perturbed_fused")
    means = {part: result.mean(part) for part in parts}
    stds = {f"{part}_std": result.std(part) for part in ("perturbed", "perturbed_fused")}
    return means | stds | {"improvement": result.improvement}


def console() -> "Console":
    """For text that is not markup, and tables whose digits are all there."""
    from . import tables

    return tables.console()


def show(name: str, lines: "Sequence[Line]") -> None:
    """A table, or the cells behind a figure, on stdout, within 80 columns."""
    from neuralfuse.paper.cells import TITLES

    word = "Table" if name.startswith("table") else "Figure"
    print(f"{word} {name.removeprefix(word.lower())}: {TITLES[name]}; in percent")
    show_lines(lines, efficiency=name == "table5")


def show_lines(lines: "Sequence[Line]", *, efficiency: bool = False) -> None:
    """Cells with what the paper reports of them, and how ours were obtained."""
    notes: list[str] = []
    if efficiency:
        _show_efficiency(lines, notes)
    else:
        for heading, section in groupby(lines, key=lambda line: _section(line.cell)):
            _show_section(heading, list(section), notes)
    measured = sum(bool(line.results) for line in lines)
    console().print(
        f"{measured} of {len(lines)} results are there. ±: population standard deviation over chips."
    )
    for index, words in enumerate(notes, 1):
        console().print(f"[{index}] {words}")


def _section(cell: "Cell") -> str:
    """What heads the rows of generators that were trained for something else."""
    if not cell.transferred:
        return ""
    trained = cell.trained()
    return f"{cell.dataset}, trained for {trained.base} at {100 * trained.bit_error_rate:g} %"


def _label(cell: "Cell") -> str:
    generator = cell.generator
    if cell.transferred:
        return f"{cell.base} {100 * cell.bit_error_rate:g} % {generator.name}"
    label = f"{cell.dataset} {cell.base} {generator.name}"
    if generator.n_models is not None:
        label += f" N={generator.n_models}"
    if generator.flips is not None:
        label += f" K={generator.flips}"
    return label


def _show_section(heading: str, lines: "Sequence[Line]", notes: list[str]) -> None:
    from rich import box
    from rich.table import Table

    title = f"\n{heading}" if heading else None
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", show_edge=False, padding=(0, 0))
    table.add_column("")
    for column in HEADINGS:
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("how", justify="right", no_wrap=True)
    for label, group in groupby(lines, key=lambda line: _label(line.cell)):
        of_row = list(group)
        table.add_row(label)
        known = of_row[0].published
        table.add_row("  the paper" if known else "  not in the paper", *published_cells(known))
        for line in of_row:
            for result in line.results:
                table.add_row(f"  {line.cell.faults}", *our_cells(result), _numbered(result, notes))
            if not line.results:
                table.add_row(f"  {line.cell.faults}")
    console().print(table)


def _numbered(result: "Result", notes: list[str]) -> str:
    words = note(how(result))
    if words not in notes:
        notes.append(words)
    return f"[{notes.index(words) + 1}]"


def _show_efficiency(lines: "Sequence[Line]", notes: list[str]) -> None:
    """Table 5."""
    from rich import box
    from rich.table import Table

    from neuralfuse.paper.efficiency import efficiency, published_efficiency

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1))
    table.add_column("")
    for column in ("per M parameters", "per 100 M MACs", "how"):
        table.add_column(column, justify="right", no_wrap=True)
    for label, group in groupby(
        lines, key=lambda line: f"{_label(line.cell)} {100 * line.cell.bit_error_rate:g} %"
    ):
        of_row = list(group)
        table.add_row(label)
        known = published_efficiency(of_row[0])
        table.add_row("  the paper" if known else "  not in the paper", *_numbers(known))
        for line in of_row:
            for result in line.results:
                cells = (*_numbers(efficiency(result)), _numbered(result, notes))
                table.add_row(f"  {line.cell.faults}", *cells)
            if not line.results:
                table.add_row(f"  {line.cell.faults}")
    console().print(table)


def _numbers(values: "Efficiency | None") -> list[str]:
    return [] if values is None else [f"{value:.2f}" for value in astuple(values)]


def published_cells(row: "Published | None") -> list[str]:
    """A published row as it is printed, under HEADINGS."""
    if row is None:
        return []
    return [
        _number(row.clean),
        spread(row.perturbed, row.perturbed_std),
        _number(row.clean_fused),
        spread(row.perturbed_fused, row.perturbed_fused_std),
        "" if row.improvement is None else f"{row.improvement:+.2f}",
    ]


def our_cells(result: "Result") -> list[str]:
    """A result as it is printed, under HEADINGS."""
    ours = _ours(result)
    return [
        _number(ours["clean"]),
        spread(ours["perturbed"], ours["perturbed_std"]),
        _number(ours["clean_fused"]),
        spread(ours["perturbed_fused"], ours["perturbed_fused_std"]),
        f"{ours['improvement']:+.2f}",
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def spread(mean: float | None, std: float | None) -> str:
    return _number(mean) + ("" if std is None else f" ±{std:5.2f}")


def note(conditions: dict[str, object]) -> str:
    """What `how` says, in one line."""
    c = conditions
    devices = (
        c["device"] if c["device"] == c["trained_on"] else f"{c['device']} (trained on {c['trained_on']})"
    )
    commit = c["commit"] or "an installed copy"
    begun = f" after {c['begun_after']} of another training" if c["begun_after"] else ""
    memory = c["memory"]
    share = f"; {memory['stored']:,} of {memory['weights']:,} weights in the faulty memory" if memory else ""
    return (
        f"base recipe {c['recipe']}, {c['base_epochs']} epochs; {c['trainer']}, {c['epochs']} epochs{begun}, "
        f"{c['precision']}, {c['base_passes'] / 1e6:.2f} M passes; {devices}; {commit}; {str(c['date'])[:10]}{share}"
    )


def _trainer(training: dict) -> str:
    if training.get("flips"):
        return f"K = {training['flips']} chosen flips"
    # what differs from the paper; results of older versions don't say what they couldn't choose
    words = [
        f"{word} {training[key]:g}"
        for key, word, usual in (
            ("batch_size", "batch", 256),
            ("learning_rate", "learning rate", 1e-3),
            ("average", "average", 0.0),
        )
        if training.get(key, usual) != usual
    ]
    if training.get("schedule", "constant") != "constant":
        words.append(training["schedule"])
    if training.get("loss", "cross_entropy") != "cross_entropy":
        words.append(training["loss"].replace("_", " "))
    staged = ["staged"] if training["trainer"] == "staged" else []
    return ", ".join([*staged, f"N = {training['n_models']}", *words])
