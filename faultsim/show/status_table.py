"""How far a run is, as lines and a table."""

from collections import Counter

from ..io.run_status import RunStatus
from .tables import Table
from .units import format_duration

MOST_LINES = 10
"""Jobs that are named, of those that run and of those that failed."""


def describe_status(status: RunStatus) -> list[str]:
    """Return lines: how far, what is computed now, what failed."""
    count = f"{status.done:,} {status.unit}"
    if status.total is not None:
        share = f", {100 * status.done / status.total:.0f} %" if status.total else ""
        count = f"{status.done:,} of {status.total:,} {status.unit}{share}"
    lines = [f"{status.path}: {status.kind}, {status.state}; {count}"]
    if status.seconds is not None:
        left = "not known" if status.seconds_left is None else format_duration(status.seconds_left)
        lines.append(f"running for {format_duration(status.seconds)}, time left: {left}")
    if status.state == "stopped":
        lines.append("the same command goes on")
    for title, names in (
        ("running", status.running),
        ("failed", tuple(f"{name}: {why}" for name, why in status.failed)),
    ):
        lines += [f"{title}: {name}" for name in names[:MOST_LINES]]
        if len(names) > MOST_LINES:
            lines.append(f"{title}: {len(names) - MOST_LINES:,} more")
    return lines


def make_workers_table(status: RunStatus) -> Table | None:
    """Make the table of the workers, those of a host in one row; None where there are none."""
    if not status.workers:
        return None
    count: Counter[tuple[str, str]] = Counter()
    jobs: Counter[tuple[str, str]] = Counter()
    for worker in status.workers:
        where = str(worker["host"]), str(worker["processor"])
        count[where] += 1
        jobs[where] += int(worker["jobs"])
    rows = tuple((*where, f"{count[where]:,}", f"{jobs[where]:,}") for where in sorted(count))
    return Table("workers", ("host", "processor", "workers", "jobs done"), rows, words=(0, 1))
