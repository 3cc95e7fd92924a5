"""Reading data set files out of folders and archives: in memory, expected names only, sizes limited."""

import gzip
import os
import tarfile
import zipfile
from collections.abc import Collection
from pathlib import Path

from ..errors import FaultsimError
from ..io.bounds import read_bytes

# The largest official file is CIFAR-100's pickled training batch, 155 MB.
LARGEST_FILE = 256 << 20
LARGEST_ARCHIVE = 1 << 30  # unpacked; the official ones unpack to at most 320 MB
LARGEST_HEADER = 1 << 16  # of what a tar member says besides its 512 bytes: tarfile takes it into memory

# Every folder and archive that some data set is known by, to name a mix-up.
MARKERS = {
    "cifar-10-batches-py": "cifar10",
    "cifar-10-batches-bin": "cifar10",
    "cifar-10-python.tar.gz": "cifar10",
    "cifar-10-binary.tar.gz": "cifar10",
    "cifar-100-python": "cifar100",
    "cifar-100-binary": "cifar100",
    "cifar-100-python.tar.gz": "cifar100",
    "cifar-100-binary.tar.gz": "cifar100",
    "GTSRB": "gtsrb",
    "gtsrb": "gtsrb",
    "GTSRB_Final_Training_Images.zip": "gtsrb",
    "GTSRB_Final_Test_Images.zip": "gtsrb",
}


def explain_missing(name: str, data_dir: Path, expected: str) -> FaultsimError:
    """Return the error for a `data_dir` that does not hold the dataset `name`."""
    if not data_dir.exists():
        return FaultsimError(f"no such folder: {data_dir}")
    present = [data_dir.name, *sorted(os.listdir(data_dir))] if data_dir.is_dir() else [data_dir.name]
    others = sorted({MARKERS[entry] for entry in present if MARKERS.get(entry, name) != name})
    hint = f" (it looks like {' and '.join(others)})" if others else ""
    return FaultsimError(f"{data_dir} does not hold {name}{hint}; expected in it: {expected}")


def read_file(path: Path | str, limit: int = LARGEST_FILE) -> bytes:
    """Read a whole file; FaultsimError when it is missing, unreadable or larger than `limit` bytes."""
    try:
        return read_bytes(path, limit)
    except FileNotFoundError:
        raise FaultsimError(f"missing file: {path}") from None
    except OSError as error:
        raise FaultsimError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise FaultsimError(f"{path} is no official file: {error}") from None


def read_folder(
    folder: Path, known: Collection[str], wanted: Collection[str]
) -> tuple[dict[str, int], dict[str, bytes]]:
    """Return the size of every `known` file that is there, and the content of every `wanted` one; none may miss."""
    contents = {name: read_file(folder / name) for name in wanted}
    sizes = {name: (folder / name).stat().st_size for name in known if (folder / name).is_file()}
    return sizes, contents


def read_tar(
    archive: Path, prefix: str, known: Collection[str], wanted: Collection[str]
) -> tuple[dict[str, int], dict[str, bytes]]:
    """Read the members `prefix`/name of a .tar.gz file as read_folder() does; nothing is written to disk.

    The archive is read to its end, so that its checksum is verified. Other members are passed over; members that are
    not plain files, double ones and ones over the size limits are refused.
    """
    sizes: dict[str, int] = {}
    contents: dict[str, bytes] = {}
    total = 0
    try:
        with gzip.open(archive) as stream, tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member) as tar:
            for member in tar:
                if member.size < 0 or member.issparse():
                    raise FaultsimError(f"{archive}: member {member.name} is damaged or sparse")
                total += member.size
                folder, _, name = member.name.removeprefix("./").rpartition("/")
                expected = folder == prefix and name in known
                if total > LARGEST_ARCHIVE or (expected and member.size > LARGEST_FILE):
                    raise FaultsimError(f"{archive}: unpacks to far more than the official archive")
                if not expected:
                    continue
                if not member.isreg() or name in sizes:
                    raise FaultsimError(f"{archive}: member {member.name} is double or not a plain file")
                sizes[name] = member.size
                if name in wanted:
                    file = tar.extractfile(member)
                    contents[name] = b"" if file is None else file.read()
            # gzip checks its sum when it comes to the end.
            while total <= LARGEST_ARCHIVE and (rest := stream.read(1 << 20)):
                total += len(rest)
    except FaultsimError:
        raise
    except Exception as error:  # tarfile and gzip may fail in many ways on foreign bytes
        raise FaultsimError(f"{archive} is cut short or not a .tar.gz archive: {error}") from None
    if missing := [name for name in wanted if name not in contents]:
        raise FaultsimError(f"{archive}: missing member {prefix}/{missing[0]}")
    return sizes, contents


class _Member(tarfile.TarInfo):
    """A header of a .tar archive; what extends it has a size that can be held."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Member":
        member = super().frombuf(buf, encoding, errors)
        plain = member.isreg() or member.isdir() or member.issym() or member.islnk()
        if not plain and member.size > LARGEST_HEADER:
            raise tarfile.ReadError(f"a header of {member.size:,} bytes")
        return member


def _shown(name: str) -> bool:
    """Whether neither a file nor a folder on the way to it is hidden: companion files of a Mac are no data."""
    return not any(part.startswith(".") for part in name.split("/"))


class FolderTree:
    """The files below a folder, by their relative path with forward slashes; hidden ones are left out."""

    def __init__(self, root: Path):
        self.root = root
        self.names: set[str] = set()
        for parent, _, names in os.walk(root):
            folder = Path(parent).relative_to(root).as_posix() + "/"
            self.names.update(filter(_shown, (folder.removeprefix("./") + name for name in names)))

    def where(self, name: str) -> str:
        """Return the full name of a file, for messages."""
        return f"{self.root}/{name}"

    def read(self, name: str, limit: int) -> bytes:
        """Read a file; FaultsimError where it is larger than `limit` bytes."""
        return read_file(self.where(name), limit)


class ZipTree:
    """The members of a zip archive below `prefix`, by their path relative to it; hidden ones are left out."""

    def __init__(self, archive: Path, prefix: str = ""):
        self.archive, self.prefix = archive, prefix
        try:
            self._zip = zipfile.ZipFile(archive)
        except Exception as error:  # zipfile may fail in many ways on foreign bytes
            raise FaultsimError(f"{archive} is cut short or not a .zip archive: {error}") from None
        self.names = {
            name.removeprefix(prefix)
            for name in self._zip.namelist()
            if name.startswith(prefix) and not name.endswith("/") and _shown(name.removeprefix(prefix))
        }

    def where(self, name: str) -> str:
        """Return the full name of a member, for messages."""
        return f"{self.archive}: {self.prefix}{name}"

    def read(self, name: str, limit: int) -> bytes:
        """Read a member into memory; FaultsimError where it is larger than `limit` bytes."""
        if name not in self.names:
            raise FaultsimError(f"missing member: {self.where(name)}")
        try:
            entry = self._zip.getinfo(self.prefix + name)
            if entry.file_size > limit:
                raise FaultsimError(f"{self.where(name)} is larger than {limit:,} bytes")
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise FaultsimError(
                    f"{self.where(name)} is compressed in another way than the official archive"
                )
            return self._zip.read(entry)
        except FaultsimError:
            raise
        except Exception as error:  # as above
            raise FaultsimError(f"{self.where(name)} cannot be read: {error}") from None
