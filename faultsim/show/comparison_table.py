"""What a comparison of mitigations found, as a table and the lines below it."""

from typing import TYPE_CHECKING

from ..studies.chip_statistics import compute_improvement
from .sweep_table import describe_cheapest, describe_sweep
from .tables import Table
from .units import format_percent

if TYPE_CHECKING:
    from ..studies.sweep_result import SweepResult, SweepRow


def make_comparison_tables(result: "SweepResult") -> list[Table]:
    """Make a table for each operating point: variants from the least energy to the most."""
    points = list(dict.fromkeys(row.point for row in result))
    first = next(iter(result.variants))
    front = {id(row) for row in result.pareto()}
    counted = {id(row) for row in result.pareto(lower_bounds=False)}
    tables = []
    for point in points:
        rows = [row for row in result if row.point == point]
        plain = next(row for row in rows if row.variant == first)
        rows.sort(key=lambda row: (row.energy_per_inference is None, row.energy_per_inference))
        errors = format_percent(point.bit_error_rate)
        cells = tuple(
            _make_cells(row, plain, "*" * (id(row) in front) + "+" * (id(row) in counted)) for row in rows
        )
        heading = ("variant", "energy", result.metric.name, "95 % CI", "gain", "")
        tables.append(Table(f"{point}, {errors} of the cells fail", heading, cells, words=(0, 5)))
    return tables


def describe_comparison(result: "SweepResult", accuracy: float | None = None) -> list[str]:
    """Say in lines what the columns are, what the energies leave out, and which variant is cheapest."""
    lines = [line for line in describe_sweep(result) if not line.startswith("energy:")]
    lines[0] = lines[0].replace("mean ± population std", "mean")
    if result.accesses is not None:
        lines.append("energy: weight memory energy of one inference, in % of unprotected at Vmin")
        lines.append("*: on the Pareto front, no other variant at any voltage is as good for less energy")
        without: dict[str, list[str]] = {}
        for name, rows in result.variants.items():
            without.setdefault(rows[0].uncounted, []).append(name)
        counted = without.pop("", [])
        if without and counted:
            lines.append("+: on the front of those whose energy is counted in full")
        lines += [f"not counted (>=): {what}: {', '.join(names)}" for what, names in without.items()]
    return [*lines, *([] if accuracy is None else describe_cheapest(result, accuracy))]


def _make_cells(row: "SweepRow", plain: "SweepRow", fronts: str) -> tuple[str, ...]:
    metric, (low, high) = row.evaluation.metric, row.interval
    interval = "-" if low != low else f"{metric.text(low, 1)} to {metric.text(high, 1)}"
    scale = 100 if metric.fraction else 1
    gain = compute_improvement(plain.evaluation, row.evaluation)
    half = scale * (gain.interval[1] - gain.mean)
    number = "{:+.1f}" if metric.fraction else "{:+.3g}"
    paired = number.format(scale * gain.mean) + ("" if half != half else f" ±{number.format(half)[1:]}")
    at_least = ">=" if row.uncounted else ""
    energy = "-" if row.energy_saving is None else f"{at_least}{100 * (1 - row.energy_saving):.1f} %"
    return (
        row.variant,
        energy,
        metric.text(row.evaluation.mean),
        interval,
        "" if row is plain else paired,
        fronts,
    )
