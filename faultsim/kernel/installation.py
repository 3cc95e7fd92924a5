"""What is installed: versions, how the kernel was built, and which devices it can run on."""

import ctypes
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from .. import __version__
from ..io.provenance import find_commit, find_version, name_processor


@dataclass(frozen=True)
class Installation:
    """faultsim on this machine."""

    versions: dict[str, str | None]
    """Versions of faultsim and of what decides the numbers; None for what is not installed."""
    commit: str | None
    """Commit of the checkout; None for an installed copy."""
    vector_paths: tuple[str, ...]
    """Vector paths that this CPU can run, the fastest first, which is the one in use."""
    built_with_cuda: bool
    """Whether the CUDA kernels were built in."""
    devices: dict[str, str]
    """What can be computed on: the names that torch gives devices, and what they are."""

    @classmethod
    def inspect(cls) -> Self:
        """Look at this machine."""
        from .native import native

        extension = native()
        return cls(
            {
                "faultsim": __version__,
                "torch": find_version("torch"),
                "numpy": find_version("numpy"),
                "python": platform.python_version(),
                "scalesim": find_version("scalesim"),
            },
            find_commit(),
            tuple(extension.cpu_paths()),
            extension.built_with_cuda(),
            {"cpu": f"{name_processor()}, {len(os.sched_getaffinity(0))} logical processors", **_list_gpus()},
        )

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "versions": self.versions,
            "commit": self.commit,
            "kernel": {
                "vector_paths": list(self.vector_paths),
                "vector_path_in_use": self.vector_paths[0],
                "built_with_cuda": self.built_with_cuda,
            },
            "devices": self.devices,
        }

    def __str__(self) -> str:
        rows = [(name, version or "not installed") for name, version in self.versions.items()]
        if self.commit:
            rows.append(("commit", self.commit))
        rows.append(("vector paths", f"{', '.join(self.vector_paths)} (in use: {self.vector_paths[0]})"))
        rows.append(("CUDA kernels", "built in" if self.built_with_cuda else "not built in"))
        rows += self.devices.items()
        if len(self.devices) == 1:
            rows.append(("cuda", "torch finds no GPU"))
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:{width}}  {value}" for name, value in rows)


def _list_gpus() -> dict[str, str]:
    """Name the GPUs that torch finds. Without a driver there are none, and torch need not be imported."""
    if not _has_gpu_driver():
        return {}
    import torch

    return {f"cuda:{i}": torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}


def _has_gpu_driver() -> bool:
    """Whether this machine has the driver of NVIDIA, or that of AMD."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return Path("/dev/kfd").exists()
    return True
