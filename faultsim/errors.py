"""The error that a user's input can cause."""


class FaultsimError(ValueError):
    """Input that cannot be used; the message says in one line what is wrong and what would be right."""
