"""`faultsim bench`: speed, as ratios to plain operations of the same run."""

from typing import Annotated, Any

import typer

from ..show.units import format_percent
from .option_groups import ModelOptions, expand_options
from .options import (
    DataDirOption,
    DatasetOption,
    DeviceOption,
    ImagesOption,
    JsonOption,
    PresetOption,
    fault_model,
)

app = typer.Typer(help="Measure speed, as ratios within one run.")

RoundsOption = Annotated[int, typer.Option(min=1, help="How often each is timed, in turn.")]
RandomModelOption = Annotated[str, typer.Option(help="Base model, with random weights.")]


def _print_report(benchmark: str, found: dict[str, Any], device: object) -> None:
    """Print a benchmark's results as JSON, with the machine that they are from."""
    from ..io.provenance import record_provenance
    from .tables import print_json

    print_json({"benchmark": benchmark, **found, **record_provenance(str(device))})


@app.command()
def kernel(
    device: DeviceOption = "auto",
    weights: Annotated[int, typer.Option(min=1, help="int8 weights in the buffer.")] = 11_170_000,
    seconds: Annotated[float, typer.Option(min=0, help="Seconds for each group of measurements.")] = 1.0,
    as_json: JsonOption = False,
) -> None:
    """Compare the fault kernel with a plain copy of the same bytes.

    Each operation's result is checked against the reference before it is timed.
    """
    from ..bench.kernel import describe_rows, time_kernel
    from ..bench.kernel_table import NOTES, make_kernel_tables
    from ..kernel.devices import choose_device
    from .tables import print_table

    where = choose_device(device)
    rows = time_kernel(where, weights, seconds)
    if as_json:
        _print_report("kernel", {"rows": describe_rows(list(rows))}, where)
        return
    for table in make_kernel_tables(rows):
        print_table(table)
    print("\n".join(NOTES))


