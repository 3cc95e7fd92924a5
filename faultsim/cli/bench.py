"""`faultsim bench`: speed, as ratios to plain operations of the same run."""

import json
from itertools import groupby
from typing import Annotated

import typer

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
    seconds: Annotated[float, typer.Option(help="Time for each group of measurements.")] = 1.0,
    as_json: JsonOption = False,
) -> None:
    """The fault kernel beside a plain copy of the same bytes; each result is checked against the oracle first."""
    from rich.console import Console
    from rich.table import Table

    from ..bench.kernel import RATES, kernel_rows, rows_as_json
    from ..provenance import provenance

    where = device_named(device)
    if as_json:
        rows = list(kernel_rows(where, weights, seconds))
        report = {"benchmark": "kernel", "rows": rows_as_json(rows), **provenance(str(where))}
        print(json.dumps(report, indent=2))
        return
    console = Console()
    rows = kernel_rows(where, weights, seconds)
    for (path, threads), group in groupby(rows, key=lambda row: (row.path, row.threads)):
        title = f"{weights:,} int8 weights, {path}" + ("" if path == "cuda" else f", threads: {threads}")
        shown = Table(title=title, title_justify="left")
        shown.add_column("operation")
        shown.add_column("beside")
        for rate in RATES:
            shown.add_column(f"{rate:g}", justify="right", no_wrap=True)
        for (operation, beside), three in groupby(group, key=lambda row: (row.operation, row.beside)):
            shown.add_row(operation, beside, *(f"{r.ratio:.2f} {r.gigabytes_per_second:4.0f}" for r in three))
        console.print(shown)
    print(
        "for each bit error rate: ratio and GB/s; ratio: time of what stands beside over time of "
        "the operation, measured in turn: 1 is as fast"
    )


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
    from ..provenance import provenance
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
