"""`faultsim compare`: mitigations at equal energy."""

from pathlib import Path
from typing import Annotated

import typer

from .cluster_options import ClusterOptions
from .domain_options import DomainOptions
from .numerals import accuracy, parse_named, parse_numbers
from .option_groups import FaultOptions, expand_options
from .options import ChipSeedOption, CurveOption
from .study_options import OutputOptions, SubjectOptions


@expand_options
def compare(
    *,
    subject: SubjectOptions,
    mitigations: Annotated[
        str | None,
        typer.Option(
            help="A list of secded:POLICY, in-place:POLICY (keep, zero or reread), parity:WHAT, word-masking:WHAT "
            "(weight or word), bit-masking, robust-bits:K, boosted:PATTERN@VOLTAGE (+ joins patterns), "
            "range-restriction:WHAT (clamp or zero), fault-aware (a known chip), base:FILE "
            "(another base model), neuralfuse:FILE (a generator), classifier:FILE, cascade:FILE@CONFIDENCE (a little "
            "network answers where it is confident), lookup:FILE@CONFIDENCE (patterns without a decoder), "
            "package.module:name (your own); NAME=ENTRY names one. [default: some of each, which need neither a "
            "training nor a known chip]",
            show_default=False,
        ),
    ] = None,
    generator: Annotated[
        Path | None,
        typer.Option(
            help="The weight file of neuralfuse; classifier, cascade and lookup take the files next to it. [default: "
            "for a bundled model its bundled generator]",
            show_default=False,
        ),
    ] = None,
    overhead: Annotated[
        str | None,
        typer.Option(
            help="What is not counted by default: a list of NAME=FRACTION, such as secded=0.05,robust-bits=20%. "
            "Fractions of a plain access at the same voltage; of robust-bits: what a robust cell takes above another; "
            "of boosted: of an access of these layers at Vmin.",
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
    memory: FaultOptions,
    supplies: DomainOptions,
    curve: CurveOption = None,
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
    cluster: ClusterOptions,
    output: OutputOptions,
) -> None:
    """Compare mitigations: accuracy at equal energy.

    Energy is that of the weight memory in one inference: check bits, boosted layers, words that are read again at Vmin
    and the generator are included. A comparison that was killed goes on where it stopped when it is started again with
    the same --out.
    """
    from neuralfuse.entries import list_defaults, list_kinds

    from ..show.comparison_table import describe_comparison, make_comparison_tables
    from ..studies import comparison
    from ..studies.entry_labels import parse_entry
    from ..studies.voltage_sweep import FILES, plan_points
    from ..voltage import VoltageCurve
    from .progress import show_sweep

    measured = subject.measured(accuracy_floor)
    read = {
        "--weights": subject.network.weights,
        "--generator": generator,
        "--curve": curve,
        "--domains": supplies.domains,
    }
    output.check(FILES, read)
    electrical = None if curve is None else VoltageCurve.from_csv(curve)
    faults = supplies.add_to(memory.fault_model())
    default = comparison.VOLTAGES if curve is None else None
    plan = plan_points(electrical, default if voltages is None else parse_numbers(voltages, "--voltages"))
    generator = subject.choose_generator(generator)
    kinds = list_kinds(generator)
    wanted = [*comparison.MITIGATIONS, *list_defaults(generator)]
    if mitigations is not None:
        wanted = mitigations.split(",")
    entries = [parse_entry(label, kinds) for label in wanted]
    steps = len(plan) * (1 + len(entries))
    with cluster.open(subject.device) as workers, show_sweep(steps, chips) as calls:
        result = comparison.compare(
            subject.load(cluster=cluster),
            entries,
            chips,
            plan,
            curve=electrical,
            faults=faults,
            overheads=parse_named(overhead or "", "--overhead"),
            metric=measured,
            seed=seed,
            out=output.out,
            client=workers,
            **calls,
        )
    tables, notes = make_comparison_tables(result), describe_comparison(result, accuracy_floor)
    pareto = [[row.variant, row.point.voltage] for row in result.pareto()]
    output.show(result, tables, notes, FILES, pareto=pareto)
