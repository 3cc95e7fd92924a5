"""`faultsim report`: run directories as one HTML page."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    directories: Annotated[
        list[Path],
        typer.Argument(metavar="DIR", help="What sweep-voltage, reproduce or a training wrote."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="The page to write (.html). [default: report.html in the directory]", show_default=False
        ),
    ] = None,
) -> None:
    """Show run directories on one HTML page.

    The page needs no network. It shows what was run, accuracy and energy against voltage with confidence intervals, the
    paper's tables beside ours, and training curves; hover over a point to see its values. A directory may hold several
    runs, two folders deep.
    """
    from neuralfuse.paper.report import READER

    from ..show.report.collect import OWN
    from ..show.report.report_file import write_report

    print(write_report(directories, out, (READER, *OWN)))
