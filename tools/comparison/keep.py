"""`python -m tools.comparison.keep RUNS`: copies finished points into results/comparison, draws them."""

import shutil
import sys
from pathlib import Path

from faultsim.show.plots import BLACK, GREY, create_panels, save, styled
from faultsim.show.series_styles import COLORS, MARKERS, choose_styles
from faultsim.studies.pareto import find_front
from tools.comparison.kept import FILES, FOLDER, Row, list_rows, read_points
from tools.comparison.measure import BASES, PRESETS

ROOT = Path(__file__).resolve().parents[2]
PICTURES = {"VGG11": Path("docs") / "comparison.png", "VGG7": Path("docs") / "comparison_robust.png"}


def keep(runs: Path) -> None:
    """Copy the points of a folder that are finished."""
    for about in runs.rglob("about.json"):
        folder = ROOT / FOLDER / about.parent.relative_to(runs)
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            shutil.copyfile(about.parent / name, folder / name)


@styled()
def draw(root: Path, base: str) -> None:
    """Draw accuracy against energy, a panel for each fault model."""
    points = read_points(root, base)
    panels = {preset: rows for preset in PRESETS if (rows := list_rows(points, preset))}
    names = list(dict.fromkeys(row.variant for rows in panels.values() for row in rows))
    styles = dict(zip(names, choose_styles(names), strict=True))
    figure, (axes,) = create_panels(1, len(panels), 3.0 + 5.0 * len(panels), 6.0)
    handles = {}
    for panel, (preset, rows) in zip(axes, panels.items(), strict=True):
        for name in names:
            mine = sorted((row for row in rows if row.variant == name), key=lambda row: -row.voltage)
            if not mine:
                continue
            hollow = mine[0].uncounted != ""
            color, marker = COLORS[styles[name].color], MARKERS[styles[name].marker]
            handles[f"{name} (≥)" if hollow else name] = panel.errorbar(
                [100 * row.energy for row in mine],
                [100 * row.mean for row in mine],
                [[100 * (row.mean - row.low) for row in mine], [100 * (row.high - row.mean) for row in mine]],
                color=color,
                marker=marker,
                markersize=6,
                markerfacecolor="white" if hollow else color,
                markeredgewidth=1.4,
                linewidth=0.9 if hollow else 1.3,
                capsize=2,
            )
        of_all = _front(rows)
        of_counted = _front([row for row in rows if not row.uncounted])
        for label, front, width, alpha, line in (
            ("Pareto front", of_all, 3.5, 0.3, "-"),
            ("of those counted in full", of_counted, 1.6, 0.9, (0, (4, 2))),
        ):
            (handles[label],) = panel.plot(
                [100 * row.energy for row in front],
                [100 * row.mean for row in front],
                color=BLACK,
                linewidth=width,
                alpha=alpha,
                linestyle=line,
                zorder=0,
            )
        voltages = sorted({row.voltage for row in rows}, reverse=True)
        panel.set_title(f"{preset}: {', '.join(f'{voltage:.2f}' for voltage in voltages)} Vmin")
        panel.set_xlabel("weight memory energy of one inference (% of unprotected at Vmin)")
        panel.set_ylabel("accuracy (%)")
        panel.set_ylim(0, 100)
    figure.supxlabel("hollow (≥): part of the energy is not counted", fontsize=8, color=GREY)
    figure.legend(handles.values(), handles.keys(), loc="outside right center", fontsize=8)
    save(figure, root / PICTURES[base])


def _front(rows: list[Row]) -> list[Row]:
    return find_front(rows, lambda row: row.energy, lambda row: row.mean)


if __name__ == "__main__":
    keep(Path(sys.argv[1]))
    for base in BASES:
        if (ROOT / FOLDER / base).exists():
            draw(ROOT, base)
