"""Arrows go down only, and in no circle: what each file may import and hold, read from the sources. One test a rule;
it lists all that break it."""

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("faultsim", "energy", "neuralfuse")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
PROGRAMS = sorted(
    path for folder in ("docs", "tools", "benchmarks") for path in (ROOT / folder).rglob("*.py")
)
TESTS = sorted((ROOT / "tests").rglob("*.py"))
KERNEL = sorted(path for path in (ROOT / "csrc").rglob("*") if path.is_file())


def short(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def run_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under `if TYPE_CHECKING`, which no program runs."""
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(node, ast.If) and child in node.body and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield from run_nodes(child)


def imports(path: Path, root: Path = ROOT, *, typed: bool = True) -> Iterator[tuple[str, str]]:
    """Every (module, name) that a file imports, anywhere in it; the name is "" for a whole module.

    Parameters
    ----------
    typed : bool
        Imports for type checkers count too.
    """
    name = module_name(path, root)
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    tree = tree_of(path)
    for node in ast.walk(tree) if typed else run_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                source = ".".join([*above, *filter(None, [node.module])])
            yield from ((source, alias.name) for alias in node.names)
        elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func):
            for argument in node.args:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    yield argument.value, ""


def imported(path: Path) -> set[str]:
    """The full names of what a file imports: `from a import b` gives a and a.b."""
    return {
        full for source, name in imports(path) for full in (source, f"{source}.{name}" if name else source)
    }


def tops(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)}


def inside(path: Path, *folders: str) -> bool:
    return any(path.is_relative_to(ROOT / folder) for folder in folders)


def imported_files(path: Path, modules: dict[str, Path], root: Path = ROOT) -> set[Path]:
    """The files that a file imports, now or later. `from a import b` imports b where b is a file, else a."""
    names = (
        f"{source}.{name}" if f"{source}.{name}" in modules else source
        for source, name in imports(path, root, typed=False)
    )
    return {modules[name] for name in names if name in modules} - {path}


def circles(arrows: dict[Path, set[Path]]) -> list[list[Path]]:
    """Groups of files of which each imports, by way of others, each other: Tarjan's strongly connected components."""
    index: dict[Path, int] = {}
    low: dict[Path, int] = {}
    stack: list[Path] = []
    found = []

    def visit(file: Path) -> None:
        index[file] = low[file] = len(index)
        stack.append(file)
        for other in sorted(arrows[file]):
            if other not in index:
                visit(other)
                low[file] = min(low[file], low[other])
            elif other in stack:
                low[file] = min(low[file], index[other])
        if low[file] == index[file]:
            component = stack[stack.index(file) :]
            del stack[stack.index(file) :]
            if len(component) > 1:
                found.append(component)

    for file in sorted(arrows):
        if file not in index:
            visit(file)
    return found


def graph(files: Iterable[Path], root: Path = ROOT) -> dict[Path, set[Path]]:
    modules = {module_name(path, root): path for path in files}
    return {path: imported_files(path, modules, root) for path in modules.values()}


@pytest.fixture
def made(tmp_path: Path) -> dict[str, Path]:
    """Files of a package that import in every form."""
    sources = {
        "faultsim/__init__.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .plots import x\n",
        "faultsim/plots.py": "from . import cells\n",
        "faultsim/cells.py": "def f():\n    from .data import load\n",
        "faultsim/data/__init__.py": "from ..plots import draw\n",
        "faultsim/cli/made.py": (
            "import energy.trace as t\nfrom .. import plots\nfrom ..data import load\nfrom . import options\n"
            "def f():\n    from neuralfuse.eopm import x\n    importlib.import_module('scalesim.a')\n"
        ),
    }
    for name, text in sources.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return {name: tmp_path / name for name in sources}


def test_the_reader_of_imports_sees_every_form(made: dict[str, Path], tmp_path: Path):
    assert set(imports(made["faultsim/cli/made.py"], tmp_path)) == {
        ("energy.trace", ""), ("faultsim", "plots"), ("faultsim.data", "load"), ("faultsim.cli", "options"),
        ("neuralfuse.eopm", "x"), ("scalesim.a", ""),
    }  # fmt: skip
    package = made["faultsim/__init__.py"]
    assert ("faultsim.plots", "x") in set(imports(package, tmp_path))
    assert set(imports(package, tmp_path, typed=False)) == {("typing", "TYPE_CHECKING")}


def test_circles_are_found_through_imports_inside_functions(made: dict[str, Path], tmp_path: Path):
    (found,) = circles(graph(made.values(), tmp_path))
    assert {str(path.relative_to(tmp_path)) for path in found} == {
        "faultsim/plots.py", "faultsim/cells.py", "faultsim/data/__init__.py",
    }  # fmt: skip


def test_arrows_go_down():
    wrong = {}
    for path in FILES:
        if inside(path, "energy"):
            wrong[short(path)] = {"faultsim", "neuralfuse"} & tops(path)
        elif inside(path, "faultsim") and not inside(path, "faultsim/cli"):
            wrong[short(path)] = {"energy", "neuralfuse"} & tops(path)
    # energy is the floor below: its errors, its names as faultsim.energy, the energy of what is measured
    for name in ("energy.py", "errors.py", "studies/subject.py", "studies/sweep_result.py"):
        wrong.get(f"faultsim/{name}", set()).discard("energy")
    assert not {path: names for path, names in wrong.items() if names}


def test_no_file_imports_itself_by_way_of_others():
    found = [{short(path) for path in circle} for circle in circles(graph(FILES))]
    assert not found


def test_nothing_imports_the_command_line():
    """Nothing but itself, the tests and the page that lists its help: what a command can do, Python can do too."""
    outside = [path for path in FILES if not inside(path, "faultsim/cli", "faultsim/__main__.py")]
    wrong = {
        short(path): [name for name in imported(path) if f"{name}.".startswith("faultsim.cli.")]
        for path in {*outside, *PROGRAMS} - {ROOT / "tools/site.py"}
    }
    assert not {path: names for path, names in wrong.items() if names}


@pytest.mark.parametrize(
    ("module", "importer"),
    [("scalesim", "energy/scalesim.py"), ("faultsim._native", "faultsim/kernel/native.py")],
)
def test_one_file_imports(module: str, importer: str):
    found = [
        short(path) for path in FILES if any(f"{name}.".startswith(f"{module}.") for name in imported(path))
    ]
    assert found == [importer]


def test_no_switches_in_the_environment():
    names = {"environ", "environb", "getenv", "putenv"}
    wrong = [
        f"{short(path)}:{node.lineno}"
        for path in FILES
        for node in ast.walk(tree_of(path))
        if (isinstance(node, ast.Attribute) and node.attr in names)
        or (
            isinstance(node, ast.ImportFrom)
            and node.module == "os"
            and names & {alias.name for alias in node.names}
        )
    ]
    assert not wrong


def test_input_is_not_checked_by_asserts():
    """They vanish under python -O."""
    wrong = [
        f"{short(path)}:{node.lineno}"
        for path in FILES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Assert)
    ]
    assert not wrong


