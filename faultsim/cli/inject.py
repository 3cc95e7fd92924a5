"""`faultsim inject`: faulty weights from a NumPy file. `faultsim chip`: the failing cells of a chip."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import FaultsimError
from .numerals import parse_numbers
from .options import (
    BitErrorRateOption,
    CapacityOption,
    CurveOption,
    FaultKindOption,
    JsonOption,
    PlacementOption,
    PolarityOption,
    PresetOption,
    ReadErrorOption,
    VoltageOption,
    curve_of,
    fault_model,
    load_curve,
    percent,
)

if TYPE_CHECKING:
    import numpy as np

    from ..fault_map import FaultMap

FaultMapOption = Annotated[
    Path | None, typer.Option(help="A measured chip (.npz or .csv) instead of a simulated one.")
]


def inject(
    source: Annotated[Path, typer.Argument(metavar="IN.npy", help="int8 weights of any shape.")],
    target: Annotated[
        Path, typer.Argument(metavar="OUT.npy", help="The same weights as the chip reads them.")
    ],
    chip: Annotated[int | None, typer.Option(help="Seed of the simulated chip.")] = None,
    fault_map: FaultMapOption = None,
    voltage: VoltageOption = None,
    bit_error_rate: BitErrorRateOption = None,
    fault_kind: FaultKindOption = None,
    placement: PlacementOption = None,
    preset: PresetOption = None,
    polarity: PolarityOption = None,
    read_error: ReadErrorOption = None,
    capacity: CapacityOption = None,
    curve: CurveOption = None,
    base: Annotated[int, typer.Option(help="Address of the first weight in the memory, in bytes.")] = 0,
    access: Annotated[
        int, typer.Option(help="Number of the read: transient faults differ between reads.")
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """Write int8 weights as they are read from a faulty memory."""
    if target.suffix != ".npy":
        raise FaultsimError(f"{target}: the output's name must end in .npy")
    if (chip is None) == (fault_map is None):
        raise FaultsimError("which chip? give either --chip SEED or --fault-map FILE")
    from ..io.files import keep_apart

    keep_apart({"OUT.npy": target}, {"IN.npy": source, "--fault-map": fault_map, "--curve": curve})
    for name, value, most in (("--base", base, 2**43), ("--access", access, 2**32 - 1)):
        if not 0 <= value <= most:
            raise FaultsimError(f"{name} {value}: it must be 0 to {most}")
    weights = _read_int8(source)

    import torch

    from .. import ops
    from ..conditions import Conditions
    from ..faults import Chip
    from ..measured_chip import MeasuredChip
    from ..perturbation import resolve_operating_point

    faults = fault_model(fault_kind, placement, preset, polarity, read_error, capacity)
    stored = torch.from_numpy(weights)
    if fault_map is not None:
        if bit_error_rate is not None or curve is not None or fault_kind is not None:
            raise FaultsimError("a fault map says which cells fail, and how: give it a --voltage only")
        measured = MeasuredChip.load(fault_map)
        read = measured.read(stored, voltage, faults, base)
        name, rate = f"measured chip {measured.label}", measured.fault_map.at(voltage).bit_error_rate
        conditions = Conditions.of(faults, [measured])
    else:
        _, rate = resolve_operating_point([Chip(chip)], voltage, bit_error_rate, load_curve(curve))
        seeds, table, which = ops.encode_chips([Chip(chip)]), ops.encode_rate(rate), torch.tensor([access])
        place = ops.encode_addresses(faults, base)
        read = torch.ops.faultsim.corrupt(stored, seeds, table, ops.encode_kind(faults), place, None, which)[
            0
        ]
        name, conditions = f"chip {chip}", Conditions(faults, curve_of(voltage, curve))
    read = read.numpy()
    wrong, changed = _differences(weights, read)
    _write_npy(target, read)
    bits = 8 * weights.size
    report = {
        "output": str(target),
        "chip": chip if chip is not None else str(fault_map),
        "voltage": voltage,
        "bit_error_rate": rate,
        **conditions.columns,
        "weights": weights.size,
        "weights_changed": changed,
        "bits_wrong": wrong,
        "bits_wrong_rate": wrong / bits if bits else 0.0,
    }
    if as_json:
        print(json.dumps(report, indent=2))
        return
    at = "" if voltage is None else f" at {voltage:g}"
    print(f"{name}{at}: {percent(rate)} of its cells fail")
    print(f"faults: {conditions}")
    print(
        f"{wrong:,} of {bits:,} bits wrong ({percent(report['bits_wrong_rate'])}), "
        f"{changed:,} of {weights.size:,} weights"
    )
    print(f"written to {target}")


def chip(
    seed: Annotated[int | None, typer.Argument(metavar="SEED", help="Seed of the simulated chip.")] = None,
    fault_map: FaultMapOption = None,
    voltage: Annotated[
        str | None,
        typer.Option(
            help="Supply voltage, in the curve's unit (1 is Vmin). With several (a list, or first:last:step) the map "
            "says for each cell the highest at which it fails."
        ),
    ] = None,
    bit_error_rate: BitErrorRateOption = None,
    arrays: Annotated[
        int | None, typer.Option(help="How many arrays, from the first. [default: those of the memory, 64]")
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
    """List, draw, export and convert the failing cells of a chip."""
    from ..io.files import keep_apart
    from ..show.pictures import MOST_PANELS, check_picture, is_picture

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

            plots.save(plots.chip_figure(cells, drawn, _title(cells, volts)), path)
        else:
            cells.save(path)
    _report(cells, volts, [str(path) for path in out or []], as_json)


def _simulated(seed, volts, rate, arrays, faults, curve) -> "FaultMap":
    from ..chip_map import find_failing_cells, map_chip
    from ..faults import Chip

    if (volts is None) == (rate is None):
        raise FaultsimError("give either --voltage or --bit-error-rate")
    if volts is None:
        return find_failing_cells(Chip(seed), arrays, rate, faults)
    return map_chip(Chip(seed), volts, load_curve(curve), arrays, faults)


def _measured(path: Path, volts: list[float] | None) -> "FaultMap":
    from ..fault_map import FaultMap

    cells = FaultMap.load(path)
    if volts is not None and len(volts) > 1:
        raise FaultsimError(
            "--voltage: a measured chip is looked at at one voltage, or at all of them without it"
        )
    return cells if volts is None else cells.at(volts[0])


def _title(cells: "FaultMap", volts: list[float] | None) -> str:
    at = f" at {volts[0]:g}" if volts else ""
    return f"Failing cells{at}: {cells.source or 'measured chip'}"


def _report(cells: "FaultMap", volts: list[float] | None, written: list[str], as_json: bool) -> None:
    import numpy as np

    by_array = np.bincount(cells.array, minlength=cells.arrays)
    kinds = {
        name: int((cells.stuck_at == state).sum())
        for name, state in (("inverted", -1), ("stuck_at_0", 0), ("stuck_at_1", 1))
    }
    by_voltage = {v: len(cells.at(v)) for v in volts or []}
    if as_json:
        report = {
            "source": cells.source,
            "arrays": cells.arrays,
            "rows": cells.geometry.rows,
            "columns": cells.geometry.columns,
            "failing_cells": len(cells),
            "bit_error_rate": cells.bit_error_rate,
            **kinds,
            "by_voltage": [{"voltage": v, "failing_cells": count} for v, count in by_voltage.items()],
            "by_array": by_array.tolist(),
            "written": written,
        }
        print(json.dumps(report, indent=2))
        return
    from rich.table import Table

    from .tables import console

    table = Table(
        title=f"failing cells of arrays 0 to {cells.arrays - 1} ({cells.geometry.rows}x{cells.geometry.columns})",
        title_justify="left",
        title_style="bold",
    )
    table.add_column("array", justify="right")
    for i in range(min(8, cells.arrays)):
        table.add_column(f"+{i}", justify="right")
    for start in range(0, cells.arrays, 8):
        table.add_row(str(start), *map(str, by_array[start : start + 8]))
    console().print(table)
    print(f"faults: {cells.source or 'as measured'}")
    total = 8 * cells.bytes
    print(
        f"{len(cells):,} of {total:,} cells fail, {percent(cells.bit_error_rate)}; in an array "
        f"{by_array.min()} to {by_array.max()}, {by_array.mean():.1f} on average"
    )
    print(
        ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in kinds.items() if count) or "none"
    )
    for v, count in by_voltage.items():
        print(f"at {v:g}: {count:,} cells, {percent(count / total)}")
    for path in written:
        print(f"written to {path}")


def _read_int8(path: Path) -> "np.ndarray":
    """int8 array of a .npy file; FaultsimError says what else it is."""
    import numpy as np

    try:
        with path.open("rb") as file:
            if file.read(6) != b"\x93NUMPY":
                raise FaultsimError(f"{path}: this is no .npy file (numpy.save writes one)")
        weights = np.load(path, mmap_mode="r", allow_pickle=False)
        if weights.dtype.kind == "f":
            raise FaultsimError(
                f"{path} holds {weights.dtype}, int8 is needed; quantize it: scale = abs(w).max() / 127, "
                "then numpy.rint(w / scale).astype(numpy.int8)"
            )
        if weights.dtype != np.int8:
            raise FaultsimError(f"{path} holds {weights.dtype}, int8 is needed")
        return np.array(weights, order="C")
    except FaultsimError:
        raise
    except OSError as error:
        raise FaultsimError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, EOFError, MemoryError, SyntaxError):
        raise FaultsimError(f"{path}: truncated, damaged, or an array of Python objects") from None


def _write_npy(path: Path, weights: "np.ndarray") -> None:
    import numpy as np

    from ..io.files import write_atomically

    write_atomically(path, lambda temporary: np.save(temporary, weights, allow_pickle=False))


def _differences(before: "np.ndarray", after: "np.ndarray") -> tuple[int, int]:
    """(bits, weights) that differ."""
    import numpy as np

    ones = np.array([value.bit_count() for value in range(256)])
    bits = weights = 0
    before, after = before.reshape(-1).view(np.uint8), after.reshape(-1).view(np.uint8)
    for start in range(0, before.size, 1 << 20):  # bincount takes eight bytes a weight
        counts = np.bincount(
            before[start : start + (1 << 20)] ^ after[start : start + (1 << 20)], minlength=256
        )
        bits, weights = bits + int(counts @ ones), weights + int(counts[1:].sum())
    return bits, weights
