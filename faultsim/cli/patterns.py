"""`faultsim patterns`: the class patterns of staged training, as a picture."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import FaultsimError


def patterns(
    file: Annotated[
        Path, typer.Argument(help="OUT.patterns.safetensors, as train-generator --trainer staged writes it.")
    ],
    out: Annotated[Path, typer.Option(help="The picture to write.")],
) -> None:
    """Draw the class patterns of a staged training.

    The pattern of a class makes perturbed models predict this class, whatever image it is added to.
    """
    from neuralfuse.pattern_plot import draw_patterns
    from neuralfuse.patterns import load_patterns

    from ..show.plots import save

    found, about = load_patterns(file)
    names = about.get("class_names") or [str(index) for index in range(len(found))]
    if len(names) != len(found):
        raise FaultsimError(f"{file} names {len(names)} classes, and holds {len(found)} patterns")
    rate = about.get("training", {}).get("bit_error_rate")
    told = (
        f"{100 * about['mean']:.1f} % of the answers on {about['chips']} unseen chips are the pattern's class "
        f"(worst chip {100 * about['worst_chip']:.1f} %), at a bit error rate of {rate:g}"
        if {"mean", "chips", "worst_chip"} <= about.keys() and rate is not None
        else "how often they work was not measured"
    )
    save(draw_patterns(found, names, told), out)
    print(f"{len(found)} patterns: {told}")
    print(f"written: {out}")
