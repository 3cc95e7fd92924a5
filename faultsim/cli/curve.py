"""`faultsim curve`: bit errors and energy against supply voltage."""

from pathlib import Path
from typing import Annotated

import typer

from .numerals import parse_numbers
from .options import CurveOption, JsonOption, load_curve

_VOLTAGES = "0.78:1.00:0.02"


def curve(
    curve: CurveOption = None,
    voltages: Annotated[
        str | None,
        typer.Option(
            help="A list like 0.8,0.9 or a range first:last:step, in the curve's unit (1 is Vmin). "
            f"[default: {_VOLTAGES}, or the points of --curve]",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Picture (.png, .pdf or .svg), or a table that --curve can read (.csv)."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show bit error rate and energy against voltage.

    The energy is that of one read access. With the default curve this is the paper's Figure 2.
    """
    from ..io.files import keep_apart
    from ..show.curve_table import make_curve_table
    from ..show.pictures import check_picture, is_picture
    from .tables import print_json, print_table

    if out is not None:
        check_picture(out, "--out", ".csv")
        keep_apart({"--out": out}, {"--curve": curve})
    electrical = load_curve(curve)
    if voltages is None and curve is not None:
        points = sorted(electrical.voltages)
    else:
        points = sorted(parse_numbers(voltages or _VOLTAGES))
    table = make_curve_table(electrical, points)
    if out is not None and is_picture(out):
        from ..show import plots

        plots.save(plots.draw_curve(electrical), out)
    elif out is not None:
        electrical.to_csv(out, points)
    if as_json:
        print_json({"curve": electrical.name, "v_min": electrical.v_min, "points": electrical.rows(points)})
        return
    print_table(table)
    print(
        f"Vmin = {electrical.v_min:g}, the lowest voltage without bit errors; voltages in the curve's unit\n"
        "bit error rate: share of failing cells; energy of one read, relative to Vmin"
    )
    if out is not None:
        print(f"written to {out}")
