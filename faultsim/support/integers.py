"""One rule for whole numbers from users: those of Python and NumPy are integers; True and 3.0 are not."""

import operator
from typing import Any

from ..errors import FaultsimError


def checked_integer(value: Any, name: str, least: int | None = None, most: int | None = None) -> int:
    """Return `value` as an int; FaultsimError, naming it, unless it is an integer from `least` to `most`."""
    try:
        if isinstance(value, bool) or "bool" in str(getattr(value, "dtype", "")):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise FaultsimError(f"{name} must be an integer, not {value!r}"[:300]) from None
    if (least is not None and number < least) or (most is not None and number > most):
        bounds = f"from {least} to {_bound(most)}" if most is not None else f"at least {least}"
        raise FaultsimError(f"{name} {number} must be {bounds}"[:300])
    return number


def _bound(number: int) -> str:
    for power in (31, 32, 43, 63, 64):
        if number in (2**power, 2**power - 1):
            return f"2**{power}" + (" - 1" if number == 2**power - 1 else "")
    return str(number)
