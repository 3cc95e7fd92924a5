"""The energy package stands on its own: light to import, and without the packages above it."""

import subprocess
import sys
from importlib import import_module
from pkgutil import iter_modules

import pytest

import energy

HEAVY = ("torch", "numpy", "scipy", "scalesim", "faultsim", "neuralfuse")


def loaded(code: str) -> set[str]:
    """The packages of HEAVY that a fresh interpreter has loaded after `code`."""
    script = f"{code}\nimport sys\nprint(*[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_import_is_light() -> None:
    assert loaded("import energy") == set()


def test_the_closed_form_needs_nothing() -> None:
    assert loaded("from energy import Layer, count; count([Layer('fc', 1, 1, 1, 1, 512, 10)])") == set()


def test_nothing_above_is_imported() -> None:
    everything = "\n".join(f"import energy.{module.name}" for module in iter_modules(energy.__path__))
    assert loaded(everything) <= {"torch", "numpy", "scipy"}  # SCALE-Sim only when its engine runs


def test_every_public_name_is_there() -> None:
    for name in energy.__all__:
        assert getattr(energy, name) is not None
        assert name in dir(energy)
    assert not hasattr(energy, "surely_not_there")
    with pytest.raises(ImportError):
        import_module("energy.surely_not_there")
