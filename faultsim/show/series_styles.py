"""Colors and markers of the variants of a sweep, the same in every picture and on the page of a report."""

from collections.abc import Sequence
from typing import NamedTuple

COLORS = (
    "#D55E00",  # the first six, without black and yellow, are those of Okabe and Ito
    "#0072B2",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#882255",
    "#332288",
    "#7A7A00",
    "#666666",
    "#8C564B",
    "#C4007A",
)
"""Of the series; the page of a report has a light and a dark shade of each."""
MARKERS = ("o", "s", "^", "D", "v", "P")


class SeriesStyle(NamedTuple):
    """How a series is drawn."""

    color: int
    """Index in COLORS."""
    marker: int
    """Index in MARKERS."""


def choose_styles(names: Sequence[str]) -> list[SeriesStyle]:
    """Choose a style for each variant.

    Up to six have a color and a marker each. Of more, those of one family (secded:keep, secded:zero) share a color and
    have different markers, and so have families that share a color because there are more of them than colors.

    Parameters
    ----------
    names
        Of the variants; what stands before the first colon or space names the family.
    """
    if len(names) <= len(MARKERS):
        return [SeriesStyle(i, i) for i in range(len(names))]
    families: dict[str, int] = {}
    styles = []
    for name in names:
        family = name.replace(" ", ":").partition(":")[0]
        members = families.setdefault(family, 0)
        place = list(families).index(family)
        color = place % len(COLORS)
        markers = [(place + members + step) % len(MARKERS) for step in range(len(MARKERS))]
        free = [marker for marker in markers if SeriesStyle(color, marker) not in styles]
        styles.append(SeriesStyle(color, (free or markers)[0]))
        families[family] += 1
    return styles
