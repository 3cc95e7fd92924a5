"""`faultsim energy`: what the layers of a network read, and what a voltage saves."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import FaultsimError
from .options import CurveOption, JsonOption, VoltageOption, joules, load_curve, percent

if TYPE_CHECKING:
    from torch import nn

    from energy.accelerator import Accelerator
    from energy.counts import LayerCounts, NetworkCounts
    from energy.dry_run import Example
    from energy.trace import CountingPolicy, Trace

    from ..voltage import VoltageCurve

_BOTH = "both"


def energy(
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
    curve: CurveOption = None,
    engine: Annotated[str, typer.Option(help="closed-form, scalesim or both.")] = "closed-form",
    array: Annotated[str, typer.Option(help="Rows x columns of the systolic array.")] = "32x32",
    dataflow: Annotated[str, typer.Option(help="os, ws or is: what stays in the array.")] = "os",
    counting: Annotated[
        str, typer.Option(help="paper (as in Table 6) or exact (real sizes, exact transposed convolutions).")
    ] = "paper",
    input_shape: Annotated[
        str | None,
        typer.Option(
            help="Of one input, without the batch: channels x height x width, or what else the model takes. "
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
    write_topology: Annotated[
        Path | None, typer.Option(help="Also write the layers as a SCALE-Sim topology CSV.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Count SRAM accesses layer by layer, and the weight-memory energy that a voltage saves.

    Exit status 1 when --engine both finds a difference.
    """
    from energy import topology as topologies
    from energy.accelerator import Accelerator, parse_array
    from energy.costs import count_costs
    from energy.engines import ENGINES, count, find_differences
    from energy.trace import trace_layers, trace_model
    from neuralfuse import generators
    from neuralfuse.generators import check_generator_size

    from .. import models
    from ..io.files import keep_apart

    if (model is None) == (topology is None):
        raise FaultsimError("give either --model NAME or --topology FILE")
    if engine not in (*ENGINES, _BOTH):
        raise FaultsimError(f"unknown engine {engine!r}; known are {', '.join(ENGINES)} and {_BOTH}")
    if write_topology:
        keep_apart({"--write-topology": write_topology}, {"--topology": topology, "--curve": curve})
    rows, columns = parse_array(array)
    accelerator = Accelerator(rows, columns, dataflow)
    if data is not None and input_shape is not None:
        raise FaultsimError("--data cannot be combined with --input-shape: give one of them")
    shape = _parse_shape(input_shape or "3x32x32") if data is None else _example(data)
    electrical = load_curve(curve)
    if voltage is not None:
        electrical.energy_per_access(voltage)  # a voltage off the curve is refused before anything runs
    if generator is not None:
        one_image = isinstance(shape, tuple) and all(isinstance(size, int) for size in shape)
        check_generator_size(generator, shape if one_image else None)
    costs: dict[str, Any] = {}
    memory: dict[str, Any] = {}
    front = []
    if topology:
        layers = topologies.read_topology(topology)
    else:
        network = _network("--model", model, (*models.NAMES, *generators.KNOWN))
        traced = trace_model(network, shape, _policy(model, counting))
        layers, memory = list(traced.layers), _memory(network, traced)
        costs["costs"] = asdict(count_costs(network, shape))
    if generator:
        network = _network("--generator", generator, generators.KNOWN)
        front = trace_layers(network, shape, _policy(generator, counting, generator=True))
        costs["generator_costs"] = asdict(count_costs(network, shape))
    if write_topology:
        topologies.write_topology(layers, write_topology)
    engines = list(ENGINES) if engine == _BOTH else [engine]
    results = [count([*front, *layers], accelerator, name) for name in engines]
    found = find_differences(*results) if engine == _BOTH else []
    base, before = _split(results[0], len(front))
    report = {
        "model": model or topology.name,
        "generator": generator,
        "accelerator": asdict(accelerator),
        "engines": engines,
        **(
            {"differences": [dict(zip(_DIFFERENCE, d, strict=True)) for d in found]}
            if len(engines) > 1
            else {}
        ),
        "counting": counting if model else "topology",
        **costs,
        **memory,
        **_counts(base),
        **({"generator_counts": _counts(before)} if generator else {}),
        **_savings(base, before if generator else None, electrical, voltage),
    }
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        _print(report, base, before if generator else None)
    if found:
        raise typer.Exit(1)


