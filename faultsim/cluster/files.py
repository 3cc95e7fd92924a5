"""Files that jobs need, named by their SHA-256: a worker takes one from a path that it sees, or from the scheduler.

What came from the scheduler lies in a folder that a machine's workers share, so that it moves once to each machine.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import FaultsimError
from ..io.files import write_bytes

if TYPE_CHECKING:
    from distributed import Client, Worker

_METADATA = "faultsim-files"  # where the scheduler keeps bytes
_SECONDS = 600  # to fetch a file


class MissingFile(Exception):
    """A file that this worker finds nowhere."""

    def __init__(self, checksum: str) -> None:
        super().__init__(checksum)
        self.checksum = checksum


class JobFiles:
    """The coordinator's side: a folder that workers may see, and what the scheduler was given of it.

    Use it with a `with` statement, which removes both at the end.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._sent: set[str] = set()
        self._client: Client | None = None

    @property
    def where(self) -> str:
        """The folder as workers are told."""
        return str(self.folder)

    def add(self, data: bytes) -> str:
        """Add a file and return its checksum."""
        checksum = hashlib.sha256(data).hexdigest()
        path = self.folder / checksum
        if not path.exists():
            write_bytes(path, data)
        return checksum

    def send(self, checksum: str, client: "Client") -> int:
        """Give a file to the scheduler, once, and return how many bytes that took."""
        if checksum in self._sent:
            return 0
        data = (self.folder / checksum).read_bytes()
        client.set_metadata([_METADATA, checksum], data)
        self._client = client
        self._sent.add(checksum)
        return len(data)

    def __enter__(self) -> "JobFiles":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        if kind is None and self._client is not None and self._client.status == "running":
            for checksum in self._sent:
                self._client.set_metadata([_METADATA, checksum], None)


def find_file(checksum: str, folder: str) -> Path:
    """Return the path of a file on this worker.

    Parameters
    ----------
    checksum
        Its SHA-256 (hex).
    folder
        The coordinator's folder, which this worker may see.

    Raises
    ------
    MissingFile
        Where neither the folder nor the scheduler has it.
    """
    from distributed import get_worker

    seen = Path(folder) / checksum
    if _holds(seen, checksum):
        return seen
    worker, shared = get_worker(), find_shared_folder()
    with (shared / ".lock").open("a") as lock:  # one worker of the machine fetches
        fcntl.flock(lock, fcntl.LOCK_EX)
        _remove_unused(shared, checksum)
        path = shared / checksum
        if not _holds(path, checksum):
            data = _ask_scheduler(worker, checksum)
            if data is None:
                raise MissingFile(checksum)
            if hashlib.sha256(data).hexdigest() != checksum:
                raise FaultsimError(f"the scheduler gave another file than {checksum[:12]}")
            write_bytes(path, data)
        _hold(worker, path)
    return path


def find_shared_folder() -> Path:
    """Return the folder that the workers of this machine share; it is created."""
    from distributed import get_worker

    # Dask makes the folder above a place of modules: "faultsim" there would hide an editable installation
    shared = Path(get_worker().local_directory).parent / "faultsim-files"
    shared.mkdir(parents=True, exist_ok=True)
    return shared


def _ask_scheduler(worker: "Worker", checksum: str) -> bytes | None:
    """Return the bytes of a file; None where the scheduler has none."""
    import asyncio

    asked = worker.scheduler.get_metadata(keys=[_METADATA, checksum], default=None)
    data: bytes | None = asyncio.run_coroutine_threadsafe(asked, worker.loop.asyncio_loop).result(_SECONDS)
    return data


def _holds(path: Path, checksum: str) -> bool:
    """Return whether a file is there, whole."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == checksum
    except OSError:
        return False


def _hold(worker: Any, path: Path) -> None:
    """Keep a file open as long as the worker lives, locked for sharing: nobody removes it."""
    held = worker.__dict__.setdefault("faultsim_files", {})
    if path not in held:
        held[path] = path.open("rb")
        fcntl.flock(held[path], fcntl.LOCK_SH)


def _remove_unused(folder: Path, wanted: str) -> None:
    """Remove the files of earlier studies that no worker of this machine holds any more."""
    for path in folder.iterdir():
        if path.name in (".lock", wanted) or path.is_dir():
            continue
        with contextlib.suppress(OSError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(path)
