"""What a page says, in plain values. Everything is text that may have come from a foreign file: page.py escapes it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..series_styles import SeriesStyle

LARGEST = 1e30
"""Numbers beyond it, and what is no number, are no measured values."""


@dataclass(frozen=True)
class Point:
    """One measured value of a chart."""

    x: float
    y: float
    values: tuple[str, ...]
    """Lines of text that are shown under the pointer; the first is the heading."""
    interval: tuple[float, float] | None = None
    """Confidence interval around y."""
    spread: tuple[float, float] | None = None
    """Worst and best value around y."""
    bars: tuple[float, float] | None = None
    """Least and greatest x."""


@dataclass(frozen=True)
class Series:
    """Points of one color, joined by a line in their order unless `joined` is false."""

    name: str
    points: tuple[Point, ...]
    dashed: bool = False
    joined: bool = True
    hollow: bool = False
    """Markers without filling, for published values and lower bounds."""
    style: SeriesStyle | None = None
    """Color and marker; None: by its place in the chart."""


@dataclass(frozen=True)
class Chart:
    """A picture. `title` says what it shows, for those who see it and those who don't."""

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    x_log: bool = False
    """Logarithmic, down to 0."""
    y_range: tuple[float | None, float | None] = (None, None)
    top: tuple[tuple[float, str], ...] = ()
    """A second scale along the top: positions and their labels."""
    top_label: str = ""
    categories: tuple[str, ...] = ()
    """Names of y = 0, 1, ... from top to bottom, instead of numbers."""
    size: str = "wide"
    """Or "half", or "small": the place it takes on a large screen."""


@dataclass(frozen=True)
class Row:
    """A row of a table. `kind` is "" or "group" (one cell, heads the rows that follow) or "published"."""

    cells: tuple[str, ...]
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """The first column names the rows; the others hold numbers unless they are named in `words`."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    """Columns that are read from the left."""
    folded: bool = False
    """Shown when asked for: what a chart shows already."""


@dataclass(frozen=True)
class Tile:
    """A figure worth a large letter."""

    value: str
    label: str


@dataclass(frozen=True)
class Section:
    """One run, or one part of it."""

    title: str
    kind: str
    """ "Voltage sweep", ..."""
    path: str
    """The directory, as the user named it."""
    tiles: tuple[Tile, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    charts: tuple[Chart, ...] = ()
    explanation: str = ""
    """What the charts have in common."""
    pictures: tuple[tuple[str, bytes], ...] = ()
    """(what it shows, PNG) of each picture."""
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()
    """What the reader must know, such as a file that is damaged."""
    configuration: str = field(default="", repr=False)
    """All of it, as JSON."""


# -- words ---------------------------------------------------------------------------------------------------


DASH = "–"  # noqa: RUF001 typography: what is not known
MINUS = "−"  # noqa: RUF001 as wide as a plus


def format_share(fraction: float | None, digits: int = 2) -> str:
    """Format a fraction in percent; a dash for what is not known."""
    return DASH if fraction is None else f"{100 * fraction:.{digits}f} %".replace("-", MINUS)


def format_error_rate(fraction: float) -> str:
    """Format a bit error rate in percent with two significant digits."""
    return "0" if fraction == 0 else f"{100 * fraction:.2g} %"


def look_up(value: object, path: str) -> object:
    """Return what lies at a path such as "a.b.c" in nested JSON objects; None where there is nothing."""
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def format_value(value: object) -> str:
    """Format a JSON value for a reader; empty for nothing."""
    if value is None or isinstance(value, dict | list):
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:g}"
    return str(value)


def list_origin(information: object) -> tuple[tuple[str, str], ...]:
    """Return facts on where a result comes from, of what faultsim.io.provenance wrote down."""
    date = format_value(look_up(information, "date"))
    facts = (
        ("Device", format_value(look_up(information, "device"))),
        ("Date", date.replace("T", " ").replace("+00:00", " UTC")),
        ("Commit", format_value(look_up(information, "commit"))),
        ("faultsim", format_value(look_up(information, "versions.faultsim"))),
        ("torch", format_value(look_up(information, "versions.torch"))),
    )
    return tuple((name, text) for name, text in facts if text)
