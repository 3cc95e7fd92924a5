"""`faultsim bench`: speed, as ratios to plain operations of the same run."""

import json
from typing import Annotated

import typer

from .options import DeviceOption, JsonOption, device as device_named

app = typer.Typer(help="Measure speed, as ratios within one run.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps `bench kernel` a subcommand while it is the only one."""


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
        shown.add_column(header, justify="left" if header in ("operation", "path") else "right", overflow="fold")
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
