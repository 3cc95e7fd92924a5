"""`faultsim evaluate`: accuracy at one operating point, without and with a generator."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import (
    BatchSizeOption,
    BitErrorRateOption,
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
    VoltageOption,
    WeightsOption,
    curve_of,
    fault_model,
    metric_named,
    operating_point,
    percent,
)
from .options import device as device_named
from .own_data import own_data

if TYPE_CHECKING:
    from neuralfuse.protection import Protection

    from ..metrics import Metric


def evaluate(
    model: ModelOption = None,
    weights: WeightsOption = None,
    generator: Annotated[Path | None, typer.Option(help="A NeuralFuse generator's weight file.")] = None,
    dataset: DatasetOption = None,
    data_dir: DataDirOption = None,
    data: DataOption = None,
    input_size: InputSizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    metric: MetricOption = "accuracy",
    bit_error_rate: BitErrorRateOption = None,
    voltage: VoltageOption = None,
    chips: Annotated[int, typer.Option(help="Simulated chips; none of them was ever trained on.")] = 10,
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
    seed: ChipSeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Measure accuracy, or another metric, without bit errors (C.A.) and with them (P.A.), without and with a generator
    (N.F.)."""
    from neuralfuse.files import read_generator
    from neuralfuse.protection import evaluate_protected

    from ..conditions import Conditions
    from ..faults import evaluation_chips
    from ..io.provenance import provenance
    from ..io.run_directory import without_nan
    from ..metrics import ACCURACY
    from ..subject import load_subject
    from .progress import show_chips

    measured = metric_named(metric)
    own = own_data(data, input_size, mean, std, dataset, data_dir)
    volts, rate = operating_point(voltage, bit_error_rate, curve)
    electrical = curve_of(voltage, curve)
    faults = fault_model(fault_kind, placement, preset, polarity, read_error, capacity)
    samples = evaluation_chips(seed, chips)
    where = device_named(device)
    rest = dataset, data_dir, where, images, batch_size, per_channel
    subject = load_subject(model, weights, *rest, select=select, own=own, metric=measured)
    configuration = {
        **subject.configuration,
        "bit_error_rate": rate,
        "voltage": volts,
        "curve": electrical and electrical.describe(),
        "faults": faults.describe(),
        "seed": seed,
        "chips": [chip.seed for chip in samples],
        "device": where.type,
        **({} if measured == ACCURACY else {"metric": measured.describe()}),
    }
    fuse = None
    if generator is not None:
        saved = read_generator(generator)
        variant = saved.create_variant(where, subject.dataset.input_shape)
        fuse = variant.transform
        configuration["generator"] = {"name": variant.name, "weights": saved.fingerprint}
    found = evaluate_protected(
        subject.model,
        subject.data,
        samples,
        bit_error_rate=rate,
        faults=faults,
        stored=subject.stored,
        generator=fuse,
        metric=measured,
        report=show_chips(len(samples)),
    )
    rows = _rows(found)
    if as_json:
        report = {
            "accuracy" if measured == ACCURACY else "values": rows,
            "configuration": configuration,
            "memory": subject.stored.share.as_dict(),
            **provenance(str(where)),
        }
        print(json.dumps(without_nan(report), indent=2, allow_nan=False))
        return
    print_values(rows, subject.title, measured)
    if measured != ACCURACY:
        print(
            f"{measured.name}, {measured.arrow}: C.A. without bit errors, P.A. with them, N.F. with a generator"
        )
    wrong = sum(row.get("not_finite", 0) for row in rows)
    if wrong:
        print(f"{wrong:,} answers were not finite (NaN or infinity): they count as wrong")
    at = f"bit error rate {percent(rate)}" + ("" if volts is None else f" (V = {volts:g})")
    print(f"{at}, {len(samples)} chips; ±: standard deviation over chips")
    print(f"faults: {Conditions(faults, electrical)}")
    print(f"wrong bits per failing cell: {faults.visible_rate:g}")
    print(subject.stored.share)


def _rows(found: "Protection") -> list[dict]:
    """One for each column of the paper's Table 1; accuracies are fractions."""
    rows = []
    for name, evaluation, one in (
        ("C.A.", found.clean, True),
        ("P.A.", found.perturbed, False),
        ("C.A.+N.F.", found.clean_fused, True),
        ("P.A.+N.F.", found.perturbed_fused, False),
    ):
        if evaluation is None:
            continue
        row = {"name": name, "mean": evaluation.mean}
        if not one:  # without errors all chips are alike
            row |= {"std": evaluation.std, "interval": evaluation.interval, "chips": evaluation.values}
        if evaluation.wrong_numbers:
            row["not_finite"] = evaluation.wrong_numbers
        rows.append(row)
    if found.improvement is not None:
        rows.append({"name": "IP", **asdict(found.improvement)})
    return rows


def print_accuracies(rows: list[dict], title: str) -> None:
    """A table of accuracies: see print_values."""
    from ..metrics import ACCURACY

    print_values(rows, title, ACCURACY)


def print_values(rows: list[dict], title: str, metric: "Metric") -> None:
    """A table of rows that have a name and a mean, some of them std and interval."""
    from rich.table import Table

    from .tables import console

    shown = Table(title=title, title_justify="left", title_style="bold")
    for header in ("", "%" if metric.counts else metric.label, "95 % CI"):
        shown.add_column(header, justify="right" if header else "left", no_wrap=True)
    for row in rows:
        value, interval = metric.text(row["mean"]), ""
        if "std" in row:
            low, high = row["interval"]
            value += (
                f" ± {metric.text(row['std'], 2 if metric.fraction else 0)}"
                if math.isfinite(row["std"])
                else ""
            )
            interval = "-" if math.isnan(low) else f"{metric.text(low)} to {metric.text(high)}"
        shown.add_row(row["name"], value, interval)
    console().print(shown)
