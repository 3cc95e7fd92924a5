"""What the directory of a sweep holds: results of chips that need not be computed again."""

from collections.abc import Sequence
from itertools import pairwise

from .errors import FaultsimError
from .evaluation import Evaluation
from .io.run_directory import RunDirectory, format_cell
from .metrics import Metric
from .stopping import is_precise, plan_looks
from .sweep_result import OperatingPoint, Variant, make_chip_rows, read_evaluation


def read_known(
    directory: RunDirectory,
    plan: Sequence[OperatingPoint],
    variants: Sequence[Variant],
    labels: Sequence[str],
    metric: Metric,
    precision: float | None = None,
) -> dict[tuple[str, OperatingPoint], Evaluation]:
    """Read the evaluations that the directory's rows hold, the last ones perhaps of the first chips only.

    Raises
    ------
    FaultsimError
        Unless they are what a sweep with this plan began with.
    """
    known: dict[tuple[str, OperatingPoint], Evaluation] = {}
    rows = list(directory.rows)
    looks = plan_looks(len(labels), precision)
    for point in plan:
        for first, end in pairwise((0, *looks)):
            for variant in variants:
                if not rows:
                    return known
                group, rows = rows[: end - first], rows[end - first :]
                evaluation = _read_rows(directory, variant, point, labels[first:end], metric, group)
                if first:
                    evaluation = known[variant.name, point].joined(evaluation)
                known[variant.name, point] = evaluation
            found = [known[variant.name, point] for variant in variants]
            if precision is None or found[-1].chips != end:
                continue
            if is_precise(found, precision, point.bit_error_rate):
                break
    if rows:
        raise _changed(directory)
    return known


def _read_rows(
    directory: RunDirectory,
    variant: Variant,
    point: OperatingPoint,
    labels: Sequence[str],
    metric: Metric,
    rows: list[dict[str, str]],
) -> Evaluation:
    """One variant on the first of these chips; FaultsimError unless the rows are what a sweep writes of it."""
    try:
        evaluation = read_evaluation(rows, metric)
        written = [
            {name: format_cell(row[name]) for name in (*directory.columns, *directory.optional)}
            for row in make_chip_rows(variant.name, point, labels, evaluation)
        ]
    except (ValueError, ArithmeticError):
        written = []
    if written != rows:
        raise _changed(directory)
    return evaluation


def _changed(directory: RunDirectory) -> FaultsimError:
    return FaultsimError(
        f"{directory.results} is not what this sweep wrote there: was it changed? choose another directory"
    )
