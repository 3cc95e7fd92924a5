"""What `import faultsim` and `import energy` offer: one list for Python, for type checkers and as faultsim.energy."""

import ast
import importlib
import pickle
from pathlib import Path

import pytest

import energy
import faultsim
import faultsim.energy

PACKAGES = ("faultsim", "energy", "neuralfuse")


def names_for_type_checkers(package: str) -> dict[str, str]:
    """Public name -> module, from the `if TYPE_CHECKING:` block of a package."""
    tree = ast.parse(Path(importlib.import_module(package).__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    assert all(alias.asname == alias.name for node in imports for alias in node.names)  # a re-export
    return {alias.name: node.module or "" for node in imports for alias in node.names}


@pytest.mark.parametrize("package", ["faultsim", "energy"])
def test_type_checkers_see_the_names_that_python_loads(package):
    module = importlib.import_module(package)
    modules = {name: home for name, home in names_for_type_checkers(package).items() if home}
    assert modules == module._HOME
    assert {*module.__all__} - {"__version__"} == set(names_for_type_checkers(package))


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_say_that_they_are_typed(package):
    assert Path(importlib.import_module(package).__file__).with_name("py.typed").is_file()


def test_faultsim_energy_is_the_package_energy():
    assert faultsim.energy.__all__ == energy.__all__
    assert set(names_for_type_checkers("faultsim.energy")) == set(energy.__all__)
    for name in energy.__all__:
        assert getattr(faultsim.energy, name) is getattr(energy, name)
        assert name in dir(faultsim.energy)
    with pytest.raises(AttributeError, match="no attribute 'surely_not_there'"):
        _ = faultsim.energy.surely_not_there


def test_one_class_catches_the_errors_of_all_packages():
    with pytest.raises(faultsim.FaultsimError, match="unknown dataflow"):
        energy.Accelerator(dataflow="sideways")
    with pytest.raises(faultsim.FaultsimError, match="chip seed"):
        faultsim.Chip(-1)
    assert issubclass(faultsim.FaultsimError, ValueError)
    assert repr(faultsim.FaultsimError) == "<class 'faultsim.FaultsimError'>"  # as tracebacks show it


@pytest.mark.parametrize("kind", [faultsim.FaultsimError, energy.EnergyError])
def test_errors_survive_pickling(kind):  # multiprocessing sends them home
    error = pickle.loads(pickle.dumps(kind("one line")))
    assert (type(error), str(error)) == (kind, "one line")
