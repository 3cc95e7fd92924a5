"""Which pictures can be written. A module of its own, for it is asked before anything is drawn."""

from pathlib import Path

from ..errors import FaultsimError

ENDINGS = (".png", ".pdf", ".svg")
MOST_PANELS = 16  #: arrays in one picture of a chip


def is_picture(path: Path) -> bool:
    """By its name's ending."""
    return path.suffix.lower() in ENDINGS


def check_picture(path: Path, what: str, *others: str) -> None:
    """Raises FaultsimError unless the name ends like a picture's, or in one of `others`; `what` names it there."""
    allowed = (*ENDINGS, *others)
    if path.suffix.lower() not in allowed:
        raise FaultsimError(f"{what} {path}: the name must end in {', '.join(allowed[:-1])} or {allowed[-1]}")
