"""Lines of a table: the published row of a cell, and our results."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from .. import published
from .full_cells import BITS, LAMBDA
from .result import Cell, Result, read_results


@dataclass(frozen=True)
class Published:
    """A row of the paper's tables, in percent; None where the paper reports nothing or the source is unreadable."""

    clean: float | None = None
    perturbed: float | None = None
    perturbed_std: float | None = None
    clean_fused: float | None = None
    perturbed_fused: float | None = None
    perturbed_fused_std: float | None = None
    improvement: float | None = None


@cache
def _rows() -> dict[Cell, Published]:
    """Return all published rows. `faults` of the cells is empty, because the paper has one fault model only."""
    from .cells import NAMES, select_cells

    alone = {
        (row["dataset"], row["base_model"], float(row["bit_error_rate"])): _alone(row)
        for row in published.read_table("base_models")
    }
    found: dict[Cell, Published] = {}
    tables = {
        "relaxed_access": [n for n in NAMES if n in ("table1", "table9", "table10")],
        "transfer": [n for n in NAMES if n == "table2" or n in {f"table{i}" for i in range(11, 16)}],
        "adversarial_training": ["table16"],
    }
    for file, names in tables.items():
        for name in names:
            rows = [row for row in published.read_table(file) if row.get("table", name) == name]
            for cell in (replace(cell, faults="") for cell in select_cells(name, faults=("iid_flips",))):
                row = next(row for row in rows if _is(row, cell))
                found[cell] = Published(
                    **alone.get((cell.dataset, cell.base, cell.bit_error_rate), {}),
                    clean_fused=_number(row.get("clean_acc_nf", "")),
                    perturbed_fused=_number(row["perturbed_acc_nf"]),
                    perturbed_fused_std=_number(row["perturbed_acc_nf_std"]),
                    improvement=_number(row["improvement"]),
                )
    for name, file, fused in (
        ("full-table10", "full_lambda", "nf"),
        ("full-table11", "full_universal_input_perturbation", "uip"),
        ("full-table21", "full_ensemble_transfer", "nf"),
        ("full-table22", "full_reduced_precision", "nf"),
        ("full-table23", "full_reduced_precision", "nf"),
    ):
        rows = published.read_table(file)
        for cell in (replace(cell, faults="") for cell in select_cells(name, faults=("iid_flips",))):
            row = next(row for row in rows if _is(row, cell))
            known = alone.get((cell.dataset, cell.base, cell.bit_error_rate), {})
            if "perturbed_acc" in row:
                known = _alone(row)
            # a cell that the workshop paper has, too, keeps its row there
            found.setdefault(
                cell,
                Published(
                    **known,
                    clean_fused=_number(row[f"clean_acc_{fused}"]),
                    perturbed_fused=_number(row[f"perturbed_acc_{fused}"]),
                    perturbed_fused_std=_number(row[f"perturbed_acc_{fused}_std"]),
                    improvement=_number(row.get("recovery", "")),
                ),
            )
    return found


def _alone(row: dict[str, str]) -> dict[str, float | None]:
    """Return what a published row says of the base model without a generator."""
    return {
        "clean": _number(row["clean_acc"]),
        "perturbed": _number(row["perturbed_acc"]),
        "perturbed_std": _number(row["perturbed_acc_std"]),
    }


def _is(row: dict[str, str], cell: Cell) -> bool:
    """Tell whether a published row belongs to a cell: whatever the row names must be equal."""
    generator = cell.spec
    known = {
        "dataset": cell.dataset,
        "base_model": cell.base,
        "target_model": cell.base,
        "source_model": generator.source,
        "generator": generator.name,
        "bit_error_rate": cell.bit_error_rate,
        "test_bit_error_rate": cell.bit_error_rate,
        "train_bit_error_rate": generator.bit_error_rate,
        "flip_bits": generator.flips,
        "bits": cell.bits or BITS,
        "lambda": generator.weight or LAMBDA,
    }
    return all(
        (float(row[column]) if isinstance(value, int | float) else row[column]) == value
        for column, value in known.items()
        if column in row
    )


def _number(text: str) -> float | None:
    return float(text) if text else None


def find_published(cell: Cell) -> Published | None:
    """Return the published row of a cell, whatever its fault model; None if the paper has none."""
    generator = cell.generator and replace(cell.generator, trainer=None)
    return _rows().get(replace(cell, faults="", generator=generator))


@dataclass(frozen=True)
class Line:
    """One cell of a table."""

    cell: Cell
    published: Published | None
    results: tuple[Result, ...]
    """Our results, one per recipe or other configuration; often none."""


def collect_lines(wanted: Iterable[Cell], directory: Path | None = None, *, kept: bool = True) -> list[Line]:
    """Collect the published row and the results of cells.

    Parameters
    ----------
    wanted
        Cells.
    directory
        Run directory with further results.
    kept
        Whether to take the results in results/ of the source tree, too.
    """
    found = read_results() if kept else []
    if directory is not None:
        found += [result for result in read_results(directory) if result not in found]
    return [
        Line(cell, find_published(cell), tuple(result for result in found if result.is_of(cell)))
        for cell in wanted
    ]
