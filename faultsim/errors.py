"""The error that a user's input can cause, and the warning that it deserves."""


class FaultsimError(ValueError):
    """Input that cannot be used; the message says in one line what is wrong and what would be right."""


class FaultsimWarning(UserWarning):
    """Input that can be used, but is hardly what was meant; one line."""


def reason(error: BaseException) -> str:
    """The first line of what a user's own code failed with."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
