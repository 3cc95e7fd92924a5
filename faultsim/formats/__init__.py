"""Formats of stored weights: integers of 2 to 8 bits and floating-point numbers of 8 to 32, in 64-bit words."""

from . import operators as operators  # registers them
from .floating import FloatFormat, Nonfinite
from .format import AnyFormat, Format, Grid, as_format
from .integer import INT8, IntegerFormat

__all__ = [
    "INT8",
    "AnyFormat",
    "FloatFormat",
    "Format",
    "Grid",
    "IntegerFormat",
    "Nonfinite",
    "as_format",
]
