"""A chart as SVG: matplotlib draws it, its colors become those of the page, and every point carries its values."""

import io
import re
import textwrap
import unicodedata
import warnings
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .. import plots
from ..series_styles import COLORS, MARKERS, SeriesStyle
from .document import Chart, Point, Series

SIZES = {
    "wide": ((880, 380), (340, 290)),
    "half": ((460, 330), (340, 290)),
    "small": ((340, 230),),
}
"""Width and height of the drawings of a chart in pixels: the page shows the one that fits."""
_INK, _MUTED, _GRID, _PAPER = "#101010", "#202020", "#303030", "#404040"
_VARIABLES = {_INK: "--ink", _MUTED: "--muted", _GRID: "--grid", _PAPER: "--card"} | {
    color.lower(): f"--series-{i}" for i, color in enumerate(COLORS)
}
_ROW = 26
"""Pixels for each category."""
_SVG = "http://www.w3.org/2000/svg"
_HREF = "{http://www.w3.org/1999/xlink}href"


def draw_chart(chart: Chart, name: str) -> list[str]:
    """SVG elements of the chart in each of its sizes. `name` sets its ids apart from those of other charts."""
    return [
        _dressed(_svg(chart, width, height), chart, f"{name}-{width}") for width, height in SIZES[chart.size]
    ]


def choose_style(chart: Chart, index: int) -> SeriesStyle:
    """Return the style of a series: by default that of its place in the chart."""
    return chart.series[index].style or SeriesStyle(index % len(COLORS), index % len(MARKERS))


# -- drawing -------------------------------------------------------------------------------------------------


def _svg(chart: Chart, width: int, height: int) -> str:
    style: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "faultsim",
        "font.size": 11.5,
        "text.color": _INK,
        "axes.labelcolor": _MUTED,
        "axes.edgecolor": _MUTED,
        "axes.linewidth": 0.8,
        "axes.axisbelow": True,
        "xtick.color": _MUTED,
        "ytick.color": _MUTED,
        "xtick.major.size": 3,
        "ytick.major.size": 3,
        "grid.color": _GRID,
    }
    with plots.styled(), plots.matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # letters that matplotlib's font lacks: the reader's fonts have them
        if chart.categories:
            height = 80 + _ROW * len(chart.categories)
        figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.subplots()
        for index, series in enumerate(chart.series):
            _draw(axes, chart, index, series)
        _scales(axes, chart, narrow=width < 400)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        return buffer.getvalue()


def _draw(axes: Axes, chart: Chart, index: int, series: Series) -> None:
    style = choose_style(chart, index)
    color = COLORS[style.color]
    points = series.points
    x = [point.x for point in points]
    if points and all(point.spread for point in points):
        low, high = zip(*(point.spread for point in points), strict=True)
        axes.fill_between(x, low, high, color=color, alpha=0.16, linewidth=0)
    known = [(point.x, *point.interval) for point in points if point.interval is not None]
    if known:
        places, low, high = zip(*known, strict=True)
        axes.vlines(places, low, high, color=color, linewidth=1.1)
        axes.plot(places * 2, low + high, color=color, linestyle="none", marker="_", markersize=6)
    for point in points:
        if point.bars is not None:
            axes.plot(point.bars, [point.y] * 2, color=color, linewidth=1.1, alpha=0.55)
    axes.plot(
        x,
        [point.y for point in points],
        color=color,
        linestyle=("--" if series.dashed else "-") if series.joined else "none",
        linewidth=2,
        marker=MARKERS[style.marker],
        markersize=5.5 if len(points) < 30 else 3.5,
        markerfacecolor=_PAPER if series.hollow else color,
        clip_on=False,
        gid=f"series-{index}",
        zorder=3,
    )


