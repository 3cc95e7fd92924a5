"""Which commit a result names."""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = (".gitattributes", ".git_archival.txt", "faultsim/__init__.py", "faultsim/io/provenance.py")


@pytest.fixture
def checkout(tmp_path):
    """Enough of faultsim to ask it, committed."""
    path = tmp_path / "checkout"
    for name in FILES:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, path / name)
    git(path, "init", "--quiet")
    git(path, "add", ".")
    git(path, "commit", "--quiet", "-m", "all")
    return path


def git(path, *words):
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", "-C", str(path), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def said(path):
    code = "from faultsim.io.provenance import find_commit; print(find_commit())"
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(path.parent)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=path, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_a_checkout_names_its_commit_and_whether_it_was_changed(checkout):
    known = git(checkout, "rev-parse", "--short=12", "HEAD")
    assert said(checkout) == known
    with (checkout / "faultsim/io/provenance.py").open("a") as file:
        file.write("# changed\n")
    assert said(checkout) == f"{known}-dirty"


def test_an_archive_names_the_commit_it_was_made_from(checkout, tmp_path):
    git(checkout, "archive", "--output", str(tmp_path / "all.tar"), "HEAD")
    with tarfile.open(tmp_path / "all.tar") as archive:
        archive.extractall(tmp_path / "copy", filter="data")
    assert said(tmp_path / "copy") == git(checkout, "rev-parse", "--short=12", "HEAD")


@pytest.mark.parametrize(
    "note", [None, "", "node: $Format:%H$\n", "node: 0123\n", "node: " + "g" * 40 + "\n"]
)
def test_a_copy_that_knows_nothing_names_none(checkout, note):
    shutil.rmtree(checkout / ".git")
    file = checkout / ".git_archival.txt"
    if note is None:
        file.unlink()
    else:
        file.write_text(note)
    assert said(checkout) == "None"
