"""`faultsim curve`: bit errors and energy against supply voltage. `faultsim info`: versions, build, devices."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ..show.units import format_percent
from .numerals import parse_numbers
from .options import CurveOption, JsonOption, load_curve


def curve(
    curve: CurveOption = None,
    voltages: Annotated[
        str | None,
        typer.Option(
            help="A list like 0.8,0.9 or a range first:last:step, in the curve's unit (1 is Vmin). "
            "[default: 0.78:1.00:0.02, or the points of --curve]"
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Picture (.png, .pdf or .svg), or the rows in the form that --curve reads (.csv)."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Bit error rate and energy per read access against supply voltage (the paper's Figure 2)."""
    from ..io.files import keep_apart
    from ..show.pictures import check_picture, is_picture
    from ..voltage import COLUMNS, COLUMNS_PJ

    if out is not None:
        check_picture(out, "--out", ".csv")
        keep_apart({"--out": out}, {"--curve": curve})
    electrical = load_curve(curve)
    if voltages is not None:
        points = parse_numbers(voltages)
    else:
        points = electrical.voltages if curve is not None else parse_numbers("0.78:1.00:0.02")
    rows = [(v, electrical.bit_error_rate(v), electrical.energy_per_access(v)) for v in sorted(points)]
    columns, unit = (COLUMNS_PJ, electrical.access_pj) if electrical.picojoules else (COLUMNS, 1.0)
    written = [(v, rate, unit * energy) for v, rate, energy in rows]
    if out is not None and is_picture(out):
        from ..show import plots

        plots.save(plots.curve_figure(electrical), out)
    elif out is not None:
        from ..io.files import write_text

        lines = [",".join(columns), *(",".join(map(repr, row)) for row in written)]
        write_text(out, "\n".join(lines) + "\n")
    if as_json:
        named = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
        if electrical.picojoules:
            named = [{**row, COLUMNS_PJ[-1]: pj} for row, (*_, pj) in zip(named, written, strict=True)]
        print(json.dumps({"curve": electrical.name, "v_min": electrical.v_min, "points": named}, indent=2))
        return
    from rich.table import Table

    from .tables import console

    table = Table(title=f"curve '{electrical.name}'", title_justify="left", title_style="bold")
    absolute = ["pJ/access"] if electrical.picojoules else []
    for name in ("voltage", "bit error rate", "energy/access", "energy saved", *absolute):
        table.add_column(name, justify="right")
    for (v, rate, energy), (*_, pj) in zip(rows, written, strict=True):
        cells = (f"{v:.4g}", format_percent(rate), f"{energy:.4f}", f"{100 * (1 - energy):.1f} %")
        table.add_row(*cells, *([f"{pj:.4g}"] if absolute else []))
    console().print(table)
    print(
        f"Vmin = {electrical.v_min:g}, the lowest voltage without bit errors; voltages in the curve's unit\n"
        "bit error rate: share of failing cells; energy of one read, relative to Vmin"
    )
    if out is not None:
        print(f"written to {out}")


def info(as_json: JsonOption = False) -> None:
    """Versions, how the kernel was built, and what it can run on."""
    import torch

    from ..io.provenance import commit, device_name, installed, versions
    from ..native import native

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
    from rich.table import Table

    from .tables import console

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
    console().print(table)