_DIFFERENCE = ("layer", "quantity", "closed-form", "scalesim")


def _parse_shape(text: str) -> tuple[int, ...]:
    sizes = [size.strip() for size in text.lower().split("x")]
    if not all(re.fullmatch(r"[0-9]{1,9}", size) and int(size) > 0 for size in sizes):
        raise FaultsimError(f"{text!r} is no input shape; write channels x height x width, such as 3x32x32")
    return tuple(int(size) for size in sizes)


def _example(data: str) -> Example:
    """The shape of the first sample of the user's data, or its inputs, where a model takes something else than one
    tensor of floats."""
    from ..data import OwnBatches

    batches = OwnBatches.load(data, 1)
    return batches.input_shape or batches.example


def _network(option: str, spec: str, names: tuple[str, ...]) -> nn.Module:
    """The network that `spec` names: one of `names`, without values, or the user's own."""
    import torch

    from neuralfuse import generators

    from .. import models

    if ":" in spec:
        return models.resolve(spec)
    if spec not in names:
        raise FaultsimError(
            f"{option}: unknown network {spec!r}; known are {', '.join(names)}, or your own as "
            "package.module:function"
        )
    with torch.device("meta"):  # shapes are enough, and there is nothing to initialize
        return generators.create(spec) if spec in generators.KNOWN else models.create(spec)


def _memory(network: nn.Module, traced: Trace) -> dict[str, Any]:
    """What of the weights that lie in the faulty memory is counted, for the report; FaultsimError where nothing is."""
    from ..inventory import take_inventory
    from ..memory import measure_share

    found = take_inventory(network)
    sizes = {weight.tensors[0]: weight.count for weight in found.weights}
    uncounted = traced.uncounted(weight.tensors for weight in found.weights)
    if not traced.layers:
        raise FaultsimError(
            f"no layer of this model can be counted: {_some(uncounted)}; convolutions of one and two dimensions, "
            "their transposed forms and linear layers can"
        )
    return {
        "memory": measure_share(sizes.values(), found.left_out).as_dict(),
        "uncounted": {"weights": sum(sizes[name] for name in uncounted), "tensors": uncounted},
    }


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _memory_lines(report: dict[str, Any]) -> list[str]:
    """How many weights lie in the faulty memory, and how many of them the counts leave out."""
    if "memory" not in report:
        return []
    from ..memory import Share

    known, left = Share(report["memory"]["stored"], report["memory"]["weights"]), report["uncounted"]
    if not left["tensors"]:
        return [f"{known}, all of them are counted"]
    return [
        str(known),
        f"Not counted: {left['weights']:,} of these, {_some(left['tensors'])}",
    ]


def _policy(spec: str, counting: str, generator: bool = False) -> CountingPolicy:
    """How the layers of a network become rows."""
    from energy.trace import POLICIES
    from neuralfuse import generators

    if counting not in ("paper", "exact"):
        raise FaultsimError(f"unknown counting {counting!r}; known are paper and exact")
    as_generator = counting == "paper" and (generator or spec in generators.KNOWN)
    return POLICIES["paper-generator" if as_generator else counting]


def _split(counts: NetworkCounts, front: int) -> tuple[NetworkCounts, NetworkCounts]:
    """The counts of the model, and those of the `front` generator layers before it."""
    from dataclasses import replace

    return (
        replace(counts, layers=counts.layers[front:], counts=counts.counts[front:]),
        replace(counts, layers=counts.layers[:front], counts=counts.counts[:front]),
    )


def _counts(counts: NetworkCounts) -> dict[str, Any]:
    return {
        "layers": [
            {**asdict(layer), **asdict(numbers)}
            for layer, numbers in zip(counts.layers, counts.counts, strict=True)
        ],
        "total": asdict(counts.total),
        "weight_memory_accesses": counts.weight_memory_accesses,
    }


