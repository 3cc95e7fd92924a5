"""The Pareto front: what nothing else beats, in energy and in what was measured."""

from collections.abc import Callable, Iterable
from typing import TypeVar

R = TypeVar("R")


def find_front(
    rows: Iterable[R], energy: Callable[[R], float | None], value: Callable[[R], float]
) -> list[R]:
    """Find the rows for which no other row has a higher value for as much energy or less.

    Parameters
    ----------
    rows
        Of any kind.
    energy
        The energy of a row; rows without one (None) are left out.
    value
        What was measured; a higher one is better.

    Returns
    -------
    list
        From the least energy to the most; of equal rows the first.
    """
    known = [(found, row) for row in rows if (found := energy(row)) is not None]
    front: list[R] = []
    for _, row in sorted(known, key=lambda pair: (pair[0], -value(pair[1]))):
        if not front or value(row) > value(front[-1]):
            front.append(row)
    return front
