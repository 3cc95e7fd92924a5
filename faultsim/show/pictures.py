"""Which pictures can be written. A module of its own, for commands check names before matplotlib is imported."""

from pathlib import Path

from ..errors import FaultsimError

ENDINGS = (".png", ".pdf", ".svg")
MOST_PANELS = 16
"""Arrays in one picture of a chip."""


def is_picture(path: Path) -> bool:
    """Tell by its ending whether a name is that of a picture."""
    return path.suffix.lower() in ENDINGS


def check_picture(path: Path, what: str, *others: str) -> None:
    """Check the ending of a picture's name.

    Parameters
    ----------
    path : Path
        The name.
    what : str
        What the error calls it.
    *others : str
        Further endings that are allowed.

    Raises
    ------
    FaultsimError
        For another ending.
    """
    allowed = (*ENDINGS, *others)
    if path.suffix.lower() not in allowed:
        raise FaultsimError(f"{what} {path}: the name must end in {', '.join(allowed[:-1])} or {allowed[-1]}")
