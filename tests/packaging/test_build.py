"""The distribution builds from its sources with pip and CMake, and what it installs works elsewhere."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import faultsim

ROOT = Path(__file__).resolve().parents[2]
SOURCES = (
    "setup.py",
    "pyproject.toml",
    "CMakeLists.txt",
    "README.md",
    "LICENSE",
    "NOTICE",
    "cmake",
    "csrc",
    "faultsim",
    "energy",
    "neuralfuse",
)
TOOLS = str(Path(sys.executable).parent)  # where pip puts cmake and ninja


def run(*command: object, path: str | None = None, **settings) -> subprocess.CompletedProcess:
    """A command with the tools of this environment on its PATH and no word about CUDA around it but FAULTSIM_CUDA."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("CUDA", "FAULTSIM", "PYTHONPATH"))}
    environment = {
        **kept,
        "PATH": os.pathsep.join([TOOLS, path or os.environ["PATH"]]),
        **settings.pop("env", {}),
    }
    return subprocess.run(
        [*map(str, command)], capture_output=True, text=True, env=environment, timeout=280, **settings
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `pip install` puts into a folder, from a copy of the sources; compiled without optimization, for half the
    time: what all other tests run is optimized."""
    copy, target = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("target")
    launcher = copy / "compile"
    launcher.write_text('#!/bin/sh\nexec "$@" -O0 -fno-lto\n')
    launcher.chmod(0o755)
    ignored = shutil.ignore_patterns("*.so", "__pycache__")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=ignored)
        else:
            shutil.copy(source, copy / name)
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--no-build-isolation"]
    done = run(
        *pip,
        "--target",
        target,
        copy,
        env={"FAULTSIM_CUDA": "OFF", "CMAKE_CXX_COMPILER_LAUNCHER": str(launcher)},
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return target


def test_the_three_packages_and_the_kernel_are_installed(installed):
    for package in ("faultsim", "energy", "neuralfuse"):
        ours = {p.relative_to(ROOT) for p in (ROOT / package).rglob("*.py")}
        theirs = {p.relative_to(installed) for p in (installed / package).rglob("*.py")}
        assert ours == theirs
    assert len(list((installed / "faultsim").glob("_native*.so"))) == 1
    (about,) = installed.glob("faultsim-*.dist-info/METADATA")
    text = about.read_text()
    assert "\nRequires-Dist: torch" in text
    assert f"\nVersion: {faultsim.__version__}\n" in text
    assert "\nLicense-Expression: Apache-2.0\n" in text
    for name in ("LICENSE", "NOTICE"):
        assert (about.parent / "licenses" / name).read_bytes() == (ROOT / name).read_bytes()


def test_nothing_else_is_installed(installed):
    """Above all no trained networks but the bundled ones, and at most 3 MB apart from the kernel."""
    tops = {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")}
    assert tops == {"faultsim", "energy", "neuralfuse", "bin"}
    networks = {str(path.relative_to(installed)) for path in installed.rglob("*.safetensors")}
    assert networks == {
        "faultsim/bundled/chargpt/model.safetensors",
        "faultsim/bundled/digitsnet.safetensors",
        "faultsim/bundled/digitsvgg.safetensors",
        "neuralfuse/bundled/convqs.classifier.safetensors",
        "neuralfuse/bundled/convqs.safetensors",
        "neuralfuse/bundled/convxs.classifier.safetensors",
        "neuralfuse/bundled/convxs.safetensors",
    }
    files = [path for path in installed.rglob("*") if path.is_file() and path.suffix not in (".so", ".pyc")]
    assert {path.name for path in files if path.suffix == ".png"} == set()
    assert sum(path.stat().st_size for path in files) < 3 << 20


def test_data_files_are_installed(installed):
    suffixes = {".txt", ".safetensors", ".csv", ".json", ".md", ".html", ".css", ".js"}
    for package in ("faultsim", "energy", "neuralfuse"):
        ours = [p for p in (ROOT / package).rglob("*") if p.suffix in suffixes]
        for path in ours:
            assert (installed / path.relative_to(ROOT)).read_bytes() == path.read_bytes()
    for name in ("faultsim/bundled/digitsnet", "faultsim/bundled/digitsvgg"):
        assert (installed / f"{name}.safetensors").is_file()
    for name in ("neuralfuse/bundled/convxs", "neuralfuse/bundled/convqs"):
        assert (installed / f"{name}.safetensors").is_file()
    assert list((installed / "neuralfuse" / "published").glob("*.csv"))


def test_it_runs_from_another_folder(installed, tmp_path):
    settings = {"cwd": tmp_path, "env": {"PYTHONPATH": str(installed)}}
    where = run(sys.executable, "-c", "import faultsim; print(faultsim.__file__)", **settings)
    assert where.stdout.strip() == str(installed / "faultsim" / "__init__.py")
    done = run(sys.executable, "-m", "faultsim", "info", **settings)
    assert (done.returncode, done.stderr) == (0, "")
    assert faultsim.__version__ in done.stdout
    script = run(sys.executable, installed / "bin" / "faultsim", "info", **settings)
    assert script.stdout == done.stdout


def only(requirements: Iterable[str], folder: Path) -> Path:
    """A folder with nothing but these packages of this environment and what they need."""
    rest, seen = [Requirement(text) for text in requirements], set()
    while rest:
        requirement = rest.pop()
        if requirement.name in seen or (
            requirement.marker and not requirement.marker.evaluate({"extra": ""})
        ):
            continue
        seen.add(requirement.name)
        found = metadata.distribution(requirement.name)
        rest += [Requirement(text) for text in found.requires or ()]
        for top in {path.parts[0] for path in found.files or ()} - {"..", "__pycache__"}:
            if not (folder / top).exists():
                (folder / top).symlink_to(Path(str(found.locate_file(top))))
    return folder


PROGRAM = """
import shlex, sys
from faultsim.cli import main
exec(open("readme.py").read())
for line in open("commands.txt"):
    try:
        main(shlex.split(line)[1:])
    except SystemExit as end:
        assert not end.code, line
foreign = {"onnx", "onnxruntime", "scalesim", "starlette", "uvicorn", "pooch", "pytest"} & set(sys.modules)
assert not foreign, foreign
"""


def test_the_readme_runs_where_nothing_else_is_installed(installed, tmp_path):
    """The program and the quick commands of the README, with the required packages only."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    packages = tmp_path / "packages"
    packages.mkdir()
    only(project["dependencies"], packages)
    (tmp_path / "my_project.py").write_text(
        "import torch\n\ndef net():\n    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 10))\n\n"
        "def validation():\n    return [(torch.randn(8, 3, 32, 32), torch.arange(8))]\n"
    )
    readme = (ROOT / "README.md").read_text("utf-8")
    (tmp_path / "readme.py").write_text(re.search(r"^```python\n(.*?)^```", readme, re.M | re.S).group(1))
    lines = re.findall(
        r"^    (faultsim (?:sweep-voltage --model my|memory|curve|chip|energy)[^#\n]*)", readme, re.M
    )
    assert len(lines) == 5
    (tmp_path / "commands.txt").write_text("\n".join(lines))
    # -S: without the site-packages of this environment
    path = os.pathsep.join(map(str, (installed, packages, tmp_path)))
    done = run(sys.executable, "-S", "-c", PROGRAM, cwd=tmp_path, env={"PYTHONPATH": path})
    assert done.returncode == 0, done.stderr[-3000:]
    assert {p.name for p in tmp_path.iterdir()} >= {"sweep", "curve.png", "chip.png"}


def test_the_kernel_was_built_without_cuda_and_computes(installed, tmp_path):
    code = (
        "import torch; from faultsim import Chip, corrupt; from faultsim.kernel.native import native\n"
        "w = torch.zeros(4096, dtype=torch.int8)\n"
        "print(native().built_with_cuda(), int(corrupt(w, Chip(7), bit_error_rate=1).sum()))"
    )
    done = run(sys.executable, "-c", code, cwd=tmp_path, env={"PYTHONPATH": str(installed)})
    assert done.stdout.split() == ["False", "-4096"], done.stderr


def configure(build: Path, cuda: str, path: str, **settings) -> subprocess.CompletedProcess:
    import pybind11

    return run(
        *("cmake", "-G", "Ninja", "-S", ROOT, "-B", build, f"-DFAULTSIM_CUDA={cuda}"),
        *(f"-Dpybind11_DIR={pybind11.get_cmake_dir()}", f"-DPython_EXECUTABLE={sys.executable}"),
        "-DPYBIND11_FINDPYTHON=ON",
        path=path,
        **settings,
    )


@pytest.fixture(scope="module")
def without_nvcc() -> str:
    """A PATH with a compiler and without nvcc."""
    folders = [f for f in os.environ["PATH"].split(os.pathsep) if not (Path(f) / "nvcc").exists()]
    path = os.pathsep.join(folders)
    if not (shutil.which("c++", path=path) or shutil.which("g++", path=path)):
        pytest.skip("the C++ compiler lies in one folder with nvcc")
    return path


def test_cuda_on_without_nvcc_is_an_error(tmp_path, without_nvcc):
    done = configure(tmp_path, "ON", without_nvcc)
    assert done.returncode != 0
    assert "FAULTSIM_CUDA=ON, but no nvcc was found: put it on the PATH or set CUDACXX" in " ".join(
        done.stderr.split()
    )


def test_cuda_auto_without_nvcc_is_none(tmp_path, without_nvcc):
    done = configure(tmp_path, "AUTO", without_nvcc)
    assert done.returncode == 0, done.stderr
    assert "faultsim: CUDA kernels OFF" in done.stdout
    cached = (tmp_path / "CMakeCache.txt").read_text()
    assert f"CMAKE_PROJECT_VERSION:STATIC={faultsim.__version__}\n" in cached


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("echo 9.0; echo 9.0; echo 8.6", "90-real;86-real"),
        ("echo 12.0", "120-real"),
        ("echo No devices were found; exit 6", "75-virtual"),
        ("echo '[N/A]'", "75-virtual"),
    ],
)
def test_cuda_is_compiled_for_the_cards_that_are_there(tmp_path, said, expected):
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{said}\n")
    program.chmod(0o755)
    script = tmp_path / "say.cmake"
    script.write_text(
        f"include({ROOT}/cmake/cuda_architectures.cmake)\n"
        'faultsim_cuda_architectures(found)\nmessage(STATUS "found ${found}")\n'
    )
    done = run("cmake", "-P", script, path=f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert done.stdout.split()[-1] == expected, done.stderr


def test_other_words_are_an_error(tmp_path):
    done = configure(tmp_path, "bogus", os.environ["PATH"])
    assert done.returncode != 0
    assert "FAULTSIM_CUDA is 'BOGUS'; it can be AUTO, ON or OFF" in " ".join(done.stderr.split())


def test_cudaarchs_chooses_the_gpus_that_are_compiled_for(tmp_path):
    if shutil.which("nvcc") is None:
        pytest.skip("nvcc is not on the PATH")
    done = configure(tmp_path, "ON", os.environ["PATH"], env={"CUDAARCHS": "75-real;86-real;90"})
    assert done.returncode == 0, done.stderr
    assert set(re.findall(r"code=\S*sm_(\d+)", (tmp_path / "build.ninja").read_text())) == {"75", "86", "90"}
