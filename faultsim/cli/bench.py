"""`faultsim bench`: speed, as ratios to plain operations of the same run."""

import json
from itertools import groupby
from typing import Annotated

import typer

from ..show.units import format_percent
from .options import (
    DataDirOption,
    DatasetOption,
    DeviceOption,
    ImagesOption,
    JsonOption,
    ModelOption,
    PresetOption,
    WeightsOption,
    fault_model,
)
from .options import device as device_named

app = typer.Typer(help="Measure speed, as ratios within one run.")


@app.command()
def kernel(
    device: DeviceOption = "auto",
    weights: Annotated[int, typer.Option(min=1, help="int8 weights in the buffer.")] = 11_170_000,
    seconds: Annotated[float, typer.Option(min=0, help="Seconds for each group of measurements.")] = 1.0,
    as_json: JsonOption = False,
) -> None:
    """The fault kernel beside a plain copy of the same bytes; each result is checked against the reference first."""
    from rich.table import Table

    from ..bench.kernel import RATES, kernel_rows, rows_as_json
    from ..io.provenance import provenance
    from .tables import console

    where = device_named(device)
    if as_json:
        rows = list(kernel_rows(where, weights, seconds))
        report = {"benchmark": "kernel", "rows": rows_as_json(rows), **provenance(str(where))}
        print(json.dumps(report, indent=2))
        return
    rows = kernel_rows(where, weights, seconds)
    for (size, path, threads), group in groupby(rows, key=lambda row: (row.weights, row.path, row.threads)):
        title = f"{size:,} int8 weights, {path}" + ("" if path == "cuda" else f", threads: {threads}")
        shown = Table(title=title, title_justify="left")
        shown.add_column("operation")
        shown.add_column("beside")
        for rate in RATES:
            shown.add_column(format_percent(rate), justify="right")
        for (operation, beside), three in groupby(group, key=lambda row: (row.operation, row.beside)):
            shown.add_row(operation, beside, *map(_cell, three))
        console().print(shown)
    print(
        "for each bit error rate: ratio and GB/s (and the ratio to reach)\n"
        "ratio: time of what stands beside over time of the operation, measured in turn: 1 is as fast"
    )


def _cell(row) -> str:
    target = "" if row.target is None else f" ({row.target:.2f})"
    return f"{row.ratio:.2f} {row.gigabytes_per_second:4.0f}{target}"


