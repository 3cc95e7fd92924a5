"""A picture of class patterns."""

import math
from collections.abc import Sequence
from textwrap import fill

from matplotlib.figure import Figure
from torch import Tensor

from faultsim.show.plots import GREY, create_panels, styled

from .patterns import LIMIT


@styled()
def draw_patterns(patterns: Tensor, class_names: Sequence[str], note: str) -> Figure:
    """Draw patterns, float32 [classes, 3, H, W], as they look on a gray image, with the names of their classes.

    `note` is the text below them.
    """
    count = len(patterns)
    columns = min(count, 5 if count <= 10 else 10)
    rows = math.ceil(count / columns)
    figure, grid = create_panels(rows, columns, 1.3 * columns + 0.2, 1.5 * rows + 0.5)
    figure.suptitle("Class patterns", fontweight="bold")
    figure.supxlabel(fill(note, 100), fontsize=8, color=GREY)
    for axes in grid.flat:
        axes.axis("off")
    seen = (patterns.clamp(-LIMIT, LIMIT) / LIMIT + 1) / 2
    for axes, picture, name in zip(grid.flat, seen, class_names, strict=False):
        axes.imshow(picture.permute(1, 2, 0).numpy(), interpolation="nearest")
        axes.set_title(name, fontsize=8)
    return figure
