"""Cells and results as text: labels, the columns C.A. to IP, and how a result was obtained.

Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from faultsim.io.run_directory import without_nan

if TYPE_CHECKING:
    from .result import Cell, Result
    from .rows import Line, Published

HEADINGS = ("C.A.", "P.A.", "C.A.+N.F.", "P.A.+N.F.", "IP")
"""Columns of a table of accuracies, as the paper abbreviates them."""
PRESETS = {
    "neuralfuse_2022": "as the paper's released code (neuralfuse_2022)",
    "iid_flips": "independent flips (iid_flips)",
}
"""What each preset of bit errors is called in titles."""


def label_row(cell: Cell) -> str:
    """Return the short label of a cell's row in a terminal: dataset, base model, generator."""
    generator = cell.spec
    bits = "" if cell.bits is None else f" {cell.bits} bits"
    if cell.transferred:
        return f"{cell.base} {format_rate(cell.bit_error_rate)} {generator.name}{bits}"
    n_models = "" if generator.n_models is None else f" N={generator.n_models}"
    flips = "" if generator.flips is None else f" K={generator.flips}"
    weight = "" if generator.weight is None else f" lambda={generator.weight:g}"
    return f"{cell.dataset} {cell.base} {generator.name}{n_models}{flips}{weight}{bits}"


def label_pair(cell: Cell) -> str:
    """Return the label of base model and generator in a report, below a title that names the dataset."""
    generator = cell.spec
    flips = "" if generator.flips is None else f", K = {generator.flips:,}"
    n_models = "" if generator.n_models is None else f", N = {generator.n_models}"
    weight = "" if generator.weight is None else f", lambda = {generator.weight:g}"
    bits = "" if cell.bits is None else f", {cell.bits} bits"
    return f"{cell.base} + {generator.name}{flips}{n_models}{weight}{bits}"


def title_section(cell: Cell) -> str:
    """Return the heading above rows of transferred generators in a terminal; empty for others."""
    if not cell.transferred:
        return ""
    trained = cell.trained()
    return f"{cell.dataset}, trained for {trained.base} at {format_rate(trained.bit_error_rate)}"


def title_table(cell: Cell) -> str:
    """Return the title of a report's table that the cell belongs to."""
    trained = cell.trained()
    title = f"Accuracy on {cell.dataset} at a bit error rate of {format_rate(cell.bit_error_rate)}"
    if cell.transferred:
        title += f", generators trained for {trained.base} at {format_rate(trained.bit_error_rate)}"
    elif cell.spec.flips is not None:
        title += ", generators trained against chosen bit flips"
    elif cell.spec.n_models is not None:
        title += ", by N, the perturbed models of a training step"
    return title


def format_rate(fraction: float) -> str:
    """Format a fraction as percent: 0.01 is "1 %"."""
    return f"{100 * fraction:g} %"


def format_published(row: Published | None) -> list[str]:
    """Format a published row under HEADINGS; an empty list if the paper has none."""
    if row is None:
        return []
    return [
        _format(row.clean),
        format_spread(row.perturbed, row.perturbed_std),
        _format(row.clean_fused),
        format_spread(row.perturbed_fused, row.perturbed_fused_std),
        "" if row.improvement is None else f"{row.improvement:+.2f}",
    ]


def format_result(result: Result) -> list[str]:
    """Format a result under HEADINGS, in percent."""
    values = _values(result)
    return [
        _format(values["clean"]),
        format_spread(values["perturbed"], values["perturbed_std"]),
        _format(values["clean_fused"]),
        format_spread(values["perturbed_fused"], values["perturbed_fused_std"]),
        f"{values['improvement']:+.2f}",
    ]


def format_spread(mean: float | None, std: float | None) -> str:
    """Format mean and standard deviation, each of which may be missing."""
    return _format(mean) + ("" if std is None else f" ±{std:5.2f}")


def _format(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _values(result: Result) -> dict[str, float]:
    parts = ("clean", "perturbed", "clean_fused", "perturbed_fused")
    means = {part: result.mean(part) for part in parts}
    stds = {f"{part}_std": result.std(part) for part in ("perturbed", "perturbed_fused")}
    return means | stds | {"improvement": result.improvement}


def describe_result(result: Result) -> dict[str, Any]:
    """Return how a result was obtained, as JSON values: trainings, device, commit, date, share of weights in memory."""
    recipe, generator = result.configuration["base"]["recipe"], result.configuration["generator"]
    return {
        "recipe": recipe["name"].split(",")[0],
        "base_epochs": recipe["epochs"],
        "trainer": _name_trainer({"trainer": result.trainer, **generator["training"]}),
        "epochs": generator["epochs"],
        "base_passes": result.base_passes,
        "begun_after": generator.get("start", {}).get("epochs"),
        "precision": generator["training"]["precision"],
        "compute": result.configuration.get("compute", "float32"),
        "device": result.provenance["device"],
        "trained_on": result.provenance["generator"]["device"],
        "commit": result.provenance["commit"],
        "date": result.provenance["date"],
        "memory": result.provenance.get("memory"),  # results of older versions lack it
    }


def summarize_result(result: Result) -> str:
    """Return in one line what `describe_result` returns."""
    about = describe_result(result)
    devices = about["device"]
    if about["trained_on"] != devices:
        devices = f"{devices} (trained on {about['trained_on']})"
    commit = about["commit"] or "an installed copy"
    begun = f" after {about['begun_after']} of another training" if about["begun_after"] else ""
    memory = about["memory"]
    computed = "" if about["compute"] == "float32" else f", evaluated in {about['compute']}"
    share = f"; {memory['stored']:,} of {memory['weights']:,} weights in the faulty memory" if memory else ""
    return (
        f"base recipe {about['recipe']}, {about['base_epochs']} epochs; {about['trainer']}, {about['epochs']} "
        f"epochs{begun}, {about['precision']}, {about['base_passes'] / 1e6:.2f} M passes{computed}; {devices}; "
        f"{commit}; {str(about['date'])[:10]}{share}"
    )


def _name_trainer(training: Mapping[str, Any]) -> str:
    if training.get("flips"):
        return f"K = {training['flips']} chosen flips"
    # What differs from the paper. Results of older versions lack the options that did not exist.
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
    stages = [training["trainer"]] if "stages" in training else []
    return ", ".join([*stages, f"N = {training['n_models']}", *words])


def describe_tables(found: Mapping[str, Sequence[Line]]) -> list[dict[str, Any]]:
    """Return tables as JSON values: of each cell the published row and every result, accuracies in percent.

    Parameters
    ----------
    found
        Lines of each table, by its name (see `neuralfuse.paper.rows.collect_lines`).
    """
    tables = [
        {
            "table": name,
            "rows": [
                {
                    **line.cell.describe(),
                    "published": line.published and asdict(line.published),
                    "results": [
                        {
                            **_values(result),
                            **describe_result(result),
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
    return without_nan(tables)