@app.command()
def sweep(
    model: ModelOption = None,
    weights: WeightsOption = None,
    dataset: DatasetOption = None,
    data_dir: DataDirOption = None,
    images: ImagesOption = None,
    chips: Annotated[int, typer.Option(help="Simulated chips for each of three voltages.")] = 10,
    preset: PresetOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """How much of a sweep's time the model itself runs; the rest is faultsim's."""
    from ..bench.sweep import share_of_model
    from ..conditions import Conditions
    from ..io.provenance import provenance
    from ..subject import load_subject
    from ..voltage import VoltageCurve

    where = device_named(device)
    faults = fault_model(preset=preset)
    subject = load_subject(model, weights, dataset, data_dir, where, images)
    measured = share_of_model(subject.model, subject.data, subject.stored, faults=faults, chips=chips)
    conditions = Conditions(faults, VoltageCurve.default())
    if as_json:
        report = {
            "benchmark": "sweep",
            **measured,
            "model": subject.title,
            **conditions.columns,
            **provenance(str(where)),
        }
        print(json.dumps(report, indent=2))
        return
    print(
        f"{subject.title}: {100 * measured['share']:.2f} % of {measured['seconds']:.1f} s "
        f"in the model, {chips} chips at three voltages ({conditions})"
    )


@app.command()
def eopm(
    model: Annotated[str, typer.Option(help="Base model, with random weights.")] = "VGG11",
    generator: Annotated[str, typer.Option(help="ConvL, ConvS, DeConvL, DeConvS, UNetL or UNetS.")] = "ConvS",
    batch_size: Annotated[int, typer.Option(min=1, help="Random images of one step.")] = 256,
    n_models: Annotated[int, typer.Option(min=1, help="N: perturbed models a step.")] = 10,
    precision: Annotated[
        str,
        typer.Option(
            help="float32 or bfloat16: of the matrix products of the step and its parts; naive is float32."
        ),
    ] = "float32",
    rounds: Annotated[int, typer.Option(min=1, help="Times that each is measured, in turn.")] = 3,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """One step of a generator's training beside its parts, and beside the naive formulation: medians."""
    import torch

    from neuralfuse.bench import eopm_times

    from .. import models
    from ..io.provenance import provenance
    from ..stored import StoredWeights

    where = device_named(device)
    torch.manual_seed(0)
    network = models.resolve(model).to(where)
    images = torch.rand(batch_size, 3, 32, 32, device=where) * 2 - 1
    labels = torch.randint(0, 10, [batch_size], device=where)
    measured = eopm_times(
        network,
        StoredWeights.of(network),
        generator,
        images,
        labels,
        n_models=n_models,
        precision=precision,
        rounds=rounds,
    )
    what = {
        "model": model,
        "generator": generator,
        "batch_size": batch_size,
        "n_models": n_models,
        "precision": precision,
        "rounds": rounds,
        "threads": torch.get_num_threads(),
    }
    if as_json:
        print(json.dumps({"benchmark": "eopm", **what, **measured, **provenance(str(where))}, indent=2))
        return
    print(
        f"{model}, {generator}, batch {batch_size}, N = {n_models}, {precision}, "
        f"threads: {what['threads']}, rounds: {rounds}\n"
        f"one step takes {measured['eopm']:.2f} s\n"
        f"{measured['over_parts']:.2f} x its parts ({n_models + 1} forward and input-gradient backward passes\n"
        f"of the base model, one generator step)\n"
        f"{measured['naive_over']:.1f} x less than the naive formulation, which takes "
        f"{measured['naive_over_parts']:.1f} x the parts"
    )


@app.command()
def evaluation(
    model: Annotated[str, typer.Option(help="Base model, with random weights.")] = "ResNet18",
    images: Annotated[int, typer.Option(min=1, help="Random images.")] = 10_000,
    batch_size: Annotated[int, typer.Option(min=1, help="Of them at once.")] = 256,
    chips: Annotated[int, typer.Option(min=1, help="Simulated chips.")] = 10,
    rounds: Annotated[int, typer.Option(min=1, help="Times that each is measured, in turn.")] = 3,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """The accuracy of a model on many chips beside as many passes of the plain model: medians."""
    import torch

    from .. import models
    from ..bench.evaluation import evaluation_times
    from ..conditions import Conditions
    from ..faults import FaultModel
    from ..io.provenance import provenance
    from ..stored import StoredWeights

    where = device_named(device)
    torch.manual_seed(0)
    network = models.resolve(model).to(where)
    sizes = [min(batch_size, images - start) for start in range(0, images, batch_size)]
    data = [
        (torch.rand(size, 3, 32, 32, device=where) * 2 - 1, torch.randint(0, 10, [size], device=where))
        for size in sizes
    ]
    rate, faults = 0.01, FaultModel()
    measured = evaluation_times(
        network,
        StoredWeights.of(network),
        data,
        chips=chips,
        bit_error_rate=rate,
        faults=faults,
        rounds=rounds,
    )
    what = {"model": model, "images": images, "batch_size": batch_size, "chips": chips, "rounds": rounds}
    if as_json:
        print(json.dumps({"benchmark": "evaluation", **what, **measured, **provenance(str(where))}, indent=2))
        return
    print(
        f"{model}, {images:,} random images in batches of {batch_size}, {chips} chips "
        f"at {format_percent(rate)} bit errors ({Conditions(faults)}): {measured['evaluation']:.2f} s,\n"
        f"{measured['over_plain']:.2f} x as many passes of the plain model"
    )
