"""Run directories -> an HTML file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import FaultsimError
from ...io.files import keep_apart, write_text
from .collect import OWN, Reader, collect, list_files
from .page import render_page


@dataclass(frozen=True)
class ReportFile:
    """A report that was written."""

    path: Path
    """The HTML file."""
    sections: int
    """Sections on it, one for each run or table."""
    characters: int
    """Length of the page."""

    def __str__(self) -> str:
        plural = "" if self.sections == 1 else "s"
        return f"written to {self.path}: {self.sections} section{plural}, {self.characters // 1024} KiB"


def write_report(
    directories: Sequence[Path], out: Path | None = None, readers: Sequence[Reader] = OWN
) -> ReportFile:
    """Write one HTML page on run directories.

    Parameters
    ----------
    directories : sequence of path
        What sweeps, reproductions and trainings wrote, also up to two folders deeper.
    out : path, optional
        The page to write, atomically. Default: report.html in the directory, if there is only one.
    readers : sequence of Reader
        Which runs are known. Default: sweeps and trainings of faultsim's own.

    Returns
    -------
    ReportFile
        `print` shows it in one line.

    Raises
    ------
    FaultsimError
        For directories without a readable run, and a page that would replace a file of theirs.
    """
    if out is None and len(directories) > 1:
        raise FaultsimError("where to write a report on several directories? add --out FILE.html")
    out = out or directories[0] / "report.html"
    if out.suffix.lower() not in (".html", ".htm"):
        raise FaultsimError(f"--out {out}: the name of a page must end in .html")
    sections = collect(directories, readers)
    keep_apart({"--out": out}, {"the run's": [path for top in directories for path in list_files(top)]})
    text = render_page(sections)
    write_text(out, text)
    return ReportFile(out, len(sections), len(text))