def _scales(axes: Axes, chart: Chart, narrow: bool) -> None:
    axes.set_xlabel(textwrap.fill(chart.x_label, 40) if narrow else chart.x_label)
    if chart.x_log:
        least = min((p.x for series in chart.series for p in series.points if p.x > 0), default=1e-6)
        axes.set_xscale("symlog", linthresh=least)
    else:
        whole = all(float(p.x).is_integer() for series in chart.series for p in series.points)
        axes.xaxis.set_major_locator(MaxNLocator(5 if narrow else 9, integer=whole, steps=[1, 2, 2.5, 5, 10]))
    if chart.categories:
        labels = [_drawable(text) for text in chart.categories]
        labels = [textwrap.fill(text, 18) if narrow else text for text in labels]
        axes.set_yticks(range(len(labels)), labels, parse_math=False, fontsize=10)
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.set_xlim(*chart.y_range)
    else:
        axes.set_ylabel(chart.y_label)
        axes.set_ylim(*chart.y_range)
    if chart.top:
        step = 2 if narrow else 1
        places, marks = zip(*chart.top[::step], strict=True)
        top = axes.secondary_xaxis("top")
        top.set_xticks(places, marks, fontsize=10)
        top.set_xlabel(chart.top_label, fontsize=10)
        top.spines["top"].set_visible(True)


def _drawable(text: str) -> str:
    """Without what XML cannot hold."""
    return "".join(c if unicodedata.category(c) not in ("Cc", "Cs", "Cn") else " " for c in text)


# -- into the page -------------------------------------------------------------------------------------------


def _dressed(svg: str, chart: Chart, name: str) -> str:
    """Return a drawing in the page's colors, with ids of its own and with values under its points."""
    ElementTree.register_namespace("", _SVG)
    root = ElementTree.fromstring(svg)
    for index, series in enumerate(chart.series):
        _values(root, index, series.points)
    _simplify(root, name)
    for unused in ("width", "height", "version"):
        root.attrib.pop(unused, None)
    width = root.get("viewBox", "").split()[2]
    root.attrib |= {
        "class": "drawing",
        "role": "group",
        "aria-label": chart.title,
        "style": f"max-width:{width}px",
    }
    text = ElementTree.tostring(root, encoding="unicode")
    return re.sub(r"#[0-9a-f]{6}\b", lambda found: _variable(found[0]), text)


def _variable(color: str) -> str:
    return f"var({_VARIABLES[color]})" if color in _VARIABLES else color


def _values(root: ElementTree.Element, index: int, points: Sequence[Point]) -> None:
    """Each marker of a series in a group that can be pointed at and focused, with the values as its title."""
    group = next(e for e in root.iter(f"{{{_SVG}}}g") if e.get("id") == f"series-{index}")
    parent = next(e for e in group.iter() if any(child.tag == f"{{{_SVG}}}use" for child in e))
    markers = [child for child in parent if child.tag == f"{{{_SVG}}}use"]
    for place, (marker, point) in enumerate(zip(markers, points, strict=True)):
        parent.remove(marker)
        holder = ElementTree.SubElement(
            parent, f"{{{_SVG}}}g", {"class": "point", "role": "img", "data-series": str(index)}
        )
        holder.set("tabindex", "0" if index == place == 0 else "-1")
        title = ElementTree.SubElement(holder, f"{{{_SVG}}}title")
        title.text = "\n".join(map(_drawable, point.values))
        holder.append(marker)


def _simplify(root: ElementTree.Element, name: str) -> None:
    """Leaves out what a page needs once or not at all, and gives what is referred to names of its own."""
    referred: dict[str, str] = {}
    for element in root.iter():
        for value in element.attrib.values():
            for old in re.findall(r"^#(\S+)|url\(#([^)]+)\)", value):
                referred.setdefault(old[0] or old[1], f"{name}-{len(referred)}")
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    for element in root.iter():
        if "id" in element.attrib:
            if element.attrib["id"] in referred:
                element.set("id", referred[element.attrib["id"]])
            else:
                del element.attrib["id"]
        if _HREF in element.attrib:
            element.set("href", f"#{referred[element.attrib.pop(_HREF)[1:]]}")
        for key, value in element.attrib.items():
            if "url(#" in value:
                element.set(key, re.sub(r"url\(#([^)]+)\)", lambda m: f"url(#{referred[m[1]]})", value))
        if element.tag == f"{{{_SVG}}}text":  # the page's letters, in matplotlib's size
            size = re.search(r"font:[^;]*?([\d.]+)px", element.get("style", ""))
            style = re.sub(r"font:[^;]*;?\s*", "", element.get("style", ""))
            element.set("style", f"font-size: {size[1]}px; {style}".strip() if size else style)
