"""Packages that only some commands need, and what to install where one is missing."""

from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import FaultsimError


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Say which extra to install where a package that is imported inside cannot be found.

    Parameters
    ----------
    extra : str
        Name of the extra in pyproject.toml that installs the package.

    Raises
    ------
    FaultsimError
        In place of ModuleNotFoundError.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        raise FaultsimError(
            f'the package {package} is not installed, and this needs it: pip install "faultsim[{extra}]"'
        ) from error