def test_nothing_of_a_file_is_run():
    refused = {"pickle.load", "pickle.loads", "torch.load", "eval", "exec"}
    wrong = [
        f"{short(path)}:{node.lineno}"
        for path in FILES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in refused
    ]
    assert not wrong


def test_the_library_prints_nothing():
    """It warns, logs or calls back; commands print."""
    wrong = [
        f"{short(path)}:{node.lineno}"
        for path in FILES
        if not inside(path, "faultsim/cli") and path.parts[-2:] != ("bundled", "train.py")  # programs
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in {"print", "sys.stdout.write", "sys.stderr.write"}
    ]
    assert not wrong


def included(path: Path) -> list[str]:
    return re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)', path.read_text(encoding="utf-8"), re.MULTILINE)


def test_the_kernel_knows_no_framework():
    wrong = {}
    for path in KERNEL:
        refused = ("torch/", "ATen/", "c10/", "caffe2/")
        if not path.stem.startswith("bindings"):
            refused += ("pybind11", "Python")
        wrong[short(path)] = [name for name in included(path) if name.startswith(refused)]
    assert not {path: names for path, names in wrong.items() if names}


def test_the_random_numbers_stand_on_nothing():
    assert set(included(ROOT / "csrc" / "philox.h")) <= {"cstdint", "stdint.h"}


def test_files_are_of_a_size_to_be_read():
    sizes = {
        short(path): (len(path.read_text(encoding="utf-8").splitlines()), most)
        for paths, most in (([*FILES, *PROGRAMS, *TESTS], 450), (KERNEL, 300))
        for path in paths
    }
    assert not {path: size for path, (size, most) in sizes.items() if size > most}
