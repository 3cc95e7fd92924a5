"""Figures 2 to 6: each as a picture and the rows behind it, with one column of panels per fault model.

Of several results of a cell the last one is drawn. Published values are hollow markers.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from energy.saving import compute_saving
from faultsim.errors import FaultsimError
from faultsim.io.files import write_text
from faultsim.io.run_directory import format_csv
from faultsim.show import plots
from faultsim.show.plots import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    create_panels,
    styled,
)
from faultsim.voltage import COLUMNS as CURVE_COLUMNS
from faultsim.voltage import VoltageCurve

from .computed import VOLTAGE, count_accesses, count_parameters
from .plan import Kind, locate_file
from .rows import Line
from .words import PRESETS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY)
ACCURACY = "P.A.+N.F. in %"
COLUMNS = ("dataset", "base", "generator", "faults", "x", "perturbed_fused", "std", "published")
OUTPUT_IMAGES = 2000
"""Test images whose outputs Figure 3 shows: the first ones."""
OUTPUTS = ("clean", "perturbed", "clean_fused", "perturbed_fused")
"""What a file of outputs holds: logits float32 [images, classes] under each name, and `labels` int64 [images]."""


def collect_rows(name: str, lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Collect what figure4, figure5 or figure6 draws.

    Returns
    -------
    list of dict
        With the keys COLUMNS, for each cell that was obtained. x is N, the energy saving in %, or the generator's MACs
        over those of the base model.
    """
    of = {"figure4": _n_models, "figure5": _saving, "figure6": _relative_macs}[name]
    found: list[dict[str, Any]] = []
    for line in lines:
        known = line.published and line.published.perturbed_fused
        result = line.results[-1] if line.results else None
        if result is not None:
            cell = line.cell
            values = (result.mean("perturbed_fused"), result.std("perturbed_fused"), known)
            about = (cell.dataset, cell.base, cell.spec.name, cell.faults, of(line))
            found.append(dict(zip(COLUMNS, (*about, *values), strict=True)))
    return found


def _n_models(line: Line) -> int:
    return line.results[-1].configuration["generator"]["training"]["n_models"]


def _saving(line: Line) -> float:
    """Return the paper's equation 2 in percent, at the voltage of a bit error rate of 1 %."""
    base, generator = (count_accesses(name, "closed-form") for name in (line.cell.base, line.cell.spec.name))
    return 100 * compute_saving(base, VoltageCurve.default(), VOLTAGE, generator)


def _relative_macs(line: Line) -> float:
    from .budget import count_macs

    return count_macs(line.cell.spec.name) / count_macs(line.cell.base)


@styled()
def draw_figure(name: str, lines: Sequence[Line]) -> Figure:
    """Draw figure4, figure5 or figure6. Raises FaultsimError when nothing of it was obtained."""
    found = collect_rows(name, lines)
    if not found:
        raise FaultsimError(f"nothing of {name} was obtained yet: there is nothing to draw")
    faults = list(dict.fromkeys(line.cell.faults for line in lines))
    generators = list(dict.fromkeys(row["generator"] for row in found))
    height = len(generators) if name == "figure4" else 1
    figure, axes = create_panels(height, len(faults), 5.2 * len(faults), 1 + 3.2 * height)
    for column, preset in enumerate(faults):
        of_column = [row for row in found if row["faults"] == preset]
        if name == "figure4":
            for i, generator in enumerate(generators):
                _study_of_n(
                    axes[i, column], [row for row in of_column if row["generator"] == generator], generator
                )
        elif name == "figure5":
            _tradeoff(axes[0, column], of_column, lines)
        else:
            _relative(axes[0, column], of_column)
        axes[0, column].set_title(PRESETS[preset])
    return figure


def _study_of_n(axes: Axes, found: list[dict], generator: str) -> None:
    found = sorted(found, key=lambda row: row["x"])
    axes.errorbar(
        [row["x"] for row in found],
        [row["perturbed_fused"] for row in found],
        [row["std"] for row in found],
        marker="o",
        capsize=4,
        color=BLUE,
        label="mean and standard deviation over chips",
    )
    axes.set(xlabel="N, perturbed models a step", ylabel=f"{ACCURACY}, {generator}", ylim=(0, 100))
    axes.set_xticks([row["x"] for row in found])
    axes.legend(loc="lower right")


def _tradeoff(axes: Axes, found: list[dict], lines: Sequence[Line]) -> None:
    for color, row in zip(COLORS, found, strict=False):
        # the area says how large the generator is beside the base model
        area = min(2000.0, 4000 * count_parameters(row["generator"]) / count_parameters(row["base"]))
        axes.scatter(row["x"], row["perturbed_fused"], s=area, color=color, alpha=0.6, linewidth=0)
        axes.annotate(row["generator"], (row["x"], row["perturbed_fused"]), ha="center", va="center", size=8)
        if row["published"] is not None:
            axes.scatter(row["x"], row["published"], s=area, facecolor="none", edgecolor=color)
    alone = (
        [line.results[-1] for line in lines if line.results and line.cell.faults == found[0]["faults"]]
        if found
        else []
    )
    if alone:
        saving = 100 * compute_saving(1, VoltageCurve.default(), VOLTAGE)
        axes.scatter(saving, alone[0].mean("perturbed"), marker="s", color=BLACK)
        axes.annotate(
            "unprotected",
            (saving, alone[0].mean("perturbed")),
            xytext=(-6, 6),
            textcoords="offset points",
            ha="right",
        )
    axes.margins(x=0.15)
    axes.set(xlabel="saving of weight memory energy in %", ylabel="perturbed accuracy in %", ylim=(0, 100))


