"""What the directory of a sweep holds: results of chips that need not be computed again."""

import time
from collections.abc import Callable, Sequence
from itertools import pairwise

from ..errors import FaultsimError
from ..evaluation import Evaluation
from ..io.run_directory import RunDirectory, format_cell
from ..metrics.metric import Metric
from .domain_energy import Supplies
from .stopping import is_precise, plan_looks
from .sweep_result import OperatingPoint, SweepRow, Variant, make_chip_rows, make_row, read_evaluation

KEEP_SECONDS = 1.0
"""Least seconds between two times that rows are written, within one operating point."""
KEEP_SHARE = 20
"""They are also at least so many times as long as writing took: the file grows, and is written anew each time."""


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


def keep_rows(
    directory: RunDirectory | None,
    variant: Variant,
    point: OperatingPoint,
    labels: Sequence[str],
    before: Evaluation | None,
    supplies: Supplies | None,
    progress: Callable[[SweepRow], None] | None,
) -> Callable[[Evaluation], None]:
    """Return what evaluate calls with the chips so far: it adds their rows to the directory and reports progress.

    Rows are added from time to time and at the end.
    """
    kept = before.chips if before else 0
    last, pause = time.monotonic(), KEEP_SECONDS

    def group_done(found: Evaluation) -> None:
        nonlocal kept, last, pause
        found = before.joined(found) if before else found
        if directory and (found.chips == len(labels) or time.monotonic() - last >= pause):
            began = time.monotonic()
            directory.add(make_chip_rows(variant.name, point, labels, found, kept))
            kept, last = found.chips, time.monotonic()
            pause = max(KEEP_SECONDS, KEEP_SHARE * (last - began))
        if progress:
            progress(make_row(variant, point, found, supplies))

    return group_done
