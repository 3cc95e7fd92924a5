"""`faultsim sweep-voltage`: accuracy and energy against supply voltage."""

import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import FaultsimError
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
    load_curve,
    metric_named,
)
from .options import device as device_named

if TYPE_CHECKING:
    from ..faults import Chip
    from ..measured_chip import MeasuredChip

FILES = ("results.csv", "summary.csv", "sweep.json", "sweep.png")
VOLTAGES = "0.78,0.79,0.80,0.81,0.82,0.83,0.84,0.86,0.90,0.95,1.00"


@expand_options
def sweep_voltage(
    *,
    network: ModelOptions,
    data: DataOptions,
    metric: MetricOption = "accuracy",
    generator: Annotated[
        Path | None,
        typer.Option(
            help="A NeuralFuse generator's weight file: measured with it in front, and without. "
            "[default: none; for a bundled model its bundled generator]",
            show_default=False,
        ),
    ] = None,
    voltages: Annotated[
        str | None,
        typer.Option(
            help="A list like 0.8,0.9 or a range first:last:step, in the curve's unit (1 is Vmin). "
            "[default: the points of --curve; without "
            f"it {VOLTAGES}; of a fault map, as far down as it was measured]"
        ),
    ] = None,
    bit_error_rates: Annotated[
        str | None,
        typer.Option(
            help="Instead of voltages: shares of failing cells, as fractions like 0.001,0.01 or percent like 0.1%,1%."
        ),
    ] = None,
    chips: Annotated[int, typer.Option(help="Simulated chips for each voltage.")] = 10,
    fault_map: Annotated[
        list[Path] | None,
        typer.Option(help="Measured chip (.npz or .csv), instead of simulated ones; may be repeated."),
    ] = None,
    memory: FaultOptions,
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
            help="Also say which voltage takes the least energy at this accuracy: a fraction like 0.97, or percent "
            "like 97%. A number above 1 is percent, too.",
        ),
    ] = None,
    seed: ChipSeedOption = 0,
    out: Annotated[
        Path | None, typer.Option(help="Directory for results.csv, summary.csv, sweep.json and sweep.png.")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Also draw the sweep into this file: .png, .pdf or .svg.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure accuracy and energy against supply voltage.

    Without options: a small convolutional network on handwritten digits, as it is and behind a NeuralFuse generator,
    all bundled with faultsim; --model DigitsVGG is the same for a larger network, beside which its generator costs
    little. A sweep that was killed goes on where it stopped when it is started again with the same --out.
    """
    from neuralfuse import bundled
    from neuralfuse.files import read_generator

    from .. import bundled as models
    from ..conditions import Conditions
    from ..faults import evaluation_chips
    from ..io.files import check_writable, keep_apart, write_text
    from ..io.provenance import provenance
    from ..io.run_directory import RunDirectory, csv_text
    from ..measured_chip import MeasuredChip
    from ..metrics import ACCURACY
    from ..show.pictures import check_picture
    from ..subject import load_subject
    from ..voltage_sweep import OPTIONAL, Variant, as_far_as_measured, as_measured, points, row_columns, sweep
    from .sweep_report import cheapest, progress, report_json, summary_rows, table

    if voltages is not None and bit_error_rates is not None:
        raise FaultsimError("give either --voltages or --bit-error-rates")
    measured = metric_named(metric)
    own = data.own()
    if accuracy_floor is not None and not measured.counts:
        raise FaultsimError(f"--accuracy-floor cannot be combined with the metric {measured.name}")
    read = {
        "--weights": network.weights,
        "--generator": generator,
        "--curve": curve,
        "--fault-map": fault_map,
    }
    if picture is not None:
        check_picture(picture, "--picture")
        keep_apart({"--picture": picture}, read)
        check_writable(picture)
    if out is not None:
        keep_apart({f"--out {out}: its {name}": out / name for name in FILES}, read)
    electrical = load_curve(curve)
    if bit_error_rates is not None:
        plan = points(electrical, None, parse_numbers(bit_error_rates, "--bit-error-rates", rates=True))
    elif voltages is not None:
        plan = points(electrical, parse_numbers(voltages, "--voltages"), None)
    else:
        known = electrical.voltages if curve is not None else parse_numbers(VOLTAGES)
        plan = points(electrical, known, None)
    faults = memory.fault_model()
    where = device_named(device)
    samples = [MeasuredChip.load(path) for path in fault_map or []] or evaluation_chips(seed, chips)
    if fault_map:
        if voltages is None and bit_error_rates is None:
            plan = as_far_as_measured(plan, samples)
        plan = as_measured(plan, samples)
    shipped = bundled.GENERATORS.get(network.model or models.MODEL)
    if network.weights is None and generator is None and shipped is not None:
        generator = shipped.weights
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
        own=own,
        metric=measured,
    )

    configuration = {
        **subject.configuration,
        "curve": electrical.describe(),
        "points": [vars(point) for point in plan],
        "faults": faults.describe(),
        "seed": seed,
        "chips": [_described(chip) for chip in samples],
        "device": where.type,
        **({} if measured == ACCURACY else {"metric": measured.describe()}),
    }
    information = {**provenance(str(where)), "memory": subject.stored.share.as_dict()}
    variants = [Variant()]
    if generator is not None:
        saved = read_generator(generator)
        fused = saved.create_variant(where, subject.dataset.input_shape)
        variants.append(fused)
        configuration["generator"] = {"name": fused.name, "weights": saved.fingerprint}
    conditions = Conditions.of(faults, samples, electrical, subject.stored.share)
    run = dict(
        faults=faults,
        stored=subject.stored,
        variants=variants,
        accesses=subject.accesses,
        metric=measured,
        access_pj=electrical.access_pj,
    )
    steps = len(plan) * len(variants)
    if out is None:
        with progress(steps, len(samples)) as told:
            results = sweep(subject.model, subject.data, samples, plan, **run, **told)
    else:
        columns = row_columns(measured)
        with RunDirectory(
            out, "sweep", configuration, columns, optional=OPTIONAL, constants=conditions.columns
        ) as directory:
            directory.begin(information)
            with progress(steps, len(samples)) as told:
                results = sweep(
                    subject.model, subject.data, samples, plan, **run, directory=directory, **told
                )
            rows = summary_rows(results, conditions)
            write_text(out / "summary.csv", csv_text(list(rows[0]), rows))
    drawn = [path for path in (picture, None if out is None else out / "sweep.png") if path is not None]
    if drawn:
        from ..show import plots
        from ..show.sweep_plot import sweep_figure

        figure = sweep_figure(results, subject.title, conditions)
        for path in drawn:
            plots.save(figure, path)
    if as_json:
        print(report_json(results, conditions, configuration, information))
        return
    table(results, subject, conditions, len(samples))
    if accuracy_floor is not None:
        print("\n".join(cheapest(results, variants, subject, electrical, accuracy_floor)))
    if picture is not None:
        print(f"written to {picture}")
    if out is not None:
        print(f"written to {out}: {', '.join(FILES)}")
    elif sys.stdout.isatty():
        print("add --out DIR to keep the results and a picture")


def _described(chip: "Chip | MeasuredChip") -> int | dict[str, str]:
    """A chip in the configuration: everything that its faults follow from."""
    from ..fault_cells import TYPES
    from ..measured_chip import MeasuredChip

    if not isinstance(chip, MeasuredChip):
        return chip.seed

    digest = hashlib.sha256(repr((chip.fault_map.arrays, chip.fault_map.geometry)).encode())
    for name in TYPES:
        digest.update(getattr(chip.fault_map, name).tobytes())
    return {"label": chip.label, "sha256": digest.hexdigest()}
