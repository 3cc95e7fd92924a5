"""Numbers as people type them: fractions, percent, lists and ranges."""

import math
from decimal import Decimal, InvalidOperation, localcontext

import typer

from ..errors import FaultsimError

MOST_NUMBERS = 10_000


def fraction(text: str) -> float:
    """Parse a rate or a probability: a fraction like 0.01, or percent with the sign like 1%."""
    try:
        return float(_decimal(text))
    except InvalidOperation:
        raise typer.BadParameter(
            f"{text!r} is not a number: write a fraction like 0.01, or percent like 1%"
        ) from None


def accuracy(text: str) -> float:
    """Parse an accuracy above 0 and at most 1. A number above 1 is percent, with or without the sign."""
    value = fraction(text)
    value = value / 100 if value > 1 and not text.strip().endswith("%") else value
    if not 0 < value <= 1:  # NaN included
        raise typer.BadParameter(
            f"{text!r} is not an accuracy that a model can reach: write a fraction like 0.97, or percent like 97%"
        )
    return value


def points(text: str) -> float:
    """Parse a number above 0, with or without the percent sign: points of an accuracy, which stay points."""
    word = text.strip().removesuffix("%")
    try:
        value = float(Decimal(word.strip()))
    except InvalidOperation:
        value = math.nan
    if not 0 < value < math.inf:
        raise typer.BadParameter(f"{text!r} is not a number above 0: write points like 0.5")
    return value


def _decimal(text: str) -> Decimal:
    """A number, or percent of one; InvalidOperation for anything else."""
    word = text.strip()
    if word.endswith("%"):
        return Decimal(word[:-1].rstrip()).scaleb(-2)
    return Decimal(word)


def parse_named(text: str, option: str) -> dict[str, float]:
    """Parse a list "secded=0.05,parity=2%" of fractions by name."""
    found: dict[str, float] = {}
    for item in filter(None, map(str.strip, text.split(","))):
        name, _, number = item.partition("=")
        try:
            found[name.strip()] = float(_decimal(number))
        except InvalidOperation:
            raise FaultsimError(f"{option} {item!r}: write NAME=FRACTION, such as secded=0.05") from None
    return found


def parse_numbers(text: str, option: str = "--voltages", rates: bool = False) -> list[float]:
    """Parse a list "0.8,0.9", or an inclusive range "first:last:step".

    Ranges are counted in decimals: 0.78:1.00:0.01 contains exactly the float 0.83.

    Parameters
    ----------
    text : str
        What the user typed.
    option : str
        Name of the option, for error messages.
    rates : bool
        Each number is a fraction, or percent with the sign.

    Returns
    -------
    list of float
        The numbers in the order given.

    Raises
    ------
    FaultsimError
        For anything that is not a finite number, for repeated numbers, a step that is not above 0, a first number above
        the last, and more than 10,000 numbers.
    """

    def number(word: str) -> Decimal:
        try:
            value = _decimal(word) if rates else Decimal(word.strip())
        except InvalidOperation:
            value = None
        if value is None or not value.is_finite() or abs(value.adjusted()) > 300:
            example = "0.001,0.01 or 0.1%,1%" if rates else "0.8,0.9"
            raise FaultsimError(
                f"{option} {text!r}: {word.strip()!r} is not a finite number; write a list like {example}, "
                f"or a range like {'0:0.02:0.005' if rates else '0.78:1.00:0.02'}"
            )
        return value

    if ":" not in text:
        values = [number(word) for word in text.split(",")]
        if len(values) > MOST_NUMBERS:
            raise FaultsimError(f"{option}: {len(values)} numbers, at most {MOST_NUMBERS:,} are allowed")
    else:
        parts = text.split(":")
        if len(parts) != 3:
            raise FaultsimError(f"{option} {text!r}: a range is written first:last:step, like 0.78:1.00:0.02")
        first, last, step = map(number, parts)
        if step <= 0:
            raise FaultsimError(f"{option} {text!r}: the step {step} must be above 0")
        if first > last:
            raise FaultsimError(
                f"{option} {text!r}: the first number {first} must not be above the last, {last}"
            )
        with localcontext() as context:
            context.prec = 50
            steps = (last - first) / step
            if steps >= MOST_NUMBERS:
                raise FaultsimError(
                    f"{option} {text!r}: more than {MOST_NUMBERS:,} points; take a larger step"
                )
            values = [first + i * step for i in range(int(steps) + 1)]
    numbers = [float(value) for value in values]
    seen = set()
    for value in numbers:
        if value in seen:
            raise FaultsimError(f"{option} {text!r}: {value:g} occurs more than once")
        seen.add(value)
    return numbers
