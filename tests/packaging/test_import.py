"""Importing is light, every public name is there, and a missing kernel says how to build it."""

import inspect
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import faultsim
from faultsim.kernel.installation import _has_gpu_driver

ROOT = Path(faultsim.__file__).resolve().parents[1]
PACKAGES = ("faultsim", "energy", "neuralfuse")


# An editable installation would fill the gaps of any other copy with its own modules.
NO_EDITABLE = (
    "import sys; sys.meta_path[:] = [f for f in sys.meta_path if '__editable__' not in f.__module__]\n"
)


def python(code: str, root: Path = ROOT, **settings) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *filter(None, sys.path)])}
    return subprocess.run(
        [sys.executable, "-c", NO_EDITABLE + code],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
        **settings,
    )


def loaded(code: str) -> set[str]:
    """Modules that a fresh interpreter has after `code` and had not before, the standard library's left out."""
    done = python(f"before = set(sys.modules)\n{code}\nprint(*(set(sys.modules) - before))")
    assert done.returncode == 0, done.stderr
    return {name for name in done.stdout.split() if name.split(".")[0] not in sys.stdlib_module_names}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_alone_loads_nothing_else(package):
    assert loaded(f"import {package}") == {package}


def test_no_public_name_warns():
    """Not even where warnings are errors, as in the tests of many a project."""
    code = f"import {', '.join(PACKAGES)}\nfor p in ({', '.join(PACKAGES)}):\n    [getattr(p, n) for n in p.__all__]"
    done = python(f"import warnings; warnings.simplefilter('error')\n{code}")
    assert (done.returncode, done.stderr) == (0, "")


def test_names_load_only_what_they_need():
    light = loaded("from faultsim import SRAM, Chip, FaultKind, FaultModel, Placement, FaultsimError")
    assert not {"torch", "numpy", "faultsim._native"} & light
    assert "torch" not in loaded("from faultsim import VoltageCurve; VoltageCurve.default()")


def test_the_command_line_loads_what_is_heavy_when_a_command_runs():
    heavy = {"torch", "numpy", "scipy", "sklearn", "matplotlib", "scalesim", "faultsim._native"}
    heavy |= {"onnxruntime", "starlette", "uvicorn", "urllib3"}
    assert not heavy & loaded("import faultsim.cli")


@cache
def ran(*words: str) -> frozenset[str]:
    """Packages that a command has loaded when it ends; asked of each command once."""
    code = f"from faultsim.cli import main\ntry: main({list(words)!r})\nexcept SystemExit as end: assert not end.code"
    with_output = "import io, contextlib\nwith contextlib.redirect_stdout(io.StringIO()):\n"
    return frozenset(loaded(with_output + "".join(f"    {line}\n" for line in code.splitlines())))


NOT_FOR_ALL = {
    "matplotlib",
    "scipy",
    "sklearn",
    "pandas",
    "onnx",
    "onnxruntime",
    "scalesim",
    "starlette",
    "jinja2",
}


def test_help_loads_nothing_that_computes():
    for words in (["--help"], ["sweep-voltage", "--help"], ["bench", "--help"]):
        assert not {"torch", "numpy", "rich", "faultsim._native", *NOT_FOR_ALL} & ran(*words)


@pytest.mark.parametrize(
    "words",
    [
        "info",
        "energy --model ResNet18",
        "chip 7 --voltage 0.9",
        "curve",
        "reproduce --status",
    ],
)
def test_commands_load_what_they_need(words):
    assert not NOT_FOR_ALL & ran(*words.split())


def test_commands_without_models_load_no_torch():
    for words in ("curve", "reproduce --status"):
        assert "torch" not in ran(*words.split())


def test_info_loads_neither_torch_nor_numpy_where_there_is_no_gpu():
    if _has_gpu_driver():
        pytest.skip("torch has to say which GPUs there are")
    assert not {"torch", "numpy"} & ran("info")


def test_energy_does_not_load_the_compiler_of_torch():
    """It takes two seconds. So do SymPy and what else tensors without data would import."""
    for words in ("--model ResNet18", "--model VGG19 --generator UNetL"):
        found = ran("energy", *words.split())
        assert "torch" in found
        assert (
            not {"torch._dynamo", "torch._inductor", "torch.fx.experimental.symbolic_shapes", "sympy"} & found
        )


def test_every_public_name_resolves_and_is_described():
    for name in faultsim.__all__:
        value = getattr(faultsim, name)
        assert name in dir(faultsim)
        if name != "__version__":
            # a dataclass without a docstring has its signature for one
            described = inspect.getdoc(value)
            assert described, name
            assert not described.startswith(f"{name}("), name
    with pytest.raises(AttributeError, match="no attribute 'surely_not_there'"):
        _ = faultsim.surely_not_there


def test_public_methods_are_described():
    missing = []
    for name in faultsim.__all__:
        value = getattr(faultsim, name)
        if not inspect.isclass(value):
            continue
        for attribute, member in vars(value).items():
            if attribute.startswith("_") or not (inspect.isroutine(member) or isinstance(member, property)):
                continue
            if not inspect.getdoc(getattr(member, "fget", member)):
                missing.append(f"{name}.{attribute}")
    obvious = {"Evaluation.accuracies", "Evaluation.mean", "Evaluation.worst", "Evaluation.best"}
    obvious |= {"VoltageCurve.v_high", "VoltageCurve.v_low", "ArrayGeometry.cells", "ArrayGeometry.bytes"}
    assert set(missing) <= obvious


@pytest.fixture(scope="module")
def unbuilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources as they are before anything was compiled."""
    root = tmp_path_factory.mktemp("unbuilt")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, root / package, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    return root


def test_a_missing_kernel_says_how_to_build_it(unbuilt, tmp_path):
    done = python("from faultsim.kernel.native import native; native()", unbuilt, cwd=tmp_path)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: faultsim's compiled kernel cannot be loaded")
    assert "pip install" in last
    done = python(
        "from faultsim.cli import main; main(['sweep-voltage', '--images', '5', '--device', 'cpu'])",
        unbuilt,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("faultsim: error: faultsim's compiled kernel cannot be loaded")
    assert done.stderr.count("\n") == 1


def test_what_needs_no_kernel_works_without_it(unbuilt, tmp_path):
    code = "import faultsim; print(faultsim.VoltageCurve.default().bit_error_rate(0.83))"
    done = python(code, unbuilt, cwd=tmp_path)
    assert (done.stdout.strip(), done.stderr) == ("0.01", "")
