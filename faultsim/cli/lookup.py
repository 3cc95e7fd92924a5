"""`faultsim make-lookup`: a generator without a decoder."""

from pathlib import Path
from typing import Annotated

import typer


def make_lookup(
    generator: Annotated[
        Path,
        typer.Argument(
            help="A generator's weight file, as train-generator --trainer staged or lookup writes it. The classifier "
            "and the patterns next to it are used."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The weight file to write (.safetensors).")],
    confidence: Annotated[
        float,
        typer.Option(
            metavar="FRACTION",
            help="Where the classifier is less confident, the image stays as it is, and the base model decides: better "
            "without bit errors, worse with many.",
        ),
    ] = 0.0,
) -> None:
    """Make a generator that looks up class patterns.

    It draws nothing, so it needs no decoder. It has the classifier that staged training begins with, and the patterns
    that it finds: the pattern of the class that the classifier recognizes is added to the image. Other commands take
    its file as that of a generator.
    """
    from neuralfuse.lookup_file import write_lookup

    from ..training.to_file import check_weight_path

    check_weight_path(out)
    found = write_lookup(out, generator, confidence)
    print(f"{found.name}: {found.stored.bytes:,} bytes of weights, written to {out}")
