"""The cells of the paper's tables and figures that need trained models: each cell is one accuracy to measure.

Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from faultsim import models
from faultsim.errors import FaultsimError

from .. import published
from .full_cells import BITS, FULL, read_transfer
from .result import JOINED, Cell, GeneratorSpec

FAULTS = ("neuralfuse_2022", "iid_flips")
"""Each cell is computed under both: as in the paper's released code, and with independent flips."""
CHIPS = 10
"""Chips of every accuracy, as many as in the paper."""
N_STUDIED = (1, 2, 5, 10, 20)
"""N of EOPM in Figure 4. The paper's text does not contain the figure's values."""
DATASETS = ("cifar10", "cifar100", "gtsrb", "digits")
SMOKE = {"ConvL": "ConvS", "DeConvL": "ConvS", "DeConvS": "ConvS", "UNetL": "UNetS"}
"""With --smoke, small generators replace the others."""
SMOKE_N, SMOKE_FLIPS = 2, 500
"""With --smoke, cells with more perturbed models or flips per step are left out."""


def make_relaxed_cell(dataset: str, base: str, generator: str, bit_error_rate: float) -> Cell:
    """Return the cell of a generator that was trained for the model and bit error rate it is measured with."""
    return Cell(dataset, base, GeneratorSpec(generator, base, bit_error_rate), "", bit_error_rate)


def make_transfer_cells(
    dataset: str,
    sources: Sequence[str],
    targets: Sequence[str],
    generators: Sequence[str],
    train_rates: Sequence[float],
    test_rates: Sequence[float],
    faults: Sequence[str] = FAULTS,
    bits: Sequence[float] = (BITS,),
) -> list[Cell]:
    """Return the cells of generators trained for each source and measured in front of each target.

    Parameters
    ----------
    dataset : str
        One of DATASETS.
    sources, targets : sequence of str
        Base models that the generators are trained for, and in front of which they are measured. A source of several
        joined by plus signs, like "ResNet18+VGG19", trains for all of them at once.
    generators : sequence of str
        Names of generators.
    train_rates, test_rates : sequence of float
        Bit error rates of training and of measuring.
    faults : sequence of str
        Presets of fault models, of FAULTS.
    bits : sequence of float
        Bits of a stored weight in measuring, 2 to 8: weights are quantized after training, which is at 8.

    Raises
    ------
    FaultsimError
        For unknown names, rates outside (0, 1], and other numbers of bits.
    """
    for what, asked, known in (
        ("dataset", (dataset,), DATASETS),
        (
            "base model",
            (*(name for source in sources for name in source.split(JOINED)), *targets),
            models.NAMES,
        ),
        (
            "generator",
            generators,
            [row["model"] for row in published.read_table("model_costs") if row["kind"] != "base"],
        ),
        ("fault model", faults, FAULTS),
    ):
        for name in asked:
            if name not in known:
                raise FaultsimError(f"unknown {what} {name!r}: it can be {', '.join(known)}")
    for rate in (*train_rates, *test_rates):
        if not 0 < rate <= 1:
            raise FaultsimError(f"bit error rate {rate:g} must be above 0 and at most 1")
    for width in bits:
        if width not in range(2, BITS + 1):
            raise FaultsimError(f"{width:g} bits of a weight: it can be 2 to {BITS}")
    return [
        Cell(
            dataset,
            target,
            GeneratorSpec(generator, source, train),
            preset,
            test,
            None if width == BITS else int(width),
        )
        for source in sources
        for train in train_rates
        for target in targets
        for test in test_rates
        for generator in generators
        for width in bits
        for preset in faults
    ]


def _relaxed_table(name: str) -> list[Cell]:
    rows = [row for row in published.read_table("relaxed_access") if row["table"] == name]
    order = list(dict.fromkeys(row["dataset"] for row in rows))
    rows.sort(key=lambda row: order.index(row["dataset"]))  # stable: groups the rows by dataset
    return [
        make_relaxed_cell(row["dataset"], row["base_model"], row["generator"], float(row["bit_error_rate"]))
        for row in rows
    ]


def _transfer_table(name: str) -> list[Cell]:
    return [
        read_transfer(row["dataset"], row) for row in published.read_table("transfer") if row["table"] == name
    ]


def _table5(name: str) -> list[Cell]:
    return [
        make_relaxed_cell("cifar10", row["base_model"], row["generator"], float(row["bit_error_rate"]))
        for row in published.read_table("efficiency_ratio")
    ]


def _table16(name: str) -> list[Cell]:
    """Return ConvL on ResNet18, CIFAR-10, measured at 1 % (the paper, Appendix L)."""
    return [
        Cell("cifar10", "ResNet18", GeneratorSpec("ConvL", "ResNet18", flips=int(row["flip_bits"])), "", 0.01)
        for row in published.read_table("adversarial_training")
    ]


def _figure4(name: str) -> list[Cell]:
    """Return ConvL and ConvS on ResNet18, CIFAR-10, 1 % (the paper, Appendix F)."""
    return [
        Cell("cifar10", "ResNet18", GeneratorSpec(generator, "ResNet18", 0.01, n_models), "", 0.01)
        for generator in ("ConvL", "ConvS")
        for n_models in N_STUDIED
    ]


def _figure3(name: str) -> list[Cell]:
    return [make_relaxed_cell("cifar10", "ResNet18", generator, 0.01) for generator in ("ConvL", "ConvS")]


