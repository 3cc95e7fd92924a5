"""Which commit a result names."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAMED = "0123456789ab"


@pytest.fixture
def copy(tmp_path):
    """Enough of faultsim to ask it, where git knows nothing of it."""
    package = tmp_path / "faultsim"
    package.mkdir()
    for name in ("__init__.py", "provenance.py"):
        shutil.copy(ROOT / "faultsim" / name, package / name)
    return tmp_path


def said(copy, **environment):
    own = {name: value for name, value in os.environ.items() if name != "FAULTSIM_COMMIT"}
    code = "from faultsim.provenance import commit; print(commit())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=copy,
        env={**own, "GIT_CEILING_DIRECTORIES": str(copy.parent), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_a_copy_that_git_does_not_know_names_the_commit_it_is_told(copy):
    assert said(copy) == "None"
    assert said(copy, FAULTSIM_COMMIT="") == "None"
    assert said(copy, FAULTSIM_COMMIT=NAMED) == NAMED


def test_what_git_knows_is_not_overruled(copy):
    run = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", "-C", str(copy)]
    subprocess.run([*run, "init", "--quiet"], check=True)
    subprocess.run([*run, "add", "faultsim"], check=True)
    subprocess.run([*run, "commit", "--quiet", "-m", "all"], check=True)
    known = subprocess.run(
        [*run, "rev-parse", "--short=12", "HEAD"], check=True, capture_output=True, text=True
    )
    assert said(copy, FAULTSIM_COMMIT=NAMED) == known.stdout.strip()
    (copy / "faultsim/provenance.py").open("a").write("# changed\n")
    assert said(copy, FAULTSIM_COMMIT=NAMED) == f"{known.stdout.strip()}-dirty"
