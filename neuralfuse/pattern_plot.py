"""A picture of class patterns."""

import math
from collections.abc import Sequence
from textwrap import fill

from matplotlib.figure import Figure
from torch import Tensor

from faultsim.show.plots import GREY, panels, styled

from .patterns import LIMIT


@styled()
def pattern_figure(patterns: Tensor, class_names: Sequence[str], told: str) -> Figure:
    """Each pattern, float32 [classes, 3, H, W], as it looks on a grey image, below its class's name; at the bottom what
    is `told` of them."""
    count = len(patterns)
    columns = min(count, 5 if count <= 10 else 10)
    rows = math.ceil(count / columns)
    figure, grid = panels(rows, columns, 1.3 * columns + 0.2, 1.5 * rows + 0.5)
    figure.suptitle("Class patterns", fontweight="bold")
    figure.supxlabel(fill(told, 100), fontsize=8, color=GREY)
    for axes in grid.flat:
        axes.axis("off")
    seen = (patterns.clamp(-LIMIT, LIMIT) / LIMIT + 1) / 2
    for axes, picture, name in zip(grid.flat, seen, class_names, strict=False):
        axes.imshow(picture.permute(1, 2, 0).numpy(), interpolation="nearest")
        axes.set_title(name, fontsize=8)
    return figure
