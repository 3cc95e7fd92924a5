"""`faultsim evaluate`: accuracy at one operating point, without and with a generator."""

from pathlib import Path
from typing import Annotated

import typer

from .activation_options import ActivationOptions
from .cluster_options import ClusterOptions
from .domain_options import DomainOptions
from .option_groups import FaultOptions, FormatOptions, PointOptions, expand_options
from .options import ChipSeedOption, JsonOption
from .study_options import SubjectOptions


@expand_options
def evaluate(
    *,
    subject: SubjectOptions,
    generator: Annotated[Path | None, typer.Option(help="Weight file of a NeuralFuse generator.")] = None,
    point: PointOptions,
    chips: Annotated[int, typer.Option(help="Simulated chips, none of which is used in training.")] = 10,
    memory: FaultOptions,
    supplies: DomainOptions,
    inputs: ActivationOptions,
    stored: FormatOptions,
    seed: ChipSeedOption = 0,
    cluster: ClusterOptions,
    as_json: JsonOption = False,
) -> None:
    """Measure accuracy at one voltage or bit error rate.

    It prints the accuracy (or another metric) without bit errors (C.A.) and with them, over simulated chips (P.A.).
    With --generator it prints both also behind the generator (N.F.), and the improvement on the same chips (IP).
    """
    from neuralfuse.files import read_generator
    from neuralfuse.subject_protection import evaluate_subject

    from ..faults import evaluation_chips
    from .progress import show_chips
    from .tables import print_json, print_table

    measured, sites = subject.measured(), inputs.sites
    volts, rate = point.point()
    curve = point.voltage_curve()
    faults = supplies.add_to(memory.fault_model()).resolve(curve)
    samples, loaded = evaluation_chips(seed, chips), subject.load(stored, cluster)
    place = loaded.device, loaded.dataset.input_shape
    with cluster.open(subject.device) as workers:
        found = evaluate_subject(
            loaded,
            samples,
            voltage=volts,
            bit_error_rate=rate if volts is None else None,
            curve=curve,
            faults=faults,
            generator=generator and read_generator(generator).create_variant(*place),
            metric=measured,
            sites=sites,
            activations=inputs.memory(loaded, faults),
            seed=seed,
            report=show_chips(len(samples)),
            client=workers,
        )
    if as_json:
        print_json(found.as_dict())
        return
    print_table(found.table)
    print("\n".join(found.notes))
