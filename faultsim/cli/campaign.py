"""`faultsim sample-size`: how many single faults a campaign has to inject."""

import json
from typing import Annotated

import typer

from .numerals import fraction
from .options import JsonOption


def sample_size(
    population: Annotated[
        int,
        typer.Argument(
            help="All faults that could be injected. Flips of single bits: 8 times the bytes that `faultsim memory` "
            "counts for the model."
        ),
    ],
    margin: Annotated[
        float,
        typer.Option(
            parser=fraction, metavar="FRACTION", help="Half width of the interval of the share: 0.01 or 1%."
        ),
    ] = "1%",  # type: ignore[assignment]  # the parser reads the default too
    confidence: Annotated[
        float,
        typer.Option(parser=fraction, metavar="FRACTION", help="Probability with which the interval covers."),
    ] = "95%",  # type: ignore[assignment]
    proportion: Annotated[
        float,
        typer.Option(
            parser=fraction,
            metavar="FRACTION",
            help="Expected share of faults that have the effect; 50%, where nothing is known, needs the most.",
        ),
    ] = "50%",  # type: ignore[assignment]
    as_json: JsonOption = False,
) -> None:
    """Count the faults that a campaign has to inject.

    The formula is for single faults, drawn from all possible ones (Leveugle et al., DATE 2009).

    For a study over chips, each with its own failing cells, see sweep-voltage instead.
    """
    from ..studies.campaign import sample_size

    faults = sample_size(population, margin, confidence=confidence, proportion=proportion)
    if as_json:
        given = {
            "population": population,
            "margin": margin,
            "confidence": confidence,
            "proportion": proportion,
        }
        print(json.dumps({**given, "sample_size": faults}, indent=2))
        return
    print(
        f"{faults:,} of {population:,} faults ({100 * faults / population:.3g} %): the share within "
        f"{100 * margin:g} points, with {100 * confidence:g} % confidence"
    )
