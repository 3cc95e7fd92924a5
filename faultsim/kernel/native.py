"""The compiled kernel, loaded on first use."""

from types import ModuleType


def native() -> ModuleType:
    """Return faultsim._native. ImportError, saying how to build it, if it cannot be loaded."""
    try:
        from .. import _native
    except ImportError as error:
        raise ImportError(
            f"faultsim's compiled kernel cannot be loaded ({error}). Build it: run `pip install .` in the source "
            "folder; it needs a C++17 compiler, and uses nvcc where it finds it"
        ) from error
    return _native
