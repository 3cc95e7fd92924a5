"""Tables of the later, full paper (arXiv 2306.16869 v3) that need trained models.

Their names begin with "full-", because the workshop paper has other tables of the same numbers. `reproduce all` is
about the workshop paper.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from faultsim.errors import FaultsimError

from .. import published
from .result import Cell, GeneratorSpec

LAMBDA = 5.0
"""Of EOPM in all other tables."""
BITS = 8
"""Of a weight in all other tables, and in training."""


def read_transfer(dataset: str, row: Mapping[str, str]) -> Cell:
    """Return the cell of a published row about a generator in front of another model than its own."""
    return Cell(
        dataset,
        row["target_model"],
        GeneratorSpec(row["generator"], row["source_model"], float(row["train_bit_error_rate"])),
        "",
        float(row["test_bit_error_rate"]),
    )


def _reduced_precision(dataset: str) -> list[Cell]:
    """Return the cells of weights quantized to fewer bits after training; generators are trained with 8."""
    return [
        Cell(
            dataset,
            row["base_model"],
            GeneratorSpec(row["generator"], row["base_model"], float(row["train_bit_error_rate"])),
            "",
            float(row["test_bit_error_rate"]),
            None if int(row["bits"]) == BITS else int(row["bits"]),
        )
        for row in published.read_table("full_reduced_precision")
        if row["dataset"] == dataset
    ]


def _table10() -> list[Cell]:
    cells = []
    for row in published.read_table("full_lambda"):
        rate, weight = float(row["bit_error_rate"]), float(row["lambda"])
        spec = GeneratorSpec(
            row["generator"], row["base_model"], rate, weight=None if weight == LAMBDA else weight
        )
        cells.append(Cell("cifar10", row["base_model"], spec, "", rate))
    return cells


def _table11() -> list[Cell]:
    """Return one perturbation for all images, instead of a generator."""
    return [
        Cell("cifar10", row["base_model"], GeneratorSpec("UIP", row["base_model"], rate), "", rate)
        for row in published.read_table("full_universal_input_perturbation")
        for rate in [float(row["bit_error_rate"])]
    ]


def _table21() -> list[Cell]:
    """Return the cells of generators that are trained for two base models at once, in front of these and others."""
    return [read_transfer("cifar10", row) for row in published.read_table("full_ensemble_transfer")]


def _table24() -> list[Cell]:
    raise FaultsimError(
        "full-table24 is about ImageNet-10, whose images faultsim does not have; full-table22 and full-table23 are the "
        "same measurements on CIFAR-10 and GTSRB, and its published rows are in "
        "neuralfuse/published/full_reduced_precision.csv"
    )


FULL: dict[str, tuple[str, Callable[[], list[Cell]]]] = {
    "full-table10": (
        "accuracy at a bit error rate of 1 % by lambda, the weight of the perturbed loss",
        _table10,
    ),
    "full-table11": ("universal input perturbation, one for all images, instead of a generator", _table11),
    "full-table21": ("generators trained at 1.5 % for two models at once, in front of others", _table21),
    "full-table22": ("CIFAR-10, weights of fewer bits", lambda: _reduced_precision("cifar10")),
    "full-table23": ("GTSRB, weights of fewer bits", lambda: _reduced_precision("gtsrb")),
    "full-table24": ("ImageNet-10, weights of fewer bits", _table24),
}
"""Title and cells of each table."""
