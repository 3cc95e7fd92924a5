"""Pictures: bit errors and energy against voltage, failing cells of a chip. Colours are those of Okabe and Ito, which
colour-blind people can tell apart; the same data give the same bytes."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from .errors import FaultsimError
from .files import write_atomically

if TYPE_CHECKING:
    from .faultmap import FaultMap
    from .voltage import VoltageCurve

BLUE, VERMILION, GREEN, ORANGE, SKY, PURPLE = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7"
BLACK, GREY, LIGHT = "#000000", "#666666", "#F2F2F2"
STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same letters everywhere
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 2.0,
}
DPI = 150
MOST_PANELS = 16


# -- style ---------------------------------------------------------------------------------------------------


def panels(rows: int, columns: int, width: float, height: float) -> tuple[Figure, np.ndarray]:
    """Figure of width x height inches and its axes [rows, columns], in the house style."""
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **STYLE}):
        figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        return figure, figure.subplots(rows, columns, squeeze=False)


def save(figure: Figure, path: str | Path) -> None:
    """Writes a PNG, atomically and without a date. FaultsimError for other endings and full disks."""
    if Path(path).suffix.lower() != ".png":
        raise FaultsimError(f"picture {path}: the name must end in .png")
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **STYLE}):
        write_atomically(
            path, lambda temporary: figure.savefig(temporary, format="png", metadata={"Software": None})
        )


def voltage_label(curve: "VoltageCurve") -> str:
    """Of a voltage axis."""
    return "supply voltage / Vmin" if curve.v_min == 1.0 else "supply voltage (unit of the curve)"


# -- figures -------------------------------------------------------------------------------------------------


def curve_figure(curve: "VoltageCurve", low: float | None = None, high: float | None = None) -> Figure:
    """The paper's Figure 2 for any curve: bit error rate (left, logarithmic) and energy per read access (right).

    Without bounds: from where the bit error rate is greatest to a little above Vmin.
    """
    if low is None:
        low = curve.voltage(curve.bit_error_rates[-1])
    if high is None or high <= low:
        high = min(curve.v_high, curve.v_min + 0.1 * (curve.v_min - low))
    voltages = np.linspace(low, high, 400)
    rates = np.array([curve.bit_error_rate(v) for v in voltages])
    figure, ((left, right),) = panels(1, 2, 9.0, 4.0)
    figure.suptitle(f"SRAM under low voltage: curve '{curve.name}'", fontweight="bold")

    faulty = rates > 0
    left.semilogy(voltages[faulty], rates[faulty], color=VERMILION)
    left.set(title="Bit error rate", ylabel="bit error rate (share of failing cells)")
    right.plot(voltages, [curve.energy_per_access(v) for v in voltages], color=BLUE)
    right.set(title="Dynamic energy of one read access", ylabel="energy per access / that at Vmin")
    right.set_ylim(bottom=0)
    points = [
        (v, rate) for v, rate in zip(curve.voltages, curve.bit_error_rates, strict=True) if low <= v <= high
    ]
    left.plot(*zip(*((v, r) for v, r in points if r > 0), strict=True), "o", color=VERMILION, markersize=5)
    right.plot(
        [v for v, _ in points], [curve.energy_per_access(v) for v, _ in points], "o", color=BLUE, markersize=5
    )
    for axes in (left, right):
        axes.set_xlim(low, high)
        axes.set_xlabel(voltage_label(curve))
        if low < curve.v_min < high and curve.bit_error_rates[0] == 0.0:
            axes.axvline(curve.v_min, color=GREY, linestyle="--", linewidth=1)
            axes.annotate(
                "Vmin: no errors\nfrom here up",
                (curve.v_min, 0.5),
                xycoords=("data", "axes fraction"),
                xytext=(-4, 0),
                textcoords="offset points",
                ha="right",
                color=GREY,
                fontsize=8,
            )
    return figure


_KINDS = ((-1, "inverted", BLACK), (0, "stuck at 0", BLUE), (1, "stuck at 1", ORANGE))


def chip_figure(fault_map: "FaultMap", arrays: Sequence[int] = (0,), title: str | None = None) -> Figure:
    """Grids of bit cells of up to 16 arrays, the failing ones coloured by what they do; rows run to the right."""
    if not 1 <= len(arrays) <= MOST_PANELS:
        raise FaultsimError(f"{len(arrays)} arrays in one picture: it can be 1 to {MOST_PANELS}")
    geometry = fault_map.geometry
    width = 11.0
    height = 1.1 + len(arrays) * max(0.75, 0.45 + 10 * min(geometry.columns / geometry.rows, 1))
    figure, grid = panels(len(arrays), 1, width, height)
    figure.suptitle(title or f"Failing cells: {fault_map.source or 'measured chip'}", fontweight="bold")
    shown = set()
    for index, axes in zip(arrays, grid[:, 0], strict=True):
        cells = fault_map.in_array(index)
        image = np.zeros((geometry.columns, geometry.rows), np.uint8)
        for colour, (state, _, _) in enumerate(_KINDS, 1):
            chosen = cells.stuck_at == state
            image[cells.column[chosen], cells.row[chosen]] = colour
            if chosen.any():
                shown.add(colour)
        _cells(axes, image)
        axes.set_title(f"array {index}: {len(cells):,} of {geometry.cells:,} cells fail", loc="left")
        axes.set_ylabel("column (bit)")
    grid[-1, 0].set_xlabel("row (word line)")
    handles = [Patch(color=_KINDS[colour - 1][2], label=_KINDS[colour - 1][1]) for colour in sorted(shown)]
    if handles:
        figure.legend(handles=handles, loc="outside lower right", ncols=len(handles))
    return figure


def _cells(axes: Axes, image: np.ndarray) -> None:
    """One array's cells, 0: works, 1...: what is wrong with it."""
    columns, rows = image.shape
    colours = ListedColormap([LIGHT, *(colour for _, _, colour in _KINDS)])
    axes.imshow(image, cmap=colours, vmin=0, vmax=len(_KINDS), interpolation="nearest", aspect="auto")
    axes.grid(False)
    step = max(8, columns // 4)
    axes.set_yticks(range(0, columns, step))
    axes.set_xticks(np.linspace(0, rows, 9)[:-1].astype(int))
