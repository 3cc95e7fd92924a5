"""Pictures: bit errors and energy against voltage, failing cells of a chip.

The colors are those of Okabe and Ito, which color-blind people can tell apart. The same data give the same bytes.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ..errors import FaultsimError
from ..io.files import write_atomically
from .pictures import MOST_PANELS, check_picture

if TYPE_CHECKING:
    from ..chips.fault_map import FaultMap
    from ..voltage import VoltageCurve

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
    "svg.hashsalt": "faultsim",  # otherwise every file has names of its own in it
}
# On top of matplotlib's own defaults, whatever the user's matplotlibrc says.
_CONTEXT: dict[Any, Any] = {
    name: value for name, value in matplotlib.rcParamsDefault.items() if name != "backend"
} | STYLE
DPI = 150
# without a date, and without the version of what wrote it
_NOTHING_ELSE = {
    ".png": {"Software": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    ".svg": {"Date": None, "Creator": None},
}


# -- style ---------------------------------------------------------------------------------------------------


@contextmanager
def styled() -> Iterator[None]:
    """Draw figures in the package's style, inside the block or the decorated function."""
    with matplotlib.rc_context(_CONTEXT):
        yield


def create_panels(rows: int, columns: int, width: float, height: float) -> tuple[Figure, np.ndarray]:
    """Create a figure of width x height inches and its axes [rows, columns], in the package's style."""
    with styled():
        figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        return figure, figure.subplots(rows, columns, squeeze=False)


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG, PDF or SVG, as the name ends, atomically and without a date.

    Raises
    ------
    FaultsimError
        For another ending, and where the file cannot be written.
    """
    check_picture(Path(path), "picture")
    ending = Path(path).suffix.lower()
    with styled(), warnings.catch_warnings():
        # letters that the font lacks are drawn as boxes; a file's name may have them
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        write_atomically(
            path,
            lambda temporary: figure.savefig(temporary, format=ending[1:], metadata=_NOTHING_ELSE[ending]),
        )


def label_voltage(curve: "VoltageCurve") -> str:
    """Return the label of a voltage axis."""
    return "supply voltage / Vmin" if curve.v_min == 1.0 else "supply voltage (unit of the curve)"


# -- figures -------------------------------------------------------------------------------------------------


@styled()
def draw_curve(curve: "VoltageCurve") -> Figure:
    """Draw the paper's Figure 2 for any curve: bit error rate (left, logarithmic), energy per read access (right).

    The voltages go from where the bit error rate is greatest to a little above Vmin.
    """
    low = curve.voltage(curve.bit_error_rates[-1]) if curve.bit_error_rates[-1] > 0 else curve.v_low
    high = min(curve.v_high, curve.v_min + 0.1 * (curve.v_min - low)) if curve.v_min > low else curve.v_high
    voltages = np.linspace(low, high, 400)
    rates = np.array([curve.bit_error_rate(v) for v in voltages])
    figure, ((left, right),) = create_panels(1, 2, 9.0, 4.0)
    figure.suptitle(f"SRAM under low voltage: curve '{curve.name}'", fontweight="bold")

    faulty = rates > 0
    left.semilogy(voltages[faulty], rates[faulty], color=VERMILION)
    left.set(title="Bit error rate", ylabel="bit error rate (share of failing cells)")
    unit = curve.access_pj or 1.0
    right.plot(voltages, [unit * curve.energy_per_access(v) for v in voltages], color=BLUE)
    ylabel = "energy per access (pJ)" if curve.picojoules else "energy per access / that at Vmin"
    right.set(title="Dynamic energy of one read access", ylabel=ylabel)
    right.set_ylim(bottom=0)
    points = [
        point for point in zip(curve.voltages, curve.bit_error_rates, strict=True) if low <= point[0] <= high
    ]
    dots: dict[str, Any] = {"marker": "o", "linestyle": "none"}
    left.plot([v for v, rate in points if rate > 0], [r for _, r in points if r > 0], color=VERMILION, **dots)
    energies = [unit * curve.energy_per_access(v) for v, _ in points]
    right.plot([v for v, _ in points], energies, color=BLUE, **dots)
    margin = 0.04 * (high - low)
    for axes, note, height in ((left, "no errors at\nand above Vmin", 0.92), (right, "Vmin", 0.04)):
        axes.set_xlim(low - margin, high + margin)
        axes.locator_params(axis="x", nbins=6)
        axes.set_xlabel(label_voltage(curve))
        if curve.bit_error_rates[0] == 0.0:
            axes.axvline(curve.v_min, color=GREY, linestyle="--", linewidth=1)
            axes.annotate(
                note,
                (curve.v_min, height),
                xycoords=("data", "axes fraction"),
                xytext=(-4, 0),
                textcoords="offset points",
                ha="right",
                va="center",
                color=GREY,
                fontsize=9,
            )
    return figure


_KINDS = ((-1, "inverted", BLACK), (0, "stuck at 0", BLUE), (1, "stuck at 1", ORANGE))


@styled()
def draw_chip(fault_map: "FaultMap", arrays: Sequence[int] = (0,), title: str | None = None) -> Figure:
    """Draw the bit cells of SRAM arrays, the failing ones colored by what they do. Rows run to the right.

    Parameters
    ----------
    fault_map : FaultMap
        The failing cells of a chip.
    arrays : sequence of int
        Which arrays: 1 to MOST_PANELS.
    title : str, optional
        Default: the source of the map.

    Raises
    ------
    FaultsimError
        For another number of arrays.
    """
    if not 1 <= len(arrays) <= MOST_PANELS:
        raise FaultsimError(f"{len(arrays)} arrays in one picture: it can be 1 to {MOST_PANELS}")
    geometry = fault_map.geometry
    width = 11.0
    height = 1.1 + len(arrays) * max(0.75, 0.45 + 10 * min(geometry.columns / geometry.rows, 1))
    figure, grid = create_panels(len(arrays), 1, width, height)
    figure.suptitle(title or f"Failing cells: {fault_map.source or 'measured chip'}", fontweight="bold")
    shown = set()
    for index, axes in zip(arrays, grid[:, 0], strict=True):
        cells = fault_map.in_array(index)
        image = np.zeros((geometry.columns, geometry.rows), np.uint8)
        for color, (state, _, _) in enumerate(_KINDS, 1):
            chosen = cells.stuck_at == state
            image[cells.column[chosen], cells.row[chosen]] = color
            if chosen.any():
                shown.add(color)
        _cells(axes, image)
        axes.set_title(f"array {index}: {len(cells):,} of {geometry.cells:,} cells fail", loc="left")
        axes.set_ylabel("column (bit)")
    grid[-1, 0].set_xlabel("row (word line)")
    handles = [Patch(color=_KINDS[kind - 1][2], label=_KINDS[kind - 1][1]) for kind in sorted(shown)]
    if handles:
        figure.legend(handles=handles, loc="outside lower right", ncols=len(handles))
    return figure


def _cells(axes: Axes, image: np.ndarray) -> None:
    """Draw the cells of one array: 0 works, k fails as entry k - 1 of _KINDS."""
    columns, rows = image.shape
    colors = ListedColormap([LIGHT, *(color for _, _, color in _KINDS)])
    axes.imshow(image, cmap=colors, vmin=0, vmax=len(_KINDS), interpolation="nearest", aspect="auto")
    axes.grid(False)
    step = max(8, columns // 4)
    axes.set_yticks(range(0, columns, step))
    axes.set_xticks(np.linspace(0, rows, 9)[:-1].astype(int))
