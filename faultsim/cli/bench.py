"""`faultsim bench`: speed, as ratios to plain operations of the same run."""

import json
from pathlib import Path
from typing import Annotated

import typer

from .options import DeviceOption, JsonOption, PresetOption, fault_model
from .options import device as device_named

app = typer.Typer(help="Measure speed, as ratios within one run.", no_args_is_help=True)


@app.command()
def kernel(
    device: DeviceOption = "auto",
    weights: Annotated[int, typer.Option(min=1, help="int8 weights in the buffer.")] = 11_170_000,
    seconds: Annotated[float, typer.Option(help="Time for each group of measurements.")] = 1.0,
    as_json: JsonOption = False,
) -> None:
    """The fault kernel beside a plain copy of the same bytes; each result is checked against the oracle first."""
    from rich.console import Console
    from rich.table import Table

    from ..bench.kernel import kernel_rows, rows_as_json
    from ..provenance import provenance

    where = device_named(device)
    if as_json:
        rows = list(kernel_rows(where, weights, seconds))
        report = {"benchmark": "kernel", "rows": rows_as_json(rows), **provenance(str(where))}
        print(json.dumps(report, indent=2))
        return
    shown = Table(title=f"{weights:,} int8 weights", title_justify="left")
    for header in ("operation", "path", "thr", "p", "ms", "GB/s", "ratio"):
        shown.add_column(
            header, justify="left" if header in ("operation", "path") else "right", overflow="fold"
        )
    for row in kernel_rows(where, weights, seconds):
        shown.add_row(
            f"{row.operation} / {row.beside}",
            row.path,
            str(row.threads),
            f"{row.bit_error_rate:g}",
            f"{row.milliseconds:.2f} ±{100 * row.spread:.0f}%",
            f"{row.gigabytes_per_second:.1f}",
            f"{row.ratio:.2f}",
        )
    Console().print(shown)
    print("ratio: time of the plain operation over time of this one, measured in turn; 1 is as fast")


@app.command()
def sweep(
    model: Annotated[
        str | None, typer.Option(help="As for sweep-voltage; the shipped model without.")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="As for sweep-voltage.")] = None,
    dataset: Annotated[str | None, typer.Option(help="As for sweep-voltage.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="As for sweep-voltage.")] = None,
    images: Annotated[int | None, typer.Option(help="Use the first N test images only.")] = None,
    chips: Annotated[int, typer.Option(help="Simulated chips for each of three voltages.")] = 10,
    preset: PresetOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """How much of a sweep's time the model itself runs; the rest is faultsim's."""
    from ..bench.sweep import share_of_model
    from ..provenance import provenance
    from .subject import load_subject

    where = device_named(device)
    subject = load_subject(model, weights, dataset, data_dir, where, images)
    measured = share_of_model(
        subject.model, subject.data, subject.stored, faults=fault_model(preset=preset), chips=chips
    )
    if as_json:
        report = {"benchmark": "sweep", **measured, "model": subject.title, **provenance(str(where))}
        print(json.dumps(report, indent=2))
        return
    print(
        f"{subject.title}: {100 * measured['share']:.2f} % of {measured['seconds']:.1f} s "
        f"in the model, {chips} chips at three voltages"
    )
