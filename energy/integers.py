"""One rule for whole numbers: those of Python and NumPy are integers, True and 3.0 are not."""

from __future__ import annotations

import operator

from .errors import EnergyError


def positive(value: object, name: str) -> int:
    """`value` as an int; EnergyError, which calls it `name`, unless it is an integer above zero."""
    try:
        number = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise EnergyError(f"{name} has to be a positive integer, not {value!r}")
    return number
