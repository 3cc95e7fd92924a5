"""`faultsim evaluate`: accuracy at one operating point, without and with a generator."""

from pathlib import Path
from typing import Annotated

import typer

from .activation_options import ActivationOptions
from .domain_options import DomainOptions
from .option_groups import (
    DataOptions,
    FaultOptions,
    FormatOptions,
    ModelOptions,
    PointOptions,
    expand_options,
)
from .options import (
    BatchSizeOption,
    ChipSeedOption,
    DeviceOption,
    ImagesOption,
    JsonOption,
    MetricOption,
    SelectOption,
)


@expand_options
def evaluate(
    *,
    network: ModelOptions,
    generator: Annotated[Path | None, typer.Option(help="Weight file of a NeuralFuse generator.")] = None,
    data: DataOptions,
    metric: MetricOption = None,
    point: PointOptions,
    chips: Annotated[int, typer.Option(help="Simulated chips, none of which is used in training.")] = 10,
    memory: FaultOptions,
    supplies: DomainOptions,
    inputs: ActivationOptions,
    select: SelectOption = None,
    stored: FormatOptions,
    device: DeviceOption = "auto",
    images: ImagesOption = None,
    batch_size: BatchSizeOption = 256,
    seed: ChipSeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Measure accuracy at one voltage or bit error rate.

    It prints the accuracy (or another metric) without bit errors (C.A.) and with them, over simulated chips (P.A.).
    With --generator it prints both also behind the generator (N.F.), and the improvement on the same chips (IP).
    """
    from neuralfuse.files import read_generator
    from neuralfuse.protection import evaluate_protected

    from ..conditions import Conditions
    from ..devices import choose_device
    from ..faults import evaluation_chips
    from ..io.provenance import record_provenance
    from ..metrics import ACCURACY
    from ..show.accuracy_table import make_accuracy_table
    from ..show.units import format_percent
    from ..subject import load_subject
    from .progress import show_chips
    from .tables import print_json, print_table

    measured, own = data.find_metric(metric, network.model), data.own(network.model)
    sites = inputs.sites
    volts, rate = point.point()
    curve = point.voltage_curve()
    faults = supplies.add_to(memory.fault_model()).resolve(curve)
    samples, where = evaluation_chips(seed, chips), choose_device(device)
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
        format=stored.chosen(),
        own=own,
        metric=measured,
    )
    activations = inputs.memory(subject, faults)
    transform = generator and read_generator(generator).create_variant(where, subject.dataset.input_shape)
    found = evaluate_protected(
        subject.model,
        subject.data,
        samples,
        bit_error_rate=rate,
        faults=faults,
        stored=subject.stored,
        generator=transform and transform.transform,
        metric=measured,
        sites=sites,
        activations=activations,
        curve=curve,
        report=show_chips(len(samples)),
    )
    if as_json:
        configuration = {
            **subject.configuration,
            "bit_error_rate": rate,
            "voltage": volts,
            "curve": curve and curve.describe(),
            "faults": faults.describe(),
            **({} if activations is None else {"fault_sites": sites, "activations": activations.describe()}),
            "seed": seed,
            "chips": [chip.seed for chip in samples],
            "device": where.type,
            **({} if measured == ACCURACY else {"metric": measured.describe()}),
            **(
                {"generator": {"name": transform.name, "weights": transform.fingerprint}} if transform else {}
            ),
        }
        values = {
            "accuracy" if measured == ACCURACY else "values": found.rows(),
            "configuration": configuration,
        }
        print_json({**values, "memory": subject.stored.share.as_dict(), **record_provenance(str(where))})
        return
    print_table(make_accuracy_table(found.rows(), subject.title, measured))
    if measured != ACCURACY:
        print(
            f"{measured.name}, {measured.arrow}: C.A. without bit errors, P.A. with them, N.F. with a generator"
        )
    wrong = sum(row.get("not_finite", 0) for row in found.rows())
    if wrong:
        print(f"{wrong:,} answers were not finite (NaN or infinity): they count as wrong")
    at = f"bit error rate {format_percent(rate)}" + ("" if volts is None else f" (V = {volts:g})")
    print(f"{at}, {len(samples)} chips; ±: standard deviation over chips")
    held = subject.stored.format
    print(f"faults: {Conditions(faults, curve, sites=sites, activations=activations, format=held)}")
    print(f"wrong bits per failing cell: {faults.visible_rate:g}")
    print(subject.stored.share)
