"""The error that a user's input can cause, the warning that it deserves, and how long a line may be."""

MOST_CHARACTERS = 280  #: of a message: with the program's name in front it is a line of at most 300


def one_line(message: str, most: int = MOST_CHARACTERS) -> str:
    """The message without line breaks and control characters, and where it is too long without its middle: what
    is wrong stands at the beginning, what would be right at the end."""
    line = "".join(c if c.isprintable() else " " for c in message).strip()
    if len(line) <= most:
        return line
    end = most // 3
    return f"{line[: most - end - 5]} ... {line[-end:]}"


class FaultsimError(ValueError):
    """Input that cannot be used; the message says in one line what is wrong and what would be right."""

    def __init__(self, message: object = "") -> None:
        super().__init__(one_line(str(message)))


class FaultsimWarning(UserWarning):
    """Input that can be used, but is hardly what was meant; one line."""


def reason(error: BaseException) -> str:
    """The first line of what a user's own code failed with."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