@app.command()
def formats(
    device: DeviceOption = "auto",
    weights: Annotated[int, typer.Option(min=1, help="Weights in the buffer.")] = 11_170_000,
    seconds: Annotated[float, typer.Option(min=0, help="Seconds for each format.")] = 1.0,
    cpu_path: Annotated[
        str | None,
        typer.Option(help="Vector path of the CPU: avx512, avx2 or portable (default: the best one)."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare reads of weights of each format, decoded in the same pass, with a copy of the result.

    On one thread, at 0.1 % bit errors; the shortest call of each counts. Each result is checked before it is timed.
    """
    from dataclasses import asdict

    from ..bench.formats import RATE, time_formats
    from ..kernel.devices import choose_device
    from ..show.tables import Table
    from .tables import print_table

    where = choose_device(device)
    rows = list(time_formats(where, weights, seconds, cpu_path))
    if as_json:
        _print_report("formats", {"bit_error_rate": RATE, "rows": [asdict(row) for row in rows]}, where)
        return
    cells = [
        (
            row.operation,
            row.format,
            row.output,
            f"{row.weights:,}",
            f"{row.milliseconds:.2f}",
            f"{row.ratio:.2f}",
        )
        for row in rows
    ]
    header = ("operation", "format", "result", "weights", "ms", "copy / operation")
    title = f"{rows[0].path}, {format_percent(RATE)} bit errors"
    print_table(Table(title, header, tuple(cells), words=(0, 1, 2)))


@app.command()
@expand_options
def sweep(
    *,
    network: ModelOptions,
    dataset: DatasetOption = None,
    data_dir: DataDirOption = None,
    images: ImagesOption = None,
    chips: Annotated[int, typer.Option(help="Simulated chips for each of three voltages.")] = 10,
    preset: PresetOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Measure which share of a sweep's time the model itself takes; faultsim takes the rest."""
    from ..bench.sweep import measure_model_share
    from ..kernel.devices import choose_device
    from ..studies.conditions import Conditions
    from ..studies.subject import load_subject
    from ..voltage import VoltageCurve

    where, faults = choose_device(device), fault_model(preset=preset)
    subject = load_subject(
        network.model, network.weights, dataset, data_dir, where, images, per_channel=network.per_channel
    )
    found = measure_model_share(subject.model, subject.data, subject.stored, faults=faults, chips=chips)
    conditions = Conditions(faults, VoltageCurve.default())
    if as_json:
        _print_report("sweep", {**found, "model": subject.title, **conditions.columns}, where)
        return
    print(
        f"{subject.title}: {100 * found['share']:.2f} % of {found['seconds']:.1f} s "
        f"in the model, {chips} chips at three voltages ({conditions})"
    )


@app.command()
def eopm(
    model: RandomModelOption = "VGG11",
    generator: Annotated[str, typer.Option(help="ConvL, ConvS, DeConvL, DeConvS, UNetL or UNetS.")] = "ConvS",
    batch_size: Annotated[int, typer.Option(min=1, help="Random images per step.")] = 256,
    n_models: Annotated[int, typer.Option(min=1, help="N: perturbed models per step.")] = 10,
    precision: Annotated[
        str,
        typer.Option(
            help="Precision of matrix products in the step and its parts: float32 or bfloat16. The naive formulation "
            "computes in float32."
        ),
    ] = "float32",
    rounds: RoundsOption = 3,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Compare one training step of a generator with its parts and with the naive formulation (medians)."""
    import torch

    from neuralfuse.bench import time_eopm

    from ..bench.random_data import create_random
    from ..kernel.devices import choose_device
    from ..stored import StoredWeights

    where = choose_device(device)
    network, [(images, labels)] = create_random(model, batch_size, batch_size, where)
    how = {"n_models": n_models, "precision": precision, "rounds": rounds}
    found = time_eopm(network, StoredWeights.of(network), generator, images, labels, **how)
    if as_json:
        what = {"model": model, "generator": generator, "batch_size": batch_size, **how}
        _print_report("eopm", {**what, "threads": torch.get_num_threads(), **found}, where)
        return
    print(
        f"{model}, {generator}, batch {batch_size}, N = {n_models}, {precision}, "
        f"threads: {torch.get_num_threads()}, rounds: {rounds}\n"
        f"one step takes {found['eopm']:.2f} s\n"
        f"{found['over_parts']:.2f} x its parts ({n_models + 1} forward and input-gradient backward passes\n"
        f"of the base model, one generator step)\n"
        f"{found['naive_over']:.1f} x less than the naive formulation, which takes "
        f"{found['naive_over_parts']:.1f} x the parts"
    )


@app.command()
def evaluation(
    model: RandomModelOption = "ResNet18",
    images: Annotated[int, typer.Option(min=1, help="Random images.")] = 10_000,
    batch_size: Annotated[int, typer.Option(min=1, help="Images in one pass through the model.")] = 256,
    chips: Annotated[int, typer.Option(min=1, help="Simulated chips.")] = 10,
    rounds: RoundsOption = 3,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Compare the evaluation of a model on many chips with as many passes of the plain model (medians)."""
    from ..bench.evaluation import time_evaluation
    from ..bench.random_data import create_random
    from ..faults import FaultModel
    from ..kernel.devices import choose_device
    from ..stored import StoredWeights
    from ..studies.conditions import Conditions

    where, rate, faults = choose_device(device), 0.01, FaultModel()
    network, data = create_random(model, images, batch_size, where)
    how = {"chips": chips, "rounds": rounds}
    found = time_evaluation(
        network, StoredWeights.of(network), data, bit_error_rate=rate, faults=faults, **how
    )
    if as_json:
        what = {"model": model, "images": images, "batch_size": batch_size, **how}
        _print_report("evaluation", {**what, **found}, where)
        return
    print(
        f"{model}, {images:,} random images in batches of {batch_size}, {chips} chips "
        f"at {format_percent(rate)} bit errors ({Conditions(faults)}): {found['evaluation']:.2f} s,\n"
        f"{found['over_plain']:.2f} x as many passes of the plain model"
    )
