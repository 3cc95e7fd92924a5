"""Formats of stored weights: integers of 2 to 8 bits and floating-point numbers of 8 to 32, in 64-bit words."""

from . import operators as operators  # registers them
from .floating import FloatFormat, Nonfinite
from .format import Format, Grid
from .integer import IntegerFormat

__all__ = ["FloatFormat", "Format", "Grid", "IntegerFormat", "Nonfinite"]
