"""A study of a subject on chips, kept in a directory: one that was stopped goes on from there."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..chips.measured_chip import AnyChip, describe_chip
from ..faults import FaultModel, evaluation_chips
from ..io.files import write_text
from ..io.provenance import record_provenance
from ..io.run_directory import RunDirectory, format_csv
from ..metrics.metric import Metric
from ..voltage import VoltageCurve
from .conditions import Conditions
from .subject import Subject
from .sweep_result import OPTIONAL, SweepResult, list_columns
from .vulnerability_result import Vulnerability

if TYPE_CHECKING:
    from ..cluster.workers import AnyClient

Found = TypeVar("Found", SweepResult, Vulnerability)


def choose_chips(chips: int | Sequence[AnyChip], seed: int) -> list[AnyChip]:
    """Return so many simulated chips of `seed`, or the chips themselves."""
    return [*evaluation_chips(seed, chips)] if isinstance(chips, int) else list(chips)


def describe_study(
    subject: Subject,
    curve: VoltageCurve,
    where: Mapping[str, Any],
    faults: FaultModel,
    seed: int,
    chips: Sequence[AnyChip],
    client: "AnyClient | None" = None,
) -> dict[str, Any]:
    """Return what the results of every study depend on, as JSON values; `where` are its operating points."""
    return {
        **subject.configuration,
        "curve": curve.describe(),
        **where,
        "faults": faults.describe(subject.stored.format.width),
        "seed": seed,
        "chips": [describe_chip(chip) for chip in chips],
        "device": getattr(client, "device", subject.device.type),  # that of Workers, whose jobs compute
    }


def keep_study(
    run: Callable[[RunDirectory | None], Found],
    subject: Subject,
    configuration: dict[str, Any],
    conditions: Conditions,
    metric: Metric,
    out: str | PathLike[str] | None,
    files: Sequence[str],
    client: "AnyClient | None" = None,
) -> Found:
    """Run a study, with a directory where one is given: it ends with the summary and the picture.

    Parameters
    ----------
    run
        Makes the study. What the rows of the directory hold, it does not compute again.
    subject
        What is measured.
    configuration
        All that the results depend on, as JSON values. A directory with another one is refused.
    conditions
        The cells that all rows share.
    metric
        What is measured of it.
    out
        The directory; None: nothing is kept.
    files
        Names of what is written there: results.csv, the summary, NAME.json and the picture.
    client
        Whose workers compute; None: this process.

    Returns
    -------
    SweepResult or Vulnerability
        What `run` returns, with the configuration and where it was computed.

    Raises
    ------
    FaultsimError
        For a directory in use, or with a run of another configuration.
    """
    information = {
        **record_provenance(str(subject.device)),
        "memory": subject.stored.share.as_dict(),
    }
    if client is not None:
        information["device"] = "workers of a cluster (jobs.jsonl)"

    def complete(directory: RunDirectory | None) -> Found:
        return replace(run(directory), configuration=configuration, information=information)

    if out is None:
        return complete(None)
    out, (_, summary, description, picture) = Path(out), files
    name, columns = Path(description).stem, list_columns(metric)
    with RunDirectory(out, name, configuration, columns, OPTIONAL, conditions.columns) as directory:
        directory.begin(information)
        result = complete(directory)
        rows = result.rows()
        write_text(out / summary, format_csv(list(rows[0]), rows))
    result.plot(out / picture)
    return result
