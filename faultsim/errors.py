"""The error that a user's input can cause, and the warning that it deserves."""

from energy.errors import FaultsimError as FaultsimError
from energy.errors import shorten as shorten


class FaultsimWarning(UserWarning):
    """Input that can be used, but is hardly what was meant; one line."""


def summarize_error(error: BaseException) -> str:
    """Return the first line of what a user's own code failed with, or the error's type where it says nothing."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
