"""`faultsim energy`: what the layers of a network read, and what a voltage saves."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import FaultsimError
from .option_groups import FormatOptions, expand_options
from .options import CurveOption, JsonOption, VoltageOption, load_curve

if TYPE_CHECKING:
    from rich.table import Table

    from energy.counts import LayerCounts, NetworkCounts

_BOTH = "both"


@expand_options
def energy(
    *,
    model: Annotated[
        str | None, typer.Option(help="Base model, generator, or your own as package.module:function.")
    ] = None,
    generator: Annotated[
        str | None, typer.Option(help="NeuralFuse generator in front of the model; it runs at Vmin.")
    ] = None,
    topology: Annotated[
        Path | None,
        typer.Option(
            help="Instead of --model: layers of a SCALE-Sim topology CSV, convolutions or matrix products (M, N, K)."
        ),
    ] = None,
    voltage: VoltageOption = None,
    input_voltage: Annotated[
        float | None, typer.Option(help="Also count the energy of the input memory, at this voltage.")
    ] = None,
    curve: CurveOption = None,
    engine: Annotated[str, typer.Option(help="Who counts: closed-form, scalesim or both.")] = "closed-form",
    array: Annotated[str, typer.Option(help="Rows x columns of the systolic array.")] = "32x32",
    dataflow: Annotated[
        str, typer.Option(help="What stays in the array: outputs (os), weights (ws) or inputs (is).")
    ] = "os",
    counting: Annotated[
        str,
        typer.Option(
            help="How layers are counted: paper (as in Table 6) or exact (real sizes, exact transposed convolutions)."
        ),
    ] = "paper",
    input_shape: Annotated[
        str | None,
        typer.Option(
            help="Shape of one input, without the batch: channels x height x width, or what else the model takes. "
            "[default: 3x32x32]",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="FUNCTION",
            help="Instead of --input-shape: the first sample of your own data, package.module:function, for models "
            "that take tokens or several inputs.",
        ),
    ] = None,
    stored: FormatOptions,
    write_topology: Annotated[
        Path | None, typer.Option(help="Also write the layers as a SCALE-Sim topology CSV.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Count SRAM accesses and the energy that is saved.

    It counts the accesses of each layer, and the energy of the weight memory at --voltage relative to Vmin. With --bits
    or --format an access reads as many of the model's weights as a 64-bit word holds. A generator's weights are int8.

    Exit status 1 when --engine both finds a difference.
    """
    from energy.accelerator import Accelerator, parse_array
    from energy.engines import ENGINES
    from energy.topology import write_topology as write_layers
    from neuralfuse.network_energy import count_network

    from ..data import OwnBatches
    from ..formats import INT8
    from ..io.files import keep_apart
    from .tables import console, print_json

    if (model is None) == (topology is None):
        raise FaultsimError("give either --model NAME or --topology FILE")
    if engine not in (*ENGINES, _BOTH):
        raise FaultsimError(f"unknown engine {engine!r}: it can be {', '.join(ENGINES)} or {_BOTH}")
    if write_topology:
        keep_apart({"--write-topology": write_topology}, {"--topology": topology, "--curve": curve})
    if data is not None and input_shape is not None:
        raise FaultsimError("--data cannot be combined with --input-shape: give one of them")
    rows, columns = parse_array(array)
    found = count_network(
        model,
        generator,
        topology,
        shape=_parse_shape(input_shape or "3x32x32")
        if data is None
        else OwnBatches.load(data, 1).shape_or_example,
        accelerator=Accelerator(rows, columns, dataflow),
        format=stored.chosen() or INT8,
        engines=tuple(ENGINES) if engine == _BOTH else (engine,),
        counting=counting,
        curve=load_curve(curve),
        voltage=voltage,
        input_voltage=input_voltage,
    )
    if write_topology:
        write_layers(found.layers, write_topology)
    if as_json:
        print_json(found.report)
    else:
        screen = console()
        screen.print(_table(found.report["model"], found.counts))
        if found.generator_counts is not None:
            screen.print()
            screen.print(_table(found.report["generator"], found.generator_counts))
        for line in found.notes():
            screen.print(line, style="dim")
        screen.print()
        for line in found.lines():
            screen.print(line)
    if found.differences:
        raise typer.Exit(1)


def _parse_shape(text: str) -> tuple[int, ...]:
    sizes = [size.strip() for size in text.lower().split("x")]
    if not all(re.fullmatch(r"[0-9]{1,9}", size) and int(size) > 0 for size in sizes):
        raise FaultsimError(
            f"{text!r} is not an input shape; write channels x height x width, such as 3x32x32"
        )
    return tuple(int(size) for size in sizes)


def _table(title: str, counts: NetworkCounts) -> Table:
    """A row for each layer, and the total."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", padding=0, show_edge=False)
    table.add_column("layer", overflow="fold")
    for name in ("P", "K", "F", "filter\nreads", "input\nreads", "output\nwrites", "cycles"):
        table.add_column(name, justify="right", no_wrap=True)

    def numbers(c: LayerCounts) -> list[str]:
        return [f"{n:,}" for n in (c.filter_reads, c.input_reads, c.output_writes, c.cycles)]

    for layer, c in zip(counts.layers, counts.counts, strict=True):
        name = f"{layer.name} x{layer.repeats}" if layer.repeats > 1 else layer.name
        sizes = [f"{n:,}" for n in (layer.output_pixels, layer.window, layer.filters)]
        table.add_row(name, *sizes, *numbers(c))
    table.add_section()
    table.add_row("total", "", "", "", *numbers(counts.total))
    return table
