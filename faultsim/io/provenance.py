"""Where a result comes from: versions, commit, machine, date."""

import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path

from .. import __version__


def list_versions() -> dict[str, str]:
    """Return the versions of faultsim and of what decides the numbers."""
    import numpy
    import torch

    return {
        "faultsim": __version__,
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
    }


def find_commit() -> str | None:
    """Return the commit of the checkout that this code runs from, with "-dirty" where it was changed.

    For a copy made by `git archive` it is the commit of that; None for an installed copy.
    """
    return _of_checkout() or read_archived_commit()


def read_archived_commit() -> str | None:
    """Return the commit that `git archive` wrote into .git_archival.txt, by .gitattributes."""
    note = Path(__file__).resolve().parents[2] / ".git_archival.txt"
    try:
        found = re.fullmatch(r"node: ([0-9a-f]{12})[0-9a-f]{28}\n", note.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return found and found[1]


def _of_checkout() -> str | None:
    here = Path(__file__).resolve().parent
    try:
        described = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
        tracked = subprocess.run(
            ["git", "-C", str(here), "ls-files", "--error-unmatch", Path(__file__).name],
            capture_output=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() if tracked.returncode == 0 else None


def name_device(device: str = "cpu") -> str:
    """Return what a result is computed on, in words."""
    import torch

    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{name_processor()}, {torch.get_num_threads()} threads"


def name_processor() -> str:
    """Return the processor's name."""
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        return next(
            line.split(":", 1)[1].strip() for line in cpuinfo.splitlines() if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def record_provenance(device: str = "cpu") -> dict:
    """Return versions, commit, device and date (UTC) of this run."""
    return {
        "versions": list_versions(),
        "commit": find_commit(),
        "device": name_device(device),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def find_version(package: str) -> str | None:
    """Return the version of an installed package, None where it is missing.

    The package is imported only where pip has no record of it.
    """
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        if find_spec(package) is None:
            return None
        return getattr(import_module(package), "__version__", None)
