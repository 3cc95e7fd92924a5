"""Files that are either whole or not there."""

import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from .errors import FaultsimError


def write_atomically(path: str | Path, write: Callable[[Path], object]) -> None:
    """Calls write(temporary path) and moves the result to `path` in one step, flushed to disk first: whoever looks at
    `path`, at any instant, sees the old content or the new. FaultsimError when the disk won't have it."""
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes files that only their owner can read
        temporary.replace(path)
    except FileExistsError:
        raise FaultsimError(f"cannot write {path}: {path.parent} is not a folder") from None
    except OSError as error:
        raise FaultsimError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """UTF-8 text with "\\n" line ends, atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8", newline="\n"))


def write_bytes(path: str | Path, data: bytes) -> None:
    """Bytes, atomically."""
    write_atomically(path, lambda temporary: temporary.write_bytes(data))
