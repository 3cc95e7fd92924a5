"""A voltage curve as a table."""

from collections.abc import Sequence

from ..voltage import COLUMNS_PJ, VoltageCurve
from .tables import Table
from .units import format_percent


def make_curve_table(curve: VoltageCurve, voltages: Sequence[float]) -> Table:
    """Make a table of a curve's bit error rate and energy per read access at some voltages.

    Parameters
    ----------
    curve : VoltageCurve
        The curve.
    voltages : sequence of float
        Supply voltages, in the curve's unit.

    Returns
    -------
    Table
        With a column of picojoules where the curve has them.

    Raises
    ------
    FaultsimError
        For a voltage outside the curve.
    """
    rows = []
    for point in curve.rows(voltages):
        energy = point["energy_per_access"]
        cells = [f"{point['voltage']:.4g}", format_percent(point["bit_error_rate"]), f"{energy:.4f}"]
        cells.append(f"{100 * (1 - energy):.1f} %")
        if curve.picojoules:
            cells.append(f"{point[COLUMNS_PJ[-1]]:.4g}")
        rows.append(tuple(cells))
    header = ("voltage", "bit error rate", "energy/access", "energy saved")
    return Table(f"curve '{curve.name}'", header + (("pJ/access",) if curve.picojoules else ()), tuple(rows))
