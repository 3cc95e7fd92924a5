"""How far a run is: DIR/status.json, which a run keeps while it lasts, and what anyone can read of a run directory."""

import contextlib
import fcntl
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import FaultsimError
from .bounds import parse_json, read_text
from .files import write_text

FILE = "status.json"
WRITE_SECONDS = 1.0
"""Least seconds between two times that the file is written."""
MOST_BYTES = 64 << 20
_MOST_RUNNING = 100  # names of jobs in the file
_STUDIES = {"sweep": "summary.csv", "vulnerability": "vulnerability.csv"}  # and the file that is written last


class StatusFile:
    """The file of a run that lasts. A run that comes to its end removes it; one that is killed leaves it behind."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / FILE
        self._began, self._written = time.monotonic(), 0.0
        self._first: int | None = None  # what was done before this session
        self._content: dict[str, Any] = {"began": _now()}

    def update(
        self,
        done: int,
        total: int | None = None,
        *,
        unit: str = "chips",
        running: Sequence[str] = (),
        failed: Sequence[tuple[str, str]] = (),
        workers: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Say how far the run is; the file is written about once a second.

        Parameters
        ----------
        done, total
            How many of how many; None: it is not known.
        unit
            Of what.
        running
            What is computed now.
        failed
            What failed, and why.
        workers
            Who computes, as JSON values.
        """
        if self._first is None:
            self._first = done
        elapsed = time.monotonic() - self._began
        self._content |= {
            "updated": _now(),
            "seconds": round(elapsed, 1),
            "unit": unit,
            "done": done,
            "done_before": self._first,
            "total": total,
            "running": list(running)[:_MOST_RUNNING],
            "failed": list(failed),
            "workers": list(workers),
        }
        if time.monotonic() - self._written >= WRITE_SECONDS:
            self.write()

    def rows_added(self, rows: int) -> None:
        """Say that results.csv has so many rows: how far a run is that computes in their order."""
        if not self._content.get("workers"):
            self.update(rows)

    def write(self) -> None:
        """Write the file, if anything was said."""
        if self._first is not None:
            write_text(self.path, json.dumps(self._content, indent=1) + "\n")
            self._written = time.monotonic()

    def remove(self) -> None:
        """Remove the file: the run is complete."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)


@dataclass(frozen=True)
class RunStatus:
    """How far a run is."""

    path: Path
    kind: str
    """What it is: sweep, vulnerability or reproduce."""
    state: str
    """running, stopped or complete."""
    unit: str
    """What is counted: chips (of all operating points and variants together), or steps."""
    done: int
    total: int | None
    """None where it is not known: where a sweep stops at a precision, for instance."""
    seconds: float | None = None
    """Since this session of the run began; None where it does not run."""
    seconds_left: float | None = None
    running: tuple[str, ...] = ()
    failed: tuple[tuple[str, str], ...] = ()
    """What failed in this session, and why."""
    workers: tuple[Mapping[str, Any], ...] = field(default=())
    """Name, host, processor and number of jobs of each worker of a cluster."""

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {**vars(self), "path": str(self.path)}


def read_status(directory: str | Path) -> RunStatus:
    """Read how far a run is, from its directory, while it runs or afterwards.

    Parameters
    ----------
    directory
        Of a sweep, a comparison, a vulnerability study or a reproduction.

    Returns
    -------
    RunStatus

    Raises
    ------
    FaultsimError
        For a directory that is none of a run.
    """
    path = Path(directory)
    kind = next((kind for kind in (*_STUDIES, "reproduce") if (path / f"{kind}.json").is_file()), None)
    if kind is None:
        raise FaultsimError(
            f"{path} is no run directory: it has no sweep.json, vulnerability.json or reproduce.json"
        )
    told = _read_told(path / FILE) if (path / FILE).exists() else {}
    done, total = told.get("done", 0), told.get("total")
    complete = False
    if kind in _STUDIES:
        configuration = _read(path / f"{kind}.json").get("configuration")
        done = max(done, _count_rows(path / "results.csv"))
        total = _count_chips(configuration if isinstance(configuration, dict) else {}) or total
        complete = (path / _STUDIES[kind]).exists() and not told
    elif not told:
        endings = (".json", ".npz", ".safetensors")
        done = sum(1 for file in path.iterdir() if file.suffix in endings and "-" in file.name)
        complete = True
    is_running = _is_locked(path)
    if complete and not is_running:
        return RunStatus(
            path, kind, "complete", told.get("unit", "chips" if kind in _STUDIES else "files"), done, done
        )
    seconds = left = None
    if is_running and told:
        seconds = told["seconds"]
        new = told["done"] - told["done_before"]
        if new > 0 and total is not None:
            left = seconds / new * max(0, total - told["done"])
    return RunStatus(
        path,
        kind,
        "running" if is_running else "stopped",
        told.get("unit", "chips" if kind in _STUDIES else "files"),
        done,
        total,
        seconds,
        left,
        tuple(told.get("running", ())) if is_running else (),
        tuple((name, why) for name, why in told.get("failed", ())),
        tuple(told.get("workers", ())) if is_running else (),
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _read(path: Path) -> dict[str, Any]:
    """Return a JSON object of a file; FaultsimError where it holds none."""
    try:
        found = parse_json(read_text(path, MOST_BYTES), MOST_BYTES)
    except (OSError, ValueError) as error:
        raise FaultsimError(f"{path} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise FaultsimError(f"{path} is no file that faultsim wrote")
    return found


def _read_told(path: Path) -> dict[str, Any]:
    """Return what a StatusFile says; FaultsimError for what none says."""
    found = _read(path)
    told: dict[str, Any] = {"unit": "chips", "running": [], "failed": [], "workers": []} | found
    fits = (
        all(type(told.get(name)) is int for name in ("done", "done_before"))
        and type(told.get("total")) in (int, type(None))
        and isinstance(told.get("seconds"), int | float)
        and isinstance(told["unit"], str)
        and all(isinstance(told[name], list) for name in ("running", "failed", "workers"))
        and all(isinstance(name, str) for name in told["running"])
        and all(isinstance(one, list) and len(one) == 2 for one in told["failed"])
        and all(
            isinstance(one, dict) and {"host", "processor", "jobs"} <= one.keys() for one in told["workers"]
        )
    )
    if not fits:
        raise FaultsimError(f"{path} is no file that faultsim wrote")
    return told


def _count_rows(path: Path) -> int:
    """Count the rows of a CSV, without its header."""
    try:
        with path.open("rb") as file:
            return max(0, sum(part.count(b"\n") for part in iter(lambda: file.read(1 << 20), b"")) - 1)
    except OSError:
        return 0


def _count_chips(configuration: Mapping[str, Any]) -> int | None:
    """Count the chips of all cases together; None where their number is not fixed."""
    chips = configuration.get("chips")
    if not isinstance(chips, list) or "precision" in configuration:
        return None
    if "parts" in configuration:
        return len(configuration["parts"]) * len(chips)
    variants = 1 + ("generator" in configuration) + len(configuration.get("variants", ()))
    return len(configuration.get("points", ())) * variants * len(chips)


def _is_locked(path: Path) -> bool:
    """Return whether a run holds the directory's lock."""
    try:
        with (path / ".lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except BlockingIOError:
        return True
    except OSError:
        return False
