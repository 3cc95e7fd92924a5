"""Files are whole or not there, whatever happens while they are written."""

import resource
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from faultsim.errors import FaultsimError
from faultsim.io.files import write_atomically, write_bytes, write_text


def test_new_and_replaced_content(tmp_path):
    path = tmp_path / "new" / "folder" / "a.txt"
    write_text(path, "erst\n")
    write_text(path, "größer\n")
    assert path.read_bytes() == "größer\n".encode()
    write_bytes(path, b"\r\n\x00")
    assert path.read_bytes() == b"\r\n\x00"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_others_may_read_it_as_the_umask_says(tmp_path):
    path = tmp_path / "a.txt"
    subprocess.run(
        [
            sys.executable,
            "-c",
            f"import os; os.umask(0o027)\nfrom faultsim.io.files import write_text\nwrite_text({str(path)!r}, 'x')",
        ],
        check=True,
    )
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_until_the_last_moment_readers_see_the_old_content(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("old")
    seen = []

    def write(temporary: Path) -> None:
        assert (temporary.parent, temporary.suffix) == (path.parent, ".csv")  # same disk, same format
        temporary.write_text("new")
        seen.append(path.read_text())

    write_atomically(path, write)
    assert (seen, path.read_text()) == (["old"], "new")


def test_a_killed_writer_leaves_the_old_content(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    script = (
        "import os, signal\nfrom faultsim.io.files import write_atomically\n"
        "def write(temporary):\n"
        "    temporary.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        f"write_atomically({str(path)!r}, write)\n"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    write_text(path, "new")  # what the dead one left is in nobody's way
    assert path.read_text() == "new"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_writer_that_fails_leaves_nothing_behind(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write(temporary: Path) -> None:
        temporary.write_text("half")
        raise error

    with pytest.raises(error):
        write_atomically(path, write)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.txt", "old")]


def test_a_full_disk_is_said_and_leaves_the_old_content(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(FaultsimError, match=r"cannot write .*a\.txt: No space left on device"):
        write_atomically(path, lambda temporary: Path("/dev/full").write_bytes(b"x"))
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.txt", "old")]


def test_a_disk_that_fills_half_way(tmp_path):
    path = tmp_path / "a.bin"
    path.write_text("old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(FaultsimError, match=r"cannot write .*a\.bin: File too large"):
            write_bytes(path, bytes(1_000_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.bin", "old")]


def test_folders_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "a.txt", Path("/proc/a.txt"), Path("/proc/none/a.txt")):
        with pytest.raises(FaultsimError, match=f"cannot write {path}: "):
            write_text(path, "x")


def test_a_folder_is_not_overwritten(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(FaultsimError, match="cannot write"):
        write_text(tmp_path / "a", "x")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
