"""`faultsim curve`: bit errors and energy against supply voltage. `faultsim info`: versions, build, devices."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ..errors import FaultsimError
from .options import CurveOption, JsonOption, load_curve, parse_numbers


def curve(
    curve: CurveOption = None,
    voltages: Annotated[
        str | None,
        typer.Option(
            help="first:last:step or a list, in the curve's unit (1 is Vmin). "
            "[default: 0.78:1.00:0.02, or the points of --curve]"
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Picture (.png) or the rows in the form that --curve reads (.csv).")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Bit error rate and energy per read access against supply voltage (the paper's Figure 2)."""
    from ..voltage import COLUMNS

    if out is not None and out.suffix.lower() not in (".png", ".csv"):
        raise FaultsimError(f"--out {out}: the name must end in .png or .csv")
    electrical = load_curve(curve)
    if voltages is not None:
        points = parse_numbers(voltages)
    else:
        points = electrical.voltages if curve is not None else parse_numbers("0.78:1.00:0.02")
    rows = [(v, electrical.bit_error_rate(v), electrical.energy_per_access(v)) for v in sorted(points)]
    if out is not None and out.suffix.lower() == ".png":
        from .. import plots

        plots.save(plots.curve_figure(electrical), out)
    elif out is not None:
        from ..files import write_text

        lines = [",".join(COLUMNS), *(",".join(map(repr, row)) for row in rows)]
        write_text(out, "\n".join(lines) + "\n")
    if as_json:
        named = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
        print(json.dumps({"curve": electrical.name, "v_min": electrical.v_min, "points": named}, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"curve '{electrical.name}'", title_justify="left", title_style="bold")
    for name in ("voltage", "bit error rate", "energy/access", "energy saved"):
        table.add_column(name, justify="right")
    for v, rate, energy in rows:
        table.add_row(f"{v:.4g}", f"{rate:.3g}", f"{energy:.4f}", f"{100 * (1 - energy):.1f} %")
    Console().print(table)
    print(
        f"Vmin = {electrical.v_min:g}, the lowest voltage without bit errors; voltages in the curve's unit\n"
        "bit error rate: share of failing cells; energy of one read, relative to Vmin"
    )
    if out is not None:
        print(f"written to {out}")


def info(as_json: JsonOption = False) -> None:
    """Versions, how the kernel was built, and what it can run on."""
    import torch

    from ..native import native
    from ..provenance import commit, device_name, installed, versions

    extension = native()
    paths = extension.cpu_paths()
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    report = {
        "versions": {**versions(), "scalesim": installed("scalesim")},
        "commit": commit(),
        "kernel": {
            "vector_paths": paths,
            "vector_path_in_use": paths[0],
            "built_with_cuda": extension.built_with_cuda(),
        },
        "devices": {"cpu": device_name("cpu"), **{f"cuda:{i}": name for i, name in enumerate(gpus)}},
    }
    if as_json:
        print(json.dumps(report, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, box=None)
    for name, version in report["versions"].items():
        table.add_row(name, version or "not installed")
    if report["commit"]:
        table.add_row("commit", report["commit"])
    table.add_row("vector paths", f"{', '.join(paths)} (in use: {paths[0]})")
    table.add_row("CUDA kernels", "built in" if extension.built_with_cuda() else "not built in")
    for name, words in report["devices"].items():
        table.add_row(name, words)
    if not gpus:
        table.add_row("cuda", "torch finds no GPU")
    Console().print(table)
