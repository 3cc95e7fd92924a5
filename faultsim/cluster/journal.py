"""What workers have computed, line by line as it arrives, beside the results in order: DIR/jobs.jsonl.

A line is a JSON object: of a worker (address, host, processor), of a job that is done (case, chips, numbers, worker,
seconds), or of one that failed. A run that was stopped takes the jobs that are done from here; a line that was cut off
does not count.
"""

import json
from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from ..errors import FaultsimError
from ..io.bounds import parse_json, read_text

FILE = "jobs.jsonl"
MOST_BYTES = 1 << 30


class Journal:
    """The file of a run directory, open to add lines."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: TextIOWrapper | None = None

    def read(self) -> Iterator[dict[str, Any]]:
        """Yield the lines that are whole."""
        if not self.path.exists():
            return
        for line in read_text(self.path, MOST_BYTES).splitlines():
            try:
                found = parse_json(line)
            except ValueError:
                continue
            if isinstance(found, dict):
                yield found

    def add(self, entry: dict[str, Any]) -> None:
        """Add a line."""
        try:
            if self._file is None:
                self._file = self.path.open("a", encoding="utf-8", newline="\n")
                if self._file.tell():
                    self._file.write("\n")  # ends a line that was cut off
            self._file.write(json.dumps(entry, allow_nan=False) + "\n")
            self._file.flush()
        except OSError as error:
            raise FaultsimError(f"cannot write {self.path}: {error.strerror or error}") from error

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