def _relative(axes: Axes, found: list[dict]) -> None:
    bases = list(dict.fromkeys(row["base"] for row in found))
    for color, base in zip(COLORS, bases, strict=False):
        of_base = sorted((row for row in found if row["base"] == base), key=lambda row: row["x"])
        xs = [row["x"] for row in of_base]
        axes.plot(xs, [row["perturbed_fused"] for row in of_base], marker="o", color=color, label=base)
        known = [row["published"] for row in of_base]
        if None not in known:
            axes.plot(xs, known, marker="o", linestyle=":", linewidth=1, markerfacecolor="none", color=color)
    axes.set(xlabel="MACs of the generator / MACs of the base model", ylabel=ACCURACY, ylim=(0, 100))
    if bases:
        axes.legend(loc="lower right")


def read_outputs(path: Path) -> dict[str, np.ndarray]:
    """Read the logits in a file of outputs. Raises FaultsimError for a damaged one; nothing is unpickled."""
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in (*OUTPUTS, "labels")}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise FaultsimError(
            f"{path} holds no outputs that faultsim wrote ({error}): delete or rename it"
        ) from None
    if any(found[name].shape[:1] != found["labels"].shape for name in OUTPUTS):
        raise FaultsimError(f"{path} holds outputs of different numbers of images: delete or rename it")
    return found


def embed_tsne(logits: np.ndarray) -> np.ndarray:
    """Embed outputs of the last layer by t-SNE (the paper, Appendix E): logits [images, classes] -> [images, 2]."""
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(logits) - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(logits.astype(np.float64))


@styled()
def draw_tsne(outputs: Sequence[tuple[str, dict[str, np.ndarray]]]) -> tuple[Figure, list[dict[str, object]]]:
    """Draw Figure 3: the base model alone in the first row, each generator in a row below; clean left, perturbed right.

    Parameters
    ----------
    outputs : sequence of (str, dict)
        Name of each generator, and what read_outputs returns for it.

    Returns
    -------
    figure : Figure
    points : list of dict
        Panel, coordinates and label of each image.
    """
    of_panels = [
        (f"{state} model", outputs[0][1], part)
        for state, part in zip(("Clean", "Perturbed"), OUTPUTS[:2], strict=True)
    ]
    for generator, found in outputs:
        of_panels += [
            (f"{state} model with {generator}", found, part)
            for state, part in zip(("Clean", "Perturbed"), OUTPUTS[2:], strict=True)
        ]
    figure, axes = create_panels(len(of_panels) // 2, 2, 8, 3.6 * len(of_panels) // 2)
    points = []
    for letter, axis, (title, found, part) in zip("abcdefghijklmn", axes.flat, of_panels, strict=False):
        places, labels = embed_tsne(found[part]), found["labels"]
        accuracy = float((found[part].argmax(1) == labels).mean())
        axis.scatter(*places.T, c=labels, cmap="tab10", s=5, linewidth=0)
        axis.set_title(f"({letter}) {title}: {100 * accuracy:.1f} %")
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_color(GREY)
        points += [
            {"panel": letter, "x": float(x), "y": float(y), "label": int(label)}
            for (x, y), label in zip(places, labels, strict=True)
        ]
    return figure, points


def write_curve(directory: Path) -> list[Path]:
    """Write Figure 2: figure2.png and figure2.csv in a directory. Returns the files."""
    curve = VoltageCurve.default()
    rows = [
        dict(zip(CURVE_COLUMNS, (v, curve.bit_error_rate(v), curve.energy_per_access(v)), strict=True))
        for v in (round(float(v), 3) for v in np.arange(0.78, 1.0001, 0.005))
    ]
    picture, table = directory / "figure2.png", directory / "figure2.csv"
    plots.save(plots.draw_curve(curve), picture)
    write_text(table, format_csv(CURVE_COLUMNS, rows))
    return [picture, table]


def write_figure(name: str, lines: Sequence[Line], recipe: str, directory: Path) -> list[Path]:
    """Write one of Figures 3 to 6 into a run directory, as a picture and a CSV file.

    Parameters
    ----------
    name
        "figure3" to "figure6".
    lines
        Its cells, with results.
    recipe
        Recipe of the base models; it is part of the names of the files that Figure 3 reads.
    directory
        Run directory.

    Returns
    -------
    list of Path
        The files; none if there is nothing to draw yet.
    """
    if name == "figure3":
        return _write_tsne(lines, recipe, directory)
    rows = collect_rows(name, lines)
    if not rows:
        return []
    picture, table = directory / f"{name}.png", directory / f"{name}.csv"
    plots.save(draw_figure(name, lines), picture)
    write_text(table, format_csv(COLUMNS, rows))
    return [picture, table]


def _write_tsne(lines: Sequence[Line], recipe: str, directory: Path) -> list[Path]:
    written = []
    for faults in dict.fromkeys(line.cell.faults for line in lines):
        files = [
            (line.cell.spec.name, locate_file(Kind.OUTPUTS, line.cell, recipe, directory))
            for line in lines
            if line.cell.faults == faults
        ]
        found = [(generator, read_outputs(file)) for generator, file in files if file.exists()]
        if found:
            figure, points = draw_tsne(found)
            picture, table = directory / f"figure3-{faults}.png", directory / f"figure3-{faults}.csv"
            plots.save(figure, picture)
            write_text(table, format_csv(("panel", "x", "y", "label"), points))
            written += [picture, table]
    return written
