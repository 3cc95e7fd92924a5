"""Files that are either whole or not there."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..errors import FaultsimError


def write_atomically(path: str | os.PathLike[str], write: Callable[[Path], object]) -> None:
    """Call write(temporary path) and move the result to `path` in one step, flushed to disk first.

    Whoever looks at `path`, at any instant, sees the old content or the new. FaultsimError when it cannot be written.
    """
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


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 text with LF line ends, atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8", newline="\n"))


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write bytes, atomically."""
    write_atomically(path, lambda temporary: temporary.write_bytes(data))


def keep_apart(
    written: Mapping[str, Path], read: Mapping[str, str | Path | Sequence[str | Path] | None]
) -> None:
    """Raise FaultsimError where a file to be written is also read or written otherwise, by whatever path or link.

    The keys are the options that name the files.
    """
    known: list[tuple[str, Path]] = []
    for option, paths in read.items():
        several = [paths] if isinstance(paths, str | Path) else paths or ()
        known += [(option, Path(path)) for path in several]
    for option, path in written.items():
        for other, taken in known:
            if _same(path, taken):
                raise FaultsimError(
                    f"{option} {path} is the same file as {other} {taken}, which would be lost: choose another name"
                )
        known.append((option, path))


def check_writable(path: Path) -> None:
    """Raise FaultsimError where a file surely can't be written, before the work for it is done."""
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        why = "it is a folder" if path.is_dir() else f"{folder} is not a folder that can be written to"
        raise FaultsimError(f"cannot write {path}: {why}")


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # one of them isn't there yet
        return os.path.realpath(one) == os.path.realpath(other)
