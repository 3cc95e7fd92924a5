"""`faultsim chip`: the failing cells of a chip."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import FaultsimError
from .inject import FaultMapOption
from .numerals import parse_numbers
from .options import (
    BitErrorRateOption,
    CurveOption,
    FaultKindOption,
    JsonOption,
    PresetOption,
    fault_model,
    load_curve,
)

if TYPE_CHECKING:
    from ..chips.fault_map import FaultMap


def chip(
    seed: Annotated[int | None, typer.Argument(metavar="SEED", help="Seed of the simulated chip.")] = None,
    fault_map: FaultMapOption = None,
    voltage: Annotated[
        str | None,
        typer.Option(
            help="Supply voltage, in the curve's unit (1 is Vmin). With several (a list, or first:last:step) the fault "
            "map holds for each cell the highest voltage at which it fails."
        ),
    ] = None,
    bit_error_rate: BitErrorRateOption = None,
    arrays: Annotated[
        int | None,
        typer.Option(help="Number of arrays, from the first one. [default: all of the memory, 64]"),
    ] = None,
    fault_kind: FaultKindOption = None,
    preset: PresetOption = None,
    curve: CurveOption = None,
    out: Annotated[
        list[Path] | None,
        typer.Option(help="Fault map (.npz, .csv) or picture (.png, .pdf, .svg); may be repeated."),
    ] = None,
    array: Annotated[
        list[int] | None, typer.Option(help="Array in the picture; may be repeated. [default: 0]")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List, draw or convert the failing cells of a chip.

    The chip is a simulated one (SEED) or a measured one (--fault-map).
    """
    from ..io.files import keep_apart
    from ..show.chip_table import count_cells, describe_cells, make_chip_table
    from ..show.pictures import MOST_PANELS, check_picture, is_picture
    from .tables import print_json, print_table

    for number, path in enumerate(out or []):
        check_picture(path, "--out", ".npz", ".csv")
        keep_apart(
            {"--out": path}, {"--fault-map": fault_map, "--curve": curve, "--out": (out or [])[:number]}
        )
    if (seed is None) == (fault_map is None):
        raise FaultsimError("which chip? give either a SEED or --fault-map FILE")
    volts = None if voltage is None else sorted(parse_numbers(voltage, "--voltage"))
    if fault_map is not None:
        if any(given is not None for given in (bit_error_rate, arrays, fault_kind, preset, curve)):
            raise FaultsimError("a fault map says which cells fail, and how: give it a --voltage only")
        cells = _measured(fault_map, volts)
    else:
        cells = _simulated(seed, volts, bit_error_rate, arrays, fault_model(fault_kind, None, preset), curve)
    drawn = array or [0]
    if any(not 0 <= index < cells.arrays for index in drawn) or len(drawn) > MOST_PANELS:
        raise FaultsimError(f"--array: give at most {MOST_PANELS} numbers from 0 to {cells.arrays - 1}")
    for path in out or []:
        if is_picture(path):
            from ..show import plots

            plots.save(plots.draw_chip(cells, drawn, _title(cells, volts)), path)
        else:
            cells.save(path)
    counts, written = count_cells(cells, volts or ()), [str(path) for path in out or []]
    if as_json:
        print_json({**counts, "written": written})
        return
    print_table(make_chip_table(counts))
    print("\n".join([*describe_cells(counts), *(f"written to {path}" for path in written)]))


def _simulated(seed, volts, rate, arrays, faults, curve) -> "FaultMap":
    from ..chips.chip_map import find_failing_cells, map_chip
    from ..faults import Chip

    if (volts is None) == (rate is None):
        raise FaultsimError("give either --voltage or --bit-error-rate")
    if volts is None:
        return find_failing_cells(Chip(seed), arrays, rate, faults)
    return map_chip(Chip(seed), volts, load_curve(curve), arrays, faults)


def _measured(path: Path, volts: list[float] | None) -> "FaultMap":
    from ..chips.fault_map import FaultMap

    cells = FaultMap.load(path)
    if volts is not None and len(volts) > 1:
        raise FaultsimError("--voltage: give a measured chip one voltage, or leave it out for all of them")
    return cells if volts is None else cells.at(volts[0])


def _title(cells: "FaultMap", volts: list[float] | None) -> str:
    at = f" at {volts[0]:g}" if volts else ""
    return f"Failing cells{at}: {cells.source or 'measured chip'}"
