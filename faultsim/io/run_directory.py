"""The directory of a run: its configuration, its rows, one owner at a time.

A run that is killed at any instant leaves whole files behind: rows are added a group at a time, by replacing the file.
A directory of another configuration is refused, never mixed or overwritten.
"""

import contextlib
import csv
import io
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..errors import FaultsimError
from .bounds import parse_json, read_text
from .files import write_text
from .run_status import StatusFile

MOST_JSON = 64 << 20  # bytes of NAME.json: a million chips are 8 MB
MOST_ROWS = 1 << 30  # bytes of results.csv
LOCK_SECONDS = 0.1  # `read_status` may hold the lock for an instant


def format_cell(value: object) -> str:
    """Return a value as it stands in a CSV: floats in their shortest exact form, nothing for None and NaN."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return repr(value) if isinstance(value, float) else str(value)


def format_csv(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> str:
    """Return header and rows as CSV, with LF line ends."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([format_cell(row[name]) for name in columns] for row in rows)
    return buffer.getvalue()


def find_used_columns(
    columns: Sequence[str], optional: Sequence[str], rows: Iterable[Mapping[str, object]]
) -> tuple[str, ...]:
    """Return the columns, and the optional ones if one of the rows has something there that isn't 0."""
    said = any(str(row[name]) not in ("", "0") for row in rows for name in optional)
    return (*columns, *optional) if said else tuple(columns)


