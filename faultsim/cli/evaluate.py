"""`faultsim evaluate`: accuracy at one operating point, without and with a generator."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import (
    BatchSizeOption,
    CapacityOption,
    ChipSeedOption,
    CurveOption,
    DataDirOption,
    DatasetOption,
    DeviceOption,
    FaultKindOption,
    ImagesOption,
    JsonOption,
    ModelOption,
    PerChannelOption,
    PlacementOption,
    PolarityOption,
    PresetOption,
    ReadErrorOption,
    SelectOption,
    WeightsOption,
    fault_model,
    operating_point,
)
from .options import device as device_named

if TYPE_CHECKING:
    from neuralfuse.protection import Protection


def evaluate(
    model: ModelOption = None,
    weights: WeightsOption = None,
    generator: Annotated[Path | None, typer.Option(help="A NeuralFuse generator's weight file.")] = None,
    dataset: DatasetOption = None,
    data_dir: DataDirOption = None,
    bit_error_rate: Annotated[
        float | None, typer.Option(help="Fraction of failing cells, like 0.01.")
    ] = None,
    voltage: Annotated[float | None, typer.Option(help="Instead: voltage of --curve (1 is Vmin).")] = None,
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
    """Measure accuracy without bit errors (C.A.) and with them (P.A.), without and with a generator (N.F.)."""
    from neuralfuse.protection import protection

    from ..faults import evaluation_chips
    from ..provenance import provenance
    from ..results import without_nan
    from .subject import load_generator, load_subject

    volts, rate = operating_point(voltage, bit_error_rate, curve)
    faults = fault_model(fault_kind, placement, preset, polarity, read_error, capacity)
    samples = evaluation_chips(seed, chips)
    where = device_named(device)
    rest = dataset, data_dir, where, images, batch_size, per_channel
    subject = load_subject(model, weights, *rest, select=select)
    configuration = {
        **subject.configuration,
        "bit_error_rate": rate,
        "voltage": volts,
        "faults": faults.describe(),
        "seed": seed,
        "chips": [chip.seed for chip in samples],
        "device": where.type,
    }
    fuse = None
    if generator is not None:
        variant, fingerprint = load_generator(generator, where, tuple(subject.dataset.images.shape[1:]))
        fuse = variant.transform
        configuration["generator"] = {"name": variant.name, "weights": fingerprint}
    found = protection(
        subject.model,
        subject.data,
        samples,
        bit_error_rate=rate,
        faults=faults,
        stored=subject.stored,
        fuse=fuse,
    )
    rows = _rows(found)
    if as_json:
        memory = {"memory": subject.stored.share.as_dict()}
        report = {"accuracy": rows, "configuration": configuration, **memory, **provenance(str(where))}
        print(json.dumps(without_nan(report), indent=2, allow_nan=False))
        return
    print_accuracies(rows, subject.title)
    at = f"bit error rate {rate:g}" + ("" if volts is None else f" (V = {volts:g})")
    print(f"{at}, {len(samples)} chips; ±: standard deviation over chips")
    print(
        f"fault kind {faults.kind} (wrong bits per failing cell: {faults.visible_rate:g}), "
        f"placement {faults.memory.placement}"
    )
    print(subject.stored.share)


def _rows(found: "Protection") -> list[dict]:
    """One for each column of the paper's Table 1; all numbers are fractions."""
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
            row |= {"std": evaluation.std, "interval": evaluation.interval, "chips": evaluation.accuracies}
        rows.append(row)
    if found.improvement is not None:
        rows.append({"name": "IP", **asdict(found.improvement)})
    return rows


def print_accuracies(rows: list[dict], title: str) -> None:
    """A table of rows that have a name and a mean, some of them std and interval."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(title=title, title_justify="left", title_style="bold")
    for header in ("", "%", "95 % CI"):
        shown.add_column(header, justify="right" if header else "left", no_wrap=True)
    for row in rows:
        value, interval = f"{100 * row['mean']:.2f}", ""
        if "std" in row:
            low, high = row["interval"]
            value += f" ± {100 * row['std']:.2f}"
            interval = "-" if math.isnan(low) else f"{100 * low:.2f} to {100 * high:.2f}"
        shown.add_row(row["name"], value, interval)
    Console().print(shown)
