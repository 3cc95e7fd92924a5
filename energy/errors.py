"""The error that the energy package raises when its input is wrong."""


class EnergyError(ValueError):
    """Input that cannot be counted; the message says in one line what is wrong and what would be right."""