def without_nan(value: Any) -> Any:
    """Return the same JSON value with None for numbers that JSON cannot say."""
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def find_difference(ours: object, theirs: object, at: str = "") -> tuple[str, object, object] | None:
    """Return (path, ours, theirs) of the first place where two JSON values differ."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in {**ours, **theirs}:  # the first that differs, in the order in which they were written down
            found = find_difference(ours.get(key), theirs.get(key), f"{at}.{key}" if at else key)
            if found:
                return found
        return None
    return None if ours == theirs else (at, ours, theirs)


class RunDirectory:
    """A directory that holds one run, locked while in use (with a `with` statement).

    NAME.json        {"configuration": ..., **information}; the configuration is what must be equal to go on
    results.csv      the rows so far; the columns of `optional` only once a row has something there that isn't 0; behind
                     them those of `constants`, whose values all rows share

    A results.csv of an older version, without the constants, is continued: the next rows bring them.

    Raises FaultsimError when the directory cannot be written, is in use by another run, holds a run of another
    configuration, or files that are none of this program's.
    """

    def __init__(
        self,
        path: str | Path,
        name: str,
        configuration: dict,
        columns: Sequence[str],
        optional: Sequence[str] = (),
        constants: Mapping[str, str] | None = None,
    ) -> None:
        self.path = Path(path)
        self.name = name
        # through JSON and back: what is compared later is what the file can say
        self.configuration = json.loads(json.dumps(without_nan(configuration), allow_nan=False))
        self.columns, self.optional = tuple(columns), tuple(optional)
        self.constants = dict(constants or {})
        self.rows: list[dict[str, str]] = []
        self.status = StatusFile(self.path)
        self._own: int | None = None  # the directory, held open
        self._begun = False  # whether its configuration was written

    def __enter__(self) -> Self:
        from filelock import FileLock, Timeout

        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self.path / ".lock")
            self._lock.acquire(timeout=LOCK_SECONDS, poll_interval=0.02)
        except Timeout:
            raise FaultsimError(
                f"{self.path} is in use by another run: wait for it or choose another directory"
            ) from None
        except FileExistsError:
            raise FaultsimError(
                f"{self.path} is a file: choose a directory, or a name that doesn't exist yet"
            ) from None
        except (OSError, NotImplementedError) as error:
            what = getattr(error, "strerror", None) or error
            raise FaultsimError(
                f"cannot write to {self.path}: {what}; choose another directory with --out"
            ) from None
        try:
            self._own = os.open(self.path, os.O_RDONLY)  # while it is open, no other folder has its number
            self._begun = self.information.exists()
            self._clear()
            self._take_up()
        except OSError as error:
            self._release()
            raise FaultsimError(f"{self.path} cannot be read: {error.strerror or error}") from None
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if error is None:
                self.check()
                self.status.remove()
            else:
                with contextlib.suppress(FaultsimError):  # the error counts, not what cannot be said of it
                    self.status.write()
        finally:
            self._release()

    def _release(self) -> None:
        self._lock.release()
        if self._own is not None:
            os.close(self._own)
            self._own = None

    def check(self) -> None:
        """Raise FaultsimError when the directory, or the configuration in it, was removed since the run began.

        What is written afterwards would belong to nothing.
        """
        try:
            there = self._own is not None and os.path.samestat(os.stat(self.path), os.fstat(self._own))
        except OSError:
            there = False
        if not there or (self._begun and not self.information.exists()):
            lost = self.information if there else self.path
            raise FaultsimError(
                f"{lost} was removed or replaced while the run went on, and the run has ended: start it again, or "
                "choose another directory"
            )

    @property
    def information(self) -> Path:
        """The file with the configuration and what else is known of the run."""
        return self.path / f"{self.name}.json"

    @property
    def results(self) -> Path:
        """The file with the results."""
        return self.path / "results.csv"

    def _clear(self) -> None:
        """Remove what a run that was killed in the middle of writing left behind."""
        for name in (self.name, "results", "summary", "status"):
            for left in self.path.glob(f".{name}-*"):
                with contextlib.suppress(OSError):
                    left.unlink()

    def _take_up(self) -> None:
        if not self.information.exists():
            if self.results.exists():
                raise FaultsimError(
                    f"{self.path} holds a results.csv of something else: choose another directory"
                )
            return
        try:
            found = parse_json(read_text(self.information, MOST_JSON), MOST_JSON)["configuration"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FaultsimError(
                f"{self.information} cannot be read ({error}): choose another directory"
            ) from None
        difference = find_difference(self.configuration, found)
        if difference:
            at, ours, theirs = (str(x) if len(str(x)) <= 60 else f"{str(x)[:57]}..." for x in difference)
            raise FaultsimError(
                f"{self.path} holds a run of another configuration ({at} is {theirs} there, {ours} here): "
                "choose another directory, or the same options to go on"
            )
        if not self.results.exists():
            return
        try:
            reader = csv.DictReader(io.StringIO(read_text(self.results, MOST_ROWS), ""), strict=True)
            columns, rows = tuple(reader.fieldnames or ()), list(reader)
        except (OSError, ValueError, csv.Error) as error:
            raise FaultsimError(
                f"{self.results} cannot be read ({error}): choose another directory"
            ) from None
        more, shared = columns[len(self.columns) :], tuple(self.constants)
        if (
            columns[: len(self.columns)] != self.columns
            or more not in ((), self.optional, shared, (*self.optional, *shared))
            or any(None in row or None in row.values() for row in rows)
            or any(row.get(name, value) != value for row in rows for name, value in self.constants.items())
        ):
            raise FaultsimError(
                f"{self.results} was changed by hand or another version: choose another directory"
            )
        kept = (*self.columns, *self.optional)
        self.rows = [{name: row.get(name, "0") for name in kept} for row in rows]

    def begin(self, information: dict) -> None:
        """Write the configuration and whatever else is known of the run, unless it is there already."""
        self.check()
        if not self.information.exists():
            self.write_information(information)

    def write_information(self, information: dict) -> None:
        """Write the configuration, and further facts in place of earlier ones."""
        record = {"configuration": self.configuration, **without_nan(information)}
        write_text(self.information, json.dumps(record, indent=2, allow_nan=False) + "\n")
        self._begun = True

    def add(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Add rows and write the file: all of them are there afterwards, or none."""
        self.check()
        names = (*self.columns, *self.optional)
        added = [{name: format_cell(row[name]) for name in names} for row in rows]
        every = [row | self.constants for row in [*self.rows, *added]]
        columns = (*find_used_columns(self.columns, self.optional, every), *self.constants)
        write_text(self.results, format_csv(columns, every))
        self.rows += added
        self.status.rows_added(len(self.rows))
