"""Arrows go down only: what each package may import, read from the sources."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("faultsim", "energy", "neuralfuse")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
IDS = [str(path.relative_to(ROOT)) for path in FILES]
each_file = pytest.mark.parametrize("path", FILES, ids=IDS)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, anywhere in it, by its full name; `from a import b` gives a and a.b."""
    name = module_name(path)
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                source = ".".join([*above, *filter(None, [node.module])])
            yield source
            yield from (f"{source}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func):
            yield from (
                a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)
            )


def tops(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


def inside(path: Path, *folders: str) -> bool:
    return any(path.is_relative_to(ROOT / folder) for folder in folders)


def test_the_reader_of_imports_sees_every_form(tmp_path, monkeypatch):
    folder = tmp_path / "faultsim" / "cli"
    folder.mkdir(parents=True)
    file = folder / "made.py"
    file.write_text(
        "import energy.trace as t\nfrom .. import plots\nfrom ..data import load\nfrom . import options\n"
        "def f():\n    from neuralfuse.eopm import x\n    importlib.import_module('scalesim.a')\n"
    )
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    assert set(imports(file)) >= {
        "energy.trace", "faultsim.plots", "faultsim.data", "faultsim.data.load", "faultsim.cli.options",
        "neuralfuse.eopm", "scalesim.a",
    }  # fmt: skip


@each_file
def test_arrows_go_down(path):
    if inside(path, "energy"):
        assert not {"faultsim", "neuralfuse"} & tops(path)
    elif inside(path, "faultsim") and not inside(path, "faultsim/cli"):
        assert "neuralfuse" not in tops(path)
        # energy is the floor below: its errors, its names as faultsim.energy, the energy of what is measured
        assert "energy" not in tops(path) or path.name in (
            "energy.py",
            "errors.py",
            "subject.py",
            "sweep_result.py",
        )


@each_file
def test_nothing_imports_the_command_line(path):
    if inside(path, "faultsim/cli") or path == ROOT / "faultsim" / "__main__.py":
        return
    assert not [name for name in imports(path) if f"{name}.".startswith("faultsim.cli.")]


def test_scalesim_has_one_importer():
    assert [path for path in FILES if "scalesim" in tops(path)] == [ROOT / "energy" / "scalesim.py"]


def test_the_kernel_has_one_importer():
    importers = [path for path in FILES if "faultsim._native" in set(imports(path))]
    assert importers == [ROOT / "faultsim" / "native.py"]


@each_file
def test_no_switches_in_the_environment(path):
    names = {"environ", "environb", "getenv", "putenv"}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            assert node.attr not in names, f"line {node.lineno}"
        elif isinstance(node, ast.ImportFrom) and node.module == "os":
            assert not names & {alias.name for alias in node.names}, f"line {node.lineno}"


@each_file
def test_checks_of_input_are_no_asserts_and_pickles_are_not_read(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        assert not isinstance(node, ast.Assert), f"line {node.lineno}: asserts vanish under python -O"
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"pickle.load", "pickle.loads", "torch.load", "eval", "exec"}, (
                f"line {node.lineno}"
            )


@pytest.mark.parametrize("path", sorted((ROOT / "csrc").iterdir()), ids=lambda path: path.name)
def test_the_kernel_knows_no_framework(path):
    included = re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)', path.read_text(encoding="utf-8"), re.MULTILINE)
    assert not [name for name in included if re.match(r"(torch|ATen|c10|caffe2)/", name)]
    if path.stem not in ("bindings",):
        assert not [name for name in included if name.startswith(("pybind11", "Python"))]


def test_the_random_numbers_stand_on_nothing():
    text = (ROOT / "csrc" / "philox.h").read_text(encoding="utf-8")
    assert set(re.findall(r'#\s*include\s*[<"]([^>"]+)', text)) <= {"cstdint", "stdint.h"}


@each_file
def test_files_are_of_a_size_to_be_read(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 450
