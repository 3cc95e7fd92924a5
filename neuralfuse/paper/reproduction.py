"""`reproduce`: a table or figure of the paper, ours and the published values."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faultsim.errors import FaultsimError

from .cells import FAULTS, FIGURES, NAMES, select_cells
from .comparison import Reproduction
from .full_cells import FULL

if TYPE_CHECKING:
    from .rows import Line
    from .settings import Settings

COMPUTED = ("figure2", "table6", "table7", "table8")
"""Tables and figures that need no trained model."""
FULL_COMPUTED = ("full-table3", "full-table8")
"""Those of the later, full paper."""


def compute(name: str) -> Reproduction:
    """Compute one of COMPUTED or FULL_COMPUTED. Raises FaultsimError for another name."""
    if name not in (*COMPUTED, *FULL_COMPUTED):
        raise FaultsimError(f"unknown table {name!r}: it can be {', '.join((*COMPUTED, *FULL_COMPUTED))}")
    module = ".full_computed" if name in FULL_COMPUTED else ".computed"
    return getattr(importlib.import_module(module, __package__), f"compute_{name.replace('-', '_')}")()


def reproduce(
    name: str,
    directory: str | Path | None = None,
    *,
    datasets: Sequence[str] = (),
    bases: Sequence[str] = (),
    generators: Sequence[str] = (),
    faults: Sequence[str] = FAULTS,
    settings: Settings | None = None,
    smoke: bool = False,
    data_dir: str | Path | None = None,
    device: str = "auto",
    budget: float | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> Reproduction | list[Line]:
    """Reproduce a table or figure of the paper, as ``faultsim reproduce`` does.

    Parameters
    ----------
    name
        "table1", "table2", "table5" to "table16", or "figure2" to "figure6"; of the later, full paper "full-table3",
        "full-table8", "full-table10", "full-table11" or "full-table21" to "full-table23".
    directory
        Run directory: what it lacks is trained and evaluated there, and figures are drawn into it. An interrupted
        run continues with the next call. Default: nothing is computed; the results in results/ of the source tree are
        returned.
    datasets, bases, generators
        Only these rows. Default: all.
    faults
        Presets of bit errors: "neuralfuse_2022", "iid_flips" or both.
    settings
        How everything is trained. Default: as in the paper.
    smoke
        Digits and tiny networks, to try every step in minutes.
    data_dir
        Folder of the datasets. Default: they are downloaded.
    device
        "auto", "cpu", "cuda" or "cuda:N".
    budget
        Seconds; the most valuable results come first. Default: everything is done.
    report
        Called with lines about the progress. `print`, for instance.

    Returns
    -------
    Reproduction or list of Line
        A Reproduction of "figure2", "table6" to "table8", "full-table3" and "full-table8", which need no trained model.
        For the others one line per cell: the published row and our results.

    Raises
    ------
    FaultsimError
        For an unknown name, and if the run directory is in use or belongs to other settings.
    """
    folder = None if directory is None else Path(directory)
    if name in (*COMPUTED, *FULL_COMPUTED):
        found = compute(name)
        if name == "figure2" and folder is not None:
            from .figures import write_curve

            write_curve(folder)
        return found
    if name not in (*NAMES, *FULL):
        known = ", ".join((*COMPUTED, *NAMES, *FULL_COMPUTED, *FULL))
        raise FaultsimError(f"unknown table or figure {name!r}: it can be {known}")
    from .rows import collect_lines
    from .settings import Settings

    chosen = settings or Settings.choose(smoke=smoke)
    cells = select_cells(name, datasets, bases, generators, faults, n_models=chosen.n_models, smoke=smoke)
    if folder is None:
        return collect_lines(cells)
    from .run import Plan, carry_out

    plan = Plan.of({name: cells}, folder, chosen)
    where: dict[str, Any] = {"data_dir": data_dir and Path(data_dir), "device": device}
    carry_out(plan, folder, **where, budget=budget, report=report)
    lines = collect_lines(cells, folder, kept=False)
    if name in FIGURES:
        from .figures import write_figure

        write_figure(name, lines, chosen.recipe, folder)
    return lines
