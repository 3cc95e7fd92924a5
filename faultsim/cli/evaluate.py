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
    from neuralfuse.subject_protection import evaluate_subject

    from ..devices import choose_device
    from ..faults import evaluation_chips
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
    variant = generator and read_generator(generator).create_variant(where, subject.dataset.input_shape)
    found = evaluate_subject(
        subject,
        samples,
        voltage=volts,
        bit_error_rate=rate if volts is None else None,
        curve=curve,
        faults=faults,
        generator=variant,
        metric=measured,
        sites=sites,
        activations=activations,
        seed=seed,
        report=show_chips(len(samples)),
    )
    if as_json:
        print_json(found.as_dict())
        return
    print_table(found.table)
    print("\n".join(found.notes))
