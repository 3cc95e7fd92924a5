"""`faultsim compare`: mitigations at equal energy."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..errors import FaultsimError
from .domain_options import DomainOptions
from .numerals import accuracy, parse_numbers
from .option_groups import DataOptions, FaultOptions, ModelOptions, expand_options
from .options import (
    BatchSizeOption,
    ChipSeedOption,
    CurveOption,
    DeviceOption,
    ImagesOption,
    JsonOption,
    MetricOption,
    SelectOption,
)

_GENERATOR = "neuralfuse"


@expand_options
def compare(
    *,
    network: ModelOptions,
    data: DataOptions,
    mitigations: Annotated[
        str | None,
        typer.Option(
            help="A list of secded:POLICY, in-place:POLICY (keep, zero or reread), parity:WHAT, word-masking:WHAT "
            "(weight or word), bit-masking, robust-bits:K, boosted:PATTERN@VOLTAGE (+ joins patterns), neuralfuse. "
            "[default: some of each, none of which needs a training]",
            show_default=False,
        ),
    ] = None,
    generator: Annotated[
        Path | None,
        typer.Option(
            help="The weight file of neuralfuse. [default: for a bundled model its bundled generator]",
            show_default=False,
        ),
    ] = None,
    voltages: Annotated[
        str | None,
        typer.Option(
            help="A list like 0.8,0.9 or a range first:last:step, in the curve's unit (1 is Vmin). "
            "[default: the points of --curve; without it 0.78,0.80,0.83,0.86,0.90,0.95,1.00]"
        ),
    ] = None,
    chips: Annotated[int, typer.Option(help="Simulated chips, the same ones for all.")] = 10,
    metric: MetricOption = None,
    memory: FaultOptions,
    supplies: DomainOptions,
    curve: CurveOption = None,
    select: SelectOption = None,
    device: DeviceOption = "auto",
    images: ImagesOption = None,
    batch_size: BatchSizeOption = 256,
    accuracy_floor: Annotated[
        float | None,
        typer.Option(
            parser=accuracy,
            metavar="FRACTION",
            help="Also say how each keeps this accuracy with the least energy: a fraction like 0.97, or percent like "
            "97%.",
        ),
    ] = None,
    seed: ChipSeedOption = 0,
    out: Annotated[
        Path | None, typer.Option(help="Directory for results.csv, summary.csv, sweep.json and sweep.png.")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Also draw the comparison into this file: .png, .pdf or .svg.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare mitigations: accuracy at equal energy.

    Energy is that of the weight memory in one inference: check bits, boosted layers, words that are read again at Vmin
    and the generator are included. A comparison that was killed goes on where it stopped when it is started again with
    the same --out.
    """
    from neuralfuse.bundled import GENERATORS
    from neuralfuse.files import read_generator

    from .. import bundled, comparison
    from ..devices import choose_device
    from ..io.files import check_writable, keep_apart
    from ..show.comparison_table import describe_comparison, make_comparison_tables
    from ..show.pictures import check_picture
    from ..subject import load_subject
    from ..voltage import VoltageCurve
    from ..voltage_sweep import FILES, plan_points
    from .progress import show_sweep
    from .tables import print_json, print_table

    measured = data.find_metric(metric, network.model)
    if accuracy_floor is not None and not measured.counts:
        raise FaultsimError(f"--accuracy-floor cannot be combined with the metric {measured.name}")
    read = {
        "--weights": network.weights,
        "--generator": generator,
        "--curve": curve,
        "--domains": supplies.domains,
    }
    if picture is not None:
        check_picture(picture, "--picture")
        keep_apart({"--picture": picture}, read)
        check_writable(picture)
    if out is not None:
        keep_apart({f"--out {out}: its {name}": out / name for name in FILES}, read)
    electrical = None if curve is None else VoltageCurve.from_csv(curve)
    faults, where = supplies.add_to(memory.fault_model()), choose_device(device)
    default = comparison.VOLTAGES if curve is None else None
    at = default if voltages is None else parse_numbers(voltages, "--voltages")
    plan = plan_points(electrical, at)
    shipped = GENERATORS.get(network.model or bundled.MODEL)
    if network.weights is None and generator is None and shipped is not None:
        generator = shipped.weights
    if mitigations is None:
        wanted = [*comparison.MITIGATIONS, *([_GENERATOR] if generator else [])]
    else:
        wanted = [name.strip() for name in mitigations.split(",")]
    if _GENERATOR in wanted and generator is None:
        raise FaultsimError("neuralfuse needs a generator for this model: add --generator FILE.safetensors")
    subject = load_subject(
        network.model,
        network.weights,
        data.dataset,
        data.data_dir,
        where,
        images,
        batch_size,
        network.per_channel,
        select=select,
        own=data.own(network.model),
        metric=measured,
    )
    front = []
    if _GENERATOR in wanted and generator is not None:
        front = [read_generator(generator).create_variant(where, subject.dataset.input_shape)]
    with show_sweep(len(plan) * (1 + len(wanted)), chips) as calls:
        result = comparison.compare(
            subject,
            [name for name in wanted if name != _GENERATOR],
            chips,
            plan,
            variants=front,
            curve=electrical,
            faults=faults,
            metric=measured,
            seed=seed,
            out=out,
            **calls,
        )
    if picture is not None:
        result.plot(picture)
    if as_json:
        print_json(
            {
                **result.as_dict(),
                "pareto": [[row.variant, row.point.voltage] for row in result.pareto()],
            }
        )
        return
    for table in make_comparison_tables(result):
        print_table(table)
    print("\n".join(describe_comparison(result, accuracy_floor)))
    if picture is not None:
        print(f"written to {picture}")
    if out is not None:
        print(f"written to {out}: {', '.join(FILES)}")
    elif sys.stdout.isatty():
        print("add --out DIR to keep the results and a picture")