def _figure5(name: str) -> list[Cell]:
    return [cell for cell in _figure6(name) if cell.base == "ResNet18"]


def _figure6(name: str) -> list[Cell]:
    return [cell for cell in _relaxed_table("table1") if cell.dataset == "cifar10"]


_CELLS: dict[str, tuple[str, Callable[[str], list[Cell]]]] = {
    "table1": ("accuracy at a bit error rate of 1 %", _relaxed_table),
    "table2": ("generators trained at 1.5 % for another model", _transfer_table),
    "table5": ("accuracy won per million parameters and per 100 million MACs", _table5),
    "table9": ("accuracy at a bit error rate of 0.5 %", _relaxed_table),
    "table10": ("accuracy at a bit error rate of 0.35 %", _relaxed_table),
    "table11": ("generators trained at 1 % for another model", _transfer_table),
    "table12": ("generators trained at 1.5 % for another model", _transfer_table),
    "table13": ("generators trained at 1 % for another model", _transfer_table),
    "table14": ("generators trained at 1 % for another model", _transfer_table),
    "table15": ("generators trained at 0.5 % for another model", _transfer_table),
    "table16": ("generators trained against K chosen bit flips", _table16),
    "figure3": ("t-SNE of the last layer's outputs", _figure3),
    "figure4": ("accuracy against N, the perturbed models a step", _figure4),
    "figure5": ("accuracy against energy saving, ResNet18", _figure5),
    "figure6": ("accuracy against relative MACs, all base models", _figure6),
}

NAMES = tuple(_CELLS)
"""Tables and figures that need trained models."""
FIGURES = tuple(name for name in NAMES if name.startswith("figure"))
NEED_OUTPUTS = ("figure3",)
"""Those that also show the outputs of the last layer."""
TITLES = {name: title for name, (title, _) in (*_CELLS.items(), *FULL.items())}


def select_cells(
    name: str,
    datasets: Sequence[str] = (),
    bases: Sequence[str] = (),
    generators: Sequence[str] = (),
    faults: Sequence[str] = FAULTS,
    *,
    n_models: int | None = None,
    smoke: bool = False,
) -> list[Cell]:
    """Select the cells of a table or figure.

    Parameters
    ----------
    name : str
        One of NAMES.
    datasets, bases, generators : sequence of str
        Only the cells of these. Default: all.
    faults : sequence of str
        Presets of fault models; each cell is returned under every one.
    n_models : int, optional
        N of the run. A cell of Figure 4 with this N is the same as that of Table 1.
    smoke : bool
        A small version of everything: the digits for all datasets, DigitsNet for the model that a generator is trained
        for, VGG11 for another one, and two generators for all.

    Raises
    ------
    FaultsimError
        For names that the table does not have.
    """
    if name not in (*NAMES, *FULL):
        raise FaultsimError(f"unknown table or figure {name!r}: it can be {', '.join((*NAMES, *FULL))}")
    found = FULL[name][1]() if name in FULL else _CELLS[name][1](name)
    if smoke:
        found = _small(found)
    for what, asked, of in (
        ("dataset", datasets, lambda cell: cell.dataset),
        ("base model", bases, lambda cell: cell.base),
        ("generator", generators, lambda cell: cell.spec.name),
    ):
        known = list(dict.fromkeys(of(cell) for cell in found))
        for word in asked:
            if word not in known:
                raise FaultsimError(f"{name} has no {what} {word!r}; it has {', '.join(known)}")
        if asked:
            found = [cell for cell in found if of(cell) in asked]
    for preset in faults:
        if preset not in FAULTS:
            raise FaultsimError(f"unknown fault model {preset!r}: it can be {' or '.join(FAULTS)}")
    found = [_ordinary(cell, n_models) for cell in found]
    return list(dict.fromkeys(replace(cell, faults=preset) for cell in found for preset in faults))


def _ordinary(cell: Cell, n_models: int | None) -> Cell:
    if cell.spec.n_models != n_models:
        return cell
    return replace(cell, generator=replace(cell.spec, n_models=None))


def change_trainer(cell: Cell, trainer: str) -> Cell:
    """Return a cell with its generator trained by another trainer, "eopm", "staged" or "lookup".

    Cells that study N or lambda of EOPM or chosen flips do not change.
    """
    generator = cell.spec
    studied = (generator.n_models, generator.flips, generator.weight)
    if trainer == "eopm" or any(value is not None for value in studied):
        return cell
    return replace(cell, generator=replace(generator, trainer=trainer))


def _small(cells: Iterable[Cell]) -> list[Cell]:
    found = []
    for cell in cells:
        own = cell.base == cell.spec.source
        name = SMOKE.get(cell.spec.name, cell.spec.name) if own else "ConvS"
        source = JOINED.join(("DigitsNet", "VGG11")[: len(cell.spec.sources)])
        generator = replace(cell.spec, name=name, source=source)
        if (generator.n_models or 0) <= SMOKE_N and (generator.flips or 0) <= SMOKE_FLIPS:
            base = "DigitsNet" if own else "VGG11"
            found.append(replace(cell, dataset="digits", base=base, generator=generator))
    return found


def count_cells(lists: Iterable[Sequence[Cell]]) -> dict[Cell, int]:
    """Return the cells of several tables, and to how many of them each belongs."""
    counts: dict[Cell, int] = {}
    for wanted in lists:
        for cell in wanted:
            counts[cell] = counts.get(cell, 0) + 1
    return counts
