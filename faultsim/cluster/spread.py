"""A sweep's measurement as jobs of workers."""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from ..errors import FaultsimError
from ..evaluation import Evaluation
from ..io.run_directory import RunDirectory
from ..network.architecture import Architecture
from ..network.batch import split_batch
from ..studies.measurement import Measure, Measurement, Report, repeat
from ..studies.stopping import is_precise
from ..studies.sweep_result import OperatingPoint, Variant
from .ahead import Ahead, Plan
from .files import JobFiles
from .journal import FILE, Journal
from .networks import PackedNetwork, PackedWeights
from .study import Case, PackedVariant, Study, name_metric, pack_chips
from .workers import AnyClient, Workers, open_workers

FOLDER = ".jobs"
"""Folder of a run directory, for files that workers take while the run lasts."""


@contextlib.contextmanager
def spread_study(
    study: Study,
    plan: Plan,
    workers: Workers,
    directory: RunDirectory | None = None,
    known: Mapping[int, Evaluation] | None = None,
) -> Iterator[Ahead]:
    """Yield what evaluates the cases of a study by workers, and stop them at the end.

    Parameters
    ----------
    study, plan
        What is evaluated, and on how many chips.
    workers
        Who evaluates.
    directory
        The open run directory, which gets the journal and the status. Files lie there while the study lasts; without
        it, in a temporary folder.
    known
        What was evaluated before, of the first chips of cases.
    """
    with contextlib.ExitStack() as stack:
        folder = (
            Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="faultsim-"))) / "jobs"
            if directory is None
            else directory.path / FOLDER
        )
        files = stack.enter_context(JobFiles(folder))
        journal = None
        if directory is not None:
            journal = stack.enter_context(contextlib.closing(Journal(directory.path / FILE)))

        def report(ahead: Ahead) -> None:
            if directory is not None:
                running = [job.name for job in workers.in_flight]
                directory.status.update(
                    ahead.done, ahead.total, running=running, failed=ahead.failed, workers=workers.describe()
                )

        checksum = study.write(files)
        ahead = Ahead(workers, plan, checksum, files, known or {}, journal, report)
        yield stack.enter_context(contextlib.closing(ahead))


@contextlib.contextmanager
def spread_measurement(
    measurement: Measurement,
    client: AnyClient,
    architecture: Architecture | None,
    looks: Sequence[int],
    precision: float | None,
    known: Mapping[tuple[str, OperatingPoint], Evaluation],
    directory: RunDirectory | None,
) -> Iterator[Measure]:
    """Yield what evaluates the variants of a sweep by workers, ahead of who asks for them.

    Parameters
    ----------
    measurement
        What is evaluated.
    client
        Whose workers evaluate.
    architecture
        What makes the model anew.
    looks, precision
        After how many chips the sweep looks whether it is precise enough.
    known
        What was evaluated before.
    directory
        The open run directory.
    """
    m, count = measurement, len(measurement.variants)
    if architecture is None:
        raise FaultsimError(
            "workers cannot make this model anew: give its architecture, or a subject of load_subject"
        )
    with open_workers(client, m.stored.layers[0].values.device.type) as workers:
        numbers = [(place, number) for number in range(len(m.points)) for place in range(count)]
        study = Study(
            PackedNetwork.of(architecture, m.model),
            PackedWeights.of(m.stored, m.model),
            [split_batch(batch) for batch in m.data],
            tuple(_pack_variant(m, place, variant) for place, variant in enumerate(m.variants)),
            tuple(Case(place, **m.find_supply(number), sites=m.sites) for place, number in numbers),
            pack_chips(m.chips),
            m.curve,
            name_metric(m.metric),
            m.activations,
            workers.device,
            m.compute,
        )
        plan = Plan(
            tuple(f"{variant.name}, {point}" for point in m.points for variant in m.variants),
            tuple(tuple(range(first, first + count)) for first in range(0, count * len(m.points), count)),
            (tuple(looks),) * len(m.points),
            lambda group, found: (
                precision is not None and is_precise(found, precision, m.points[group].bit_error_rate)
            ),
            m.metric,
            8 if any(variant.transform is not None for variant in m.variants) else 1,
        )
        before = {
            number * count + place: found
            for number, point in enumerate(m.points)
            for place, variant in enumerate(m.variants)
            if (found := known.get((variant.name, point))) is not None
        } | _evaluate_at_vmin(m, study, workers)
        with spread_study(study, plan, workers, directory, before) as ahead:

            def evaluate(variant: int, point: int, first: int, end: int, report: Report = None) -> Evaluation:
                return ahead.evaluate(point * count + variant, first, end, report)

            yield evaluate


def _evaluate_at_vmin(m: Measurement, study: Study, workers: Workers) -> dict[int, Evaluation]:
    """Return the evaluations, by their cases, of variants without errors: they are evaluated once."""
    places = [place for place, variant in enumerate(m.variants) if variant.at_vmin]
    if not places:
        return {}
    cases = tuple(Case(place, bit_error_rate=0.0) for place in places)
    plan = Plan(
        tuple(f"{m.variants[place].name}, without errors" for place in places),
        tuple((number,) for number in range(len(places))),
        ((1,),) * len(places),
        lambda group, found: True,
        m.metric,
    )
    with spread_study(replace(study, cases=cases, chips=[0], activations=None), plan, workers) as ahead:
        found = [repeat(ahead.evaluate(number, 0, 1), len(m.chips)) for number in range(len(places))]
    count = len(m.variants)
    return {
        number * count + place: one
        for number in range(len(m.points))
        for place, one in zip(places, found, strict=True)
    }


def _pack_variant(measurement: Measurement, place: int, variant: Variant) -> PackedVariant:
    return PackedVariant(
        measurement.find_faults(place),
        _pack_network(variant, variant.model),
        None
        if variant.stored is None
        else PackedWeights.of(variant.stored, variant.model or measurement.model),
        _pack_network(variant, variant.transform),
    )


def _pack_network(variant: Variant, network: nn.Module | None) -> PackedNetwork | None:
    if network is None:
        return None
    if variant.architecture is None:
        raise FaultsimError(f"{variant.name} cannot be sent to workers: the variant names no architecture")
    return PackedNetwork.of(variant.architecture, network)
