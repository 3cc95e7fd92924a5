"""`faultsim report`: run directories as one HTML page."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import FaultsimError


def report(
    directories: Annotated[
        list[Path],
        typer.Argument(metavar="DIR", help="What sweep-voltage, reproduce or a training wrote."),
    ],
    out: Annotated[
        Path | None, typer.Option(help="The page to write. [default: report.html in the directory]")
    ] = None,
) -> None:
    """Turn run directories into one HTML page that needs no network.

    It shows what was run, accuracy and energy against voltage with confidence intervals, the paper's tables beside
    ours, and training curves; values are under every point. A directory may hold several runs, two folders deep.
    """
    from neuralfuse.paper.report import READER

    from ..io.files import keep_apart, write_text
    from ..show.report.collect import OWN, collect, files_in
    from ..show.report.page import page

    if out is None and len(directories) > 1:
        raise FaultsimError("several directories: say with --out FILE.html where the page shall be")
    out = out or directories[0] / "report.html"
    if out.suffix.lower() not in (".html", ".htm"):
        raise FaultsimError(f"--out {out}: the name of a page must end in .html")
    sections = collect(directories, (READER, *OWN))
    keep_apart({"--out": out}, {"the run's": [path for top in directories for path in files_in(top)]})
    text = page(sections)
    write_text(out, text)
    print(
        f"written to {out}: {len(sections)} section{'s' if len(sections) != 1 else ''}, {len(text) // 1024} KiB"
    )
