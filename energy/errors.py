"""The error that input can cause, and how long a line may be.

faultsim, energy and neuralfuse are one distribution, and a caller wants to catch one class. energy is its lowest
floor and imports neither of the others, so the class that all three share is defined here; `faultsim.FaultsimError` is
the name by which users and the other packages know it.
"""

MOST_CHARACTERS = 280
"""Most characters of a message: with the program's name in front it is a line of at most 300."""


def shorten(message: str, most: int = MOST_CHARACTERS) -> str:
    """Turn a message into one line of at most `most` characters.

    Control characters become spaces. A message that is too long loses its middle, for it says at the beginning what is
    wrong and at the end what would be right.
    """
    line = "".join(c if c.isprintable() else " " for c in message).strip()
    if len(line) <= most:
        return line
    end = most // 3
    return f"{line[: most - end - 5]} ... {line[-end:]}"


class FaultsimError(ValueError):
    """Input that cannot be used; the message says in one line what is wrong and what would be right."""

    # where users find it, and what a traceback shows
    __module__ = "faultsim"

    def __init__(self, message: object = "") -> None:
        super().__init__(shorten(str(message)))


class EnergyError(FaultsimError):
    """A layer, file or accelerator that cannot be counted."""