def _savings(
    base: NetworkCounts, before: NetworkCounts | None, curve: VoltageCurve, voltage: float | None
) -> dict[str, Any]:
    """What the voltage saves without and with the generator, and where the generator breaks even."""
    from energy.saving import compute_saving, find_break_even_voltage

    accesses = base.weight_memory_accesses
    result: dict[str, Any] = {}
    if voltage is not None:
        result["curve"] = curve.name
        result["voltage"] = voltage
        result["bit_error_rate"] = curve.bit_error_rate(voltage)
        result["relative_energy_per_access"] = curve.energy_per_access(voltage)
        result["saving"] = compute_saving(accesses, curve, voltage)
    if curve.access_pj is not None:
        result["energy_per_inference_at_vmin_pj"] = curve.access_pj * accesses
        if voltage is not None:
            energy = curve.access_pj * curve.energy_per_access(voltage)
            result["energy_per_access_pj"] = energy
            result["energy_per_inference_pj"] = energy * accesses
    if before is not None:
        extra = before.weight_memory_accesses
        if curve.access_pj is not None:
            result["generator_energy_per_inference_pj"] = curve.access_pj * extra
        if voltage is not None:
            result["saving_with_generator"] = compute_saving(accesses, curve, voltage, extra)
        result["break_even_voltage"] = find_break_even_voltage(accesses, extra, curve)
    return result


def _print(report: dict[str, Any], base: NetworkCounts, before: NetworkCounts | None) -> None:
    from .tables import console as made

    console = made()
    console.print(_table(report["model"], base))
    if before is not None:
        console.print()
        console.print(_table(report["generator"], before))
    console.print("P output pixels, K weights per filter, F filters; one access per int8 value.", style="dim")
    over = base.total + before.total if before is not None else base.total
    for number, what in (
        (over.output_overcount, "output writes are SCALE-Sim's over-count (R + C per fold)"),
        (over.input_overcount, "input reads lie outside of the map (sizes are rounded up)"),
    ):
        if number:
            console.print(f"{number:,} of the {what}.", style="dim")
    console.print()
    console.print(_weights(report["model"], base, base.accelerator))
    if before is not None:
        console.print(_weights(report["generator"], before, base.accelerator))
    for line in _memory_lines(report):
        console.print(line)
    for name, costs in ((report["model"], "costs"), (report["generator"], "generator_costs")):
        if costs in report:
            numbers = report[costs]
            console.print(
                f"{name}: {numbers['parameters']:,} parameters, {numbers['macs'] / 1e6:,.2f} M MACs "
                f"({numbers['table8_macs'] / 1e6:,.2f} M in the counting of Table 8)"
            )
    for line in _saving_lines(report):
        console.print(line)
    if len(report["engines"]) > 1:
        found = report["differences"]
        for difference in found:
            console.print("differ: " + ", ".join(f"{k} {v}" for k, v in difference.items()))
        count = len(base.layers) + (len(before.layers) if before is not None else 0)
        console.print(
            f"The engines differ in {len(found)} numbers."
            if found
            else f"Closed form and SCALE-Sim agree in every number of {count} layers."
        )


def _table(title: str, counts: NetworkCounts):
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


def _weights(name: str, counts: NetworkCounts, accelerator: Accelerator) -> str:
    return (
        f"{name}: {counts.weight_memory_accesses:,} weight memory accesses per inference "
        f"({accelerator.weights_per_access} weights each)"
    )


def _joules(report: dict[str, Any]) -> str:
    words = f"{joules(report['energy_per_inference_at_vmin_pj'])} at Vmin"
    if "voltage" in report:
        words += f", {joules(report['energy_per_inference_pj'])} at voltage {report['voltage']:g}"
    if "generator_energy_per_inference_pj" in report:
        words += f"; {report['generator']} takes {joules(report['generator_energy_per_inference_pj'])}"
    return words


def _saving_lines(report: dict[str, Any]) -> list[str]:
    lines = []
    if "voltage" in report:
        lines.append(
            f"At voltage {report['voltage']:g} of curve '{report['curve']}': bit error rate "
            f"{percent(report['bit_error_rate'])}, energy per access "
            f"{report['relative_energy_per_access']:.3f} of that at Vmin"
        )
    if "energy_per_inference_at_vmin_pj" in report:
        lines.append(f"Weight-memory energy of one inference: {_joules(report)}")
    if "voltage" in report:
        lines.append(f"Saved weight-memory energy: {100 * report['saving']:.2f} %")
    if "saving_with_generator" in report:
        lines[-1] += f", with {report['generator']} {100 * report['saving_with_generator']:.2f} %"
    if "break_even_voltage" in report:
        at = report["break_even_voltage"]
        lines.append(
            f"{report['generator']} takes more than any voltage of the curve saves"
            if at is None
            else f"{report['generator']} pays below voltage {at:.3f}"
        )
    return lines
