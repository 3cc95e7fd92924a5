"""`faultsim inject`: faulty weights from a NumPy file."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import FaultsimError
from .option_groups import FaultOptions, PointOptions, expand_options
from .options import JsonOption

FaultMapOption = Annotated[
    Path | None, typer.Option(help="A measured chip (.npz or .csv) instead of a simulated one.")
]


@expand_options
def inject(
    *,
    source: Annotated[Path, typer.Argument(metavar="IN.npy", help="int8 weights of any shape.")],
    target: Annotated[
        Path, typer.Argument(metavar="OUT.npy", help="The same weights as the chip reads them.")
    ],
    chip: Annotated[int | None, typer.Option(help="Seed of the simulated chip.")] = None,
    fault_map: FaultMapOption = None,
    point: PointOptions,
    memory: FaultOptions,
    base: Annotated[int, typer.Option(help="Address of the first weight in the memory, in bytes.")] = 0,
    access: Annotated[int, typer.Option(help="Number of the read, which transient faults depend on.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Corrupt int8 weights as a chip reads them."""
    from ..chips.measured_chip import MeasuredChip
    from ..faults import Chip
    from ..io.arrays import count_differences, read_int8, write_array
    from ..io.files import keep_apart
    from ..perturbation import corrupt
    from ..show.units import format_percent
    from ..studies.conditions import Conditions
    from .tables import print_json

    if target.suffix != ".npy":
        raise FaultsimError(f"{target}: the output's name must end in .npy")
    if (chip is None) == (fault_map is None):
        raise FaultsimError("which chip? give either --chip SEED or --fault-map FILE")
    keep_apart({"OUT.npy": target}, {"IN.npy": source, "--fault-map": fault_map, "--curve": point.curve})
    for name, value, most in (("--base", base, 2**43), ("--access", access, 2**32 - 1)):
        if not 0 <= value <= most:
            raise FaultsimError(f"{name} {value}: it must be 0 to {most}")
    weights, faults = read_int8(source), memory.fault_model()
    if fault_map is None:
        reader = Chip(chip)
        volts, rate = point.point()
        where, name = {"bit_error_rate": rate}, f"chip {chip}"
        conditions = Conditions(faults, point.voltage_curve())
    else:
        if point.bit_error_rate is not None or point.curve is not None or memory.fault_kind is not None:
            raise FaultsimError("a fault map says which cells fail, and how: give it a --voltage only")
        reader, volts = MeasuredChip.load(fault_map), point.voltage
        where, rate = {"voltage": volts}, reader.fault_map.at(volts).bit_error_rate
        name, conditions = f"measured chip {reader.label}", Conditions.of(faults, [reader])
    read = corrupt(weights, reader, **where, faults=faults, base=base, access=access)
    wrong, changed = count_differences(weights, read)
    write_array(target, read)
    bits = 8 * weights.size
    report = {
        "output": str(target),
        "chip": chip if chip is not None else str(fault_map),
        "voltage": volts,
        "bit_error_rate": rate,
        **conditions.columns,
        "weights": weights.size,
        "weights_changed": changed,
        "bits_wrong": wrong,
        "bits_wrong_rate": wrong / bits if bits else 0.0,
    }
    if as_json:
        print_json(report)
        return
    at = "" if volts is None else f" at {volts:g}"
    print(f"{name}{at}: {format_percent(rate)} of its cells fail")
    print(f"faults: {conditions}")
    print(
        f"{wrong:,} of {bits:,} bits wrong ({format_percent(report['bits_wrong_rate'])}), "
        f"{changed:,} of {weights.size:,} weights"
    )
    print(f"written to {target}")
