"""One rule for whole numbers: those of Python and NumPy are integers, True and 3.0 are not."""

import operator
from typing import Any

from .errors import EnergyError


def checked_positive(value: Any, name: str) -> int:
    """Return `value` as an int; EnergyError, naming it, unless it is an integer above zero."""
    try:
        number = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise EnergyError(f"{name} has to be a positive integer, not {value!r}")
    return number
