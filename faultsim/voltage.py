"""Supply voltage -> bit error rate and energy per read access.

Voltages of the default curve are normalized to Vmin, the lowest error-free voltage of the 14 nm SRAM of the paper
(Appendix A.3): at 0.83 Vmin 1 % of the bits fail and a read access takes 0.694 of its energy at Vmin (the ratio that
reproduces every entry of the paper's Table 7).
"""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from .errors import FaultsimError
from .hit_table import checked_rate
from .io.bounds import parse_number
from .io.files import write_text
from .support.text_table import format_html

COLUMNS = ("voltage", "bit_error_rate", "energy_per_access")
"""Header of a curve's CSV file."""
COLUMNS_PJ = (*COLUMNS[:2], "energy_per_access_pj")
"""The same where energies are in picojoules."""
_HIGHEST_RATE = 0.5  # a cell that reads at random
_HIGHEST_VOLTAGE = 1e6  # in any unit: its square is a number, and its misprint noticed
_LOWEST_VOLTAGE = 1e-6  # so is that of neighbors
_ENERGIES = (1e-30, 1e30)  # in any unit: every ratio of them is a number
_MOST_POINTS = 10_000
_MOST_CHARACTERS = 1 << 24  # of a CSV


@dataclass(frozen=True, repr=False)
class VoltageCurve:
    """Bit error rate and energy per access of an SRAM against its supply voltage.

    The curve is given by measured or modeled points. Between them, bit error rates are interpolated log-linearly and
    energies linearly in V**2 (dynamic energy is quadratic in the voltage). Between the last error-free point and the
    first erroneous one the slope of the first two erroneous points continues; with one only, its rate holds. Outside
    [v_low, v_high] nothing is assumed.

    Raises
    ------
    FaultsimError
        For fewer than two points, numbers out of range, and points that are not monotone.
    """

    name: str
    """Name in results."""
    voltages: tuple[float, ...]
    """Supply voltages in the unit of the source (normalized to Vmin, or volts), strictly descending."""
    bit_error_rates: tuple[float, ...]
    """Fraction of failing cells at each voltage, ascending, within [0, 0.5]."""
    energies: tuple[float, ...]
    """Energy of one read access at each voltage, in any unit, not ascending."""
    exponent: float | None = None
    """Energy is V**exponent; None: it is interpolated."""
    picojoules: bool = False
    """The energies are in picojoules; otherwise only their ratios have a meaning."""

    def __post_init__(self) -> None:
        for field in ("voltages", "bit_error_rates", "energies"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        lengths = [len(self.voltages), len(self.bit_error_rates), len(self.energies)]
        if len(set(lengths)) != 1 or lengths[0] < 2:
            raise FaultsimError(
                f"voltage curve {self.name}: needs at least two points, each with three numbers"
            )
        if lengths[0] > _MOST_POINTS:
            raise FaultsimError(f"voltage curve {self.name}: more than {_MOST_POINTS:,} points")
        for point in zip(self.voltages, self.bit_error_rates, self.energies, strict=True):
            v, rate, energy = point
            if not (
                math.isfinite(rate)
                and _LOWEST_VOLTAGE <= v <= _HIGHEST_VOLTAGE
                and _ENERGIES[0] <= energy <= _ENERGIES[1]
            ):
                raise FaultsimError(
                    f"voltage curve {self.name}: point {point} must hold finite numbers, voltage and energy above 0 "
                    f"(voltage {_LOWEST_VOLTAGE:g} to at most {_HIGHEST_VOLTAGE:g}, energy {_ENERGIES[0]:g} to "
                    f"{_ENERGIES[1]:g})"
                )
            if not 0 <= rate <= _HIGHEST_RATE:
                raise FaultsimError(
                    f"voltage curve {self.name}: bit error rate {rate} at {v} is outside [0, 0.5] "
                    "(a fraction: 1 % is 0.01)"
                )
        for i, j in pairwise(range(lengths[0])):
            if self.voltages[j] >= self.voltages[i]:
                raise FaultsimError(
                    f"voltage curve {self.name}: voltages must fall from row to row without repeats "
                    f"(or rise throughout), but {self.voltages[i]} is followed by {self.voltages[j]}"
                )
            if self.bit_error_rates[j] < self.bit_error_rates[i]:
                raise FaultsimError(
                    f"voltage curve {self.name}: the bit error rate must not fall with the voltage, but it goes "
                    f"from {self.bit_error_rates[i]} at {self.voltages[i]} to {self.bit_error_rates[j]} "
                    f"at {self.voltages[j]}"
                )
            if self.energies[j] > self.energies[i]:
                raise FaultsimError(
                    f"voltage curve {self.name}: the energy per access must not rise as the voltage falls, but it goes "
                    f"from {self.energies[i]} at {self.voltages[i]} to {self.energies[j]} at {self.voltages[j]}"
                )

    def __repr__(self) -> str:
        unit = "picojoules" if self.picojoules else "relative energies"
        return (
            f"VoltageCurve({self.name!r}, {len(self.voltages)} points from {self.v_low:.4g} to {self.v_high:.4g}, "
            f"v_min {self.v_min:.4g}, {unit})"
        )

    def _repr_html_(self) -> str:
        """Show the points in a notebook, thinned out where there are many."""
        step = -(-len(self.voltages) // 20)
        points = zip(self.voltages, self.bit_error_rates, self.energies, strict=True)
        rows = [(f"{v:.4g}", f"{rate:.3g}", f"{energy:.4g}") for v, rate, energy in points][::step]
        energy = "energy per access, pJ" if self.picojoules else "energy per access"
        return format_html(("voltage", "bit error rate", energy), rows, range(3), repr(self))

    # -- sources ------------------------------------------------------------------------------------------------

    @classmethod
    def default(cls) -> "VoltageCurve":
        """Return the curve of the paper's 14 nm SRAM.

        The bit error rate is log-linear through the two values that the paper gives: 1e-2 at 0.83 Vmin and 1e-6 just
        below Vmin (one failing cell in about a million is the least that the characterized 32 arrays of 512x64 cells
        can show). The energy per access is V**1.960, which is 0.694 at 0.83 Vmin.
        """
        exponent = math.log(0.694) / math.log(0.83)
        per_volt = math.log(1e-6 / 1e-2) / (1.00 - 0.83)
        lowest = 1.00 + math.log(_HIGHEST_RATE / 1e-6) / per_volt  # where one bit in two is wrong
        points = (
            (1.5, 0.0),
            (1.0, 0.0),
            (math.nextafter(1.0, 0.0), 1e-6),
            (0.83, 1e-2),
            (lowest, _HIGHEST_RATE),
            (0.5, _HIGHEST_RATE),
        )
        voltages, rates = zip(*points, strict=True)
        return cls("14nm", voltages, rates, tuple(v**exponent for v in voltages), exponent)

    @classmethod
    def from_csv(cls, path: str | Path) -> "VoltageCurve":
        """Read a characterization of your own SRAM.

        Parameters
        ----------
        path
            CSV with the header voltage,bit_error_rate,energy_per_access (or energy_per_access_pj, in picojoules),
            sorted by voltage, either way. Lines that begin with # are comments.

        Raises
        ------
        FaultsimError
            Naming the line that is wrong.
        """
        path = Path(path)
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                text = file.read(_MOST_CHARACTERS + 1)
            if len(text) > _MOST_CHARACTERS:
                raise FaultsimError(
                    f"voltage curve {path}: this is no table of some voltages, it is too large"
                )
        except OSError as error:
            raise FaultsimError(f"voltage curve {path}: cannot be read: {error.strerror or error}") from None
        except UnicodeDecodeError:
            raise FaultsimError(f"voltage curve {path}: this is no CSV file") from None
        points: list[tuple[float, float, float]] = []
        header: tuple[str, ...] | None = None
        for line, row in enumerate(text.splitlines(), 1):
            try:
                cells = tuple(cell.strip() for cell in next(csv.reader([row]), []))
            except csv.Error:
                raise FaultsimError(f"voltage curve {path}: this is no CSV file") from None
            if not any(cells) or cells[0].startswith("#"):
                continue
            if header is None:
                header = cells
                if header not in (COLUMNS, COLUMNS_PJ):
                    raise FaultsimError(
                        f"voltage curve {path}, line {line}: the header must be {','.join(COLUMNS)} (or "
                        f"{COLUMNS_PJ[-1]}), not {','.join(header)[:80]!r}"
                    )
                continue
            try:
                v, rate, energy = map(parse_number, cells)
            except ValueError:
                raise FaultsimError(
                    f"voltage curve {path}, line {line}: three numbers expected, all of them finite, not "
                    f"{','.join(cells)[:80]!r}"
                ) from None
            if len(points) == _MOST_POINTS:
                raise FaultsimError(f"voltage curve {path}, line {line}: more than {_MOST_POINTS:,} points")
            points.append((v, rate, energy))
        if header is None:
            raise FaultsimError(f"voltage curve {path}: there is no header {','.join(COLUMNS)}")
        if len(points) < 2:
            raise FaultsimError(f"voltage curve {path}: at least two points expected, found {len(points)}")
        if points[0][0] < points[-1][0]:
            points.reverse()
        voltages, rates, energies = zip(*points, strict=True)
        return cls(path.name, voltages, rates, energies, picojoules=header == COLUMNS_PJ)

    def to_csv(self, path: str | Path, voltages: Sequence[float] | None = None) -> None:
        """Write the curve in the form that `from_csv` reads.

        Parameters
        ----------
        path
            File to write (.csv), atomically.
        voltages
            Write the curve at these voltages. Default: its points, with the digits that they have.

        Raises
        ------
        FaultsimError
            For a voltage outside [v_low, v_high].
        """
        header = COLUMNS_PJ if self.picojoules else COLUMNS
        if voltages is None:
            rows = [*zip(self.voltages, self.bit_error_rates, self.energies, strict=True)]
        else:
            rows = [(row[header[0]], row[header[1]], row[header[2]]) for row in self.rows(voltages)]
        lines = [",".join(header), *(",".join(map(repr, row)) for row in rows)]
        write_text(Path(path), "\n".join(lines) + "\n")

    # -- questions ----------------------------------------------------------------------------------------------

    @property
    def v_high(self) -> float:
        """The highest voltage of the curve."""
        return self.voltages[0]

    @property
    def v_low(self) -> float:
        """The lowest voltage of the curve."""
        return self.voltages[-1]

    @property
    def v_min(self) -> float:
        """The lowest error-free voltage; where every point has errors, the highest voltage."""
        free = [v for v, rate in zip(self.voltages, self.bit_error_rates, strict=True) if rate == 0.0]
        return free[-1] if free else self.v_high

    def _checked(self, voltage: float) -> float:
        """Return a voltage as a float; FaultsimError outside [v_low, v_high]."""
        v = float(voltage)
        if not self.v_low <= v <= self.v_high:  # NaN included
            raise FaultsimError(
                f"voltage {voltage} is outside the curve '{self.name}', which covers {self.v_low:.4g} to "
                f"{self.v_high:.4g}"
            )
        return v

    def _faulty(self) -> tuple[list[tuple[float, float]], float]:
        """Return the erroneous points, highest voltage first, and d ln(rate) / dV above the first of them."""
        points = [(v, r) for v, r in zip(self.voltages, self.bit_error_rates, strict=True) if r > 0]
        slope = 0.0
        if len(points) > 1:
            (v0, r0), (v1, r1) = points[:2]
            slope = (math.log(r1) - math.log(r0)) / (v1 - v0)
        return points, slope

    def bit_error_rate(self, voltage: float) -> float:
        """Return the fraction of failing cells at a voltage; FaultsimError outside [v_low, v_high]."""
        v = self._checked(voltage)
        points, slope = self._faulty()
        if not points or (v >= self.v_min and self.bit_error_rates[0] == 0.0):
            return 0.0
        v0, r0 = points[0]
        if v > v0:  # between the last error-free point and the first erroneous one
            return min(r0, math.exp(math.log(r0) + slope * (v - v0)))
        for (v0, r0), (v1, r1) in pairwise(points):
            if v == v0:
                return r0
            if v > v1:
                rate = math.exp(math.log(r0) + (v - v0) / (v1 - v0) * (math.log(r1) - math.log(r0)))
                return min(max(rate, r0), r1)  # the last digit must not break the monotony
        return points[-1][1]

    def rows(self, voltages: Sequence[float]) -> list[dict[str, float]]:
        """Return the curve at some voltages as records, which pandas.DataFrame reads.

        Returns
        -------
        list of dict
            voltage, bit_error_rate (a fraction), energy_per_access (relative to v_min) and, where the curve has
            picojoules, energy_per_access_pj.

        Raises
        ------
        FaultsimError
            For a voltage outside [v_low, v_high].
        """
        found = []
        for v in voltages:
            row = dict(zip(COLUMNS, (v, self.bit_error_rate(v), self.energy_per_access(v)), strict=True))
            if self.access_pj is not None:
                row[COLUMNS_PJ[-1]] = self.access_pj * row[COLUMNS[-1]]
            found.append(row)
        return found

    def voltage(self, bit_error_rate: float) -> float:
        """Return the highest voltage with a bit error rate, v_min for 0.

        A rate that the curve jumps over at v_min gives v_min, a plateau its highest point. FaultsimError for a rate
        that does not occur on the curve.
        """
        rate = checked_rate(bit_error_rate)
        points, slope = self._faulty()
        least, most = self.bit_error_rates[0], self.bit_error_rates[-1]
        if not least <= rate <= most:
            raise FaultsimError(
                f"bit error rate {rate:g} does not occur on the curve '{self.name}', "
                f"whose rates go from {least:g} to {most:g}"
            )
        if rate == 0.0:
            return self.v_min
        for v, r in points:
            if r == rate:
                return v
        v0, r0 = points[0]
        if rate < r0:
            return min(self.v_min, v0 + (math.log(rate) - math.log(r0)) / slope) if slope else self.v_min
        (v0, r0), (v1, r1) = next(pair for pair in pairwise(points) if pair[0][1] < rate < pair[1][1])
        v = v0 + (v1 - v0) * (math.log(rate) - math.log(r0)) / (math.log(r1) - math.log(r0))
        return min(max(v, v1), v0)

    def energy_per_access(self, voltage: float) -> float:
        """Return the energy of one access relative to that at v_min; FaultsimError outside [v_low, v_high]."""
        v = self._checked(voltage)
        if self.exponent is not None:
            return float((v / self.v_min) ** self.exponent)
        squares = np.square(np.array(self.voltages[::-1]))
        energies = np.array(self.energies[::-1])
        at = np.interp([v * v, self.v_min**2], squares, energies)
        return float(at[0] / at[1])

    def describe(self) -> dict[str, Any]:
        """Return all fields, for results: VoltageCurve(**curve.describe()) == curve."""
        known = dict(vars(self))
        if not self.picojoules:  # so that results from before curves had units can be continued
            del known["picojoules"]
        return known

    @property
    def access_pj(self) -> float | None:
        """Energy of one read access at v_min in picojoules; None where only ratios of energies are known."""
        if not self.picojoules:
            return None
        squares = np.square(np.array(self.voltages[::-1]))
        return float(np.interp(self.v_min**2, squares, np.array(self.energies[::-1])))
