"""The error that the energy package raises when its input is wrong."""


class EnergyError(ValueError):
    """Input that cannot be counted; the message says in one line what is wrong and what would be right."""

    def __init__(self, message: object = "") -> None:
        """Cut to one line without its middle, where it is too long."""
        line = "".join(c if c.isprintable() else " " for c in str(message)).strip()
        super().__init__(line if len(line) <= 280 else f"{line[:180]} ... {line[-93:]}")
