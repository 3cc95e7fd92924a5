"""`faultsim sweep-voltage`: accuracy and energy against supply voltage."""

import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import FaultsimError
from .options import (
    BatchSizeOption,
    CapacityOption,
    ChipSeedOption,
    CurveOption,
    DataDirOption,
    DataOption,
    DatasetOption,
    DeviceOption,
    FaultKindOption,
    ImagesOption,
    InputSizeOption,
    JsonOption,
    MeanOption,
    MetricOption,
    ModelOption,
    PerChannelOption,
    PlacementOption,
    PolarityOption,
    PresetOption,
    ReadErrorOption,
    SelectOption,
    StdOption,
    WeightsOption,
    fault_model,
    load_curve,
    metric_named,
    own_data,
    parse_numbers,
)
from .options import (
    device as device_named,
)

if TYPE_CHECKING:
    from ..faultmap import MeasuredChip
    from ..faults import Chip

VOLTAGES = "0.78,0.79,0.80,0.81,0.82,0.83,0.84,0.86,0.90,0.95,1.00"


def sweep_voltage(
    model: ModelOption = None,
    weights: WeightsOption = None,
    dataset: DatasetOption = None,
    data_dir: DataDirOption = None,
    data: DataOption = None,
    input_size: InputSizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    metric: MetricOption = "accuracy",
    generator: Annotated[
        Path | None,
        typer.Option(
            help="A NeuralFuse generator's weight file: measured with it in front, and without. "
            "[default: none; for a shipped model the shipped one]",
            show_default=False,
        ),
    ] = None,
    voltages: Annotated[
        str | None,
        typer.Option(
            help="first:last:step or a list, in the curve's unit (1 is Vmin). [default: the points of --curve; without "
            f"it {VOLTAGES}; of a fault map, as far down as it was measured]"
        ),
    ] = None,
    bit_error_rates: Annotated[
        str | None, typer.Option(help="Instead of voltages: fractions of failing cells, like 0.001,0.01.")
    ] = None,
    chips: Annotated[int, typer.Option(help="Simulated chips for each voltage.")] = 10,
    fault_map: Annotated[
        list[Path] | None,
        typer.Option(help="A measured chip (.npz or .csv) instead of simulated ones; may be repeated."),
    ] = None,
    fault_kind: FaultKindOption = None,
    placement: PlacementOption = None,
    preset: PresetOption = None,
    polarity: PolarityOption = None,
    read_error: ReadErrorOption = None,
    capacity: CapacityOption = None,
    curve: CurveOption = None,
    per_channel: PerChannelOption = False,
    select: SelectOption = None,
    device: DeviceOption = "auto",
    images: ImagesOption = None,
    batch_size: BatchSizeOption = 256,
    accuracy_floor: Annotated[
        float | None,
        typer.Option(help="Also say which voltage takes the least energy at this accuracy, in %."),
    ] = None,
    seed: ChipSeedOption = 0,
    out: Annotated[
        Path | None, typer.Option(help="Directory for results.csv, summary.csv, sweep.json and sweep.png.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure accuracy and energy against supply voltage.

    Without options: a small convolutional network on handwritten digits, as it is and behind a NeuralFuse generator,
    all shipped with faultsim; --model DigitsVGG is the same for a larger network, beside which its generator costs
    little. A sweep that was killed goes on where it stopped when it is started again with the same --out.
    """
    from neuralfuse import embedded

    from .. import embedded as models
    from .. import plots
    from ..faultmap import MeasuredChip
    from ..faults import evaluation_chips
    from ..files import write_text
    from ..metrics import ACCURACY
    from ..provenance import provenance
    from ..results import RunDirectory, csv_text
    from ..sweep import (
        OPTIONAL,
        Variant,
        as_far_as_measured,
        as_measured,
        points,
        row_columns,
        summary_columns,
        sweep,
    )
    from ..sweep_plot import sweep_figure
    from .subject import load_generator, load_subject
    from .sweep_report import cheapest, progress, report_json, table

    if voltages is not None and bit_error_rates is not None:
        raise FaultsimError("give either --voltages or --bit-error-rates")
    measured = metric_named(metric)
    own = own_data(data, input_size, mean, std, dataset, data_dir)
    if accuracy_floor is not None and not measured.counts:
        raise FaultsimError(f"--accuracy-floor has no meaning for the metric {measured.name}")
    electrical = load_curve(curve)
    if bit_error_rates is not None:
        plan = points(electrical, None, parse_numbers(bit_error_rates, "--bit-error-rates"))
    elif voltages is not None:
        plan = points(electrical, parse_numbers(voltages, "--voltages"), None)
    else:
        known = electrical.voltages if curve is not None else parse_numbers(VOLTAGES)
        plan = points(electrical, known, None)
    faults = fault_model(fault_kind, placement, preset, polarity, read_error, capacity)
    where = device_named(device)
    samples = [MeasuredChip.load(path) for path in fault_map or []] or evaluation_chips(seed, chips)
    if fault_map:
        if voltages is None and bit_error_rates is None:
            plan = as_far_as_measured(plan, samples)
        plan = as_measured(plan, samples)
    shipped = embedded.GENERATORS.get(model or models.MODEL)
    if weights is None and generator is None and shipped is not None:
        generator = shipped.weights
    rest = dataset, data_dir, where, images, batch_size, per_channel
    subject = load_subject(model, weights, *rest, select=select, own=own, metric=measured)

    configuration = {
        **subject.configuration,
        "curve": vars(electrical),
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
        fused, fingerprint = load_generator(generator, where, subject.dataset.input_shape)
        variants.append(fused)
        configuration["generator"] = {"name": fused.name, "weights": fingerprint}
    run = dict(
        faults=faults,
        stored=subject.stored,
        variants=variants,
        accesses=subject.accesses,
        metric=measured,
    )
    steps = len(plan) * len(variants)
    if out is None:
        with progress(steps, len(samples)) as told:
            results = sweep(subject.model, subject.data, samples, plan, **run, **told)
    else:
        columns = row_columns(measured)
        with RunDirectory(out, "sweep", configuration, columns, optional=OPTIONAL) as directory:
            directory.begin(information)
            with progress(steps, len(samples)) as told:
                results = sweep(
                    subject.model, subject.data, samples, plan, **run, directory=directory, **told
                )
            rows = (result.summary() for result in results)
            write_text(out / "summary.csv", csv_text(summary_columns(results), rows))
            plots.save(sweep_figure(results, subject.title, electrical), out / "sweep.png")
    if as_json:
        print(report_json(results, configuration, information))
        return
    table(results, subject, faults, samples, electrical)
    if accuracy_floor is not None:
        print("\n".join(cheapest(results, variants, subject, electrical, accuracy_floor)))
    if out is not None:
        print(f"written to {out}: results.csv, summary.csv, sweep.json, sweep.png")
    elif sys.stdout.isatty():
        print("add --out DIR to keep the results and a picture")


def _described(chip: "Chip | MeasuredChip") -> int | dict[str, str]:
    """A chip in the configuration: everything that its faults follow from."""
    from ..faultmap import TYPES, MeasuredChip

    if not isinstance(chip, MeasuredChip):
        return chip.seed

    digest = hashlib.sha256(repr((chip.fault_map.arrays, chip.fault_map.geometry)).encode())
    for name in TYPES:
        digest.update(getattr(chip.fault_map, name).tobytes())
    return {"label": chip.label, "sha256": digest.hexdigest()}
