"""What works without the extras, and does a command that needs one say which?"""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = {
    name: [re.match(r"[\w-]+", requirement).group() for requirement in requirements]
    for name, requirements in PROJECT["optional-dependencies"].items()
    if name not in ("all", "dev", "docs")
}
# None in sys.modules makes an import fail as if the package were not installed.
BLOCKED = f"import sys; sys.modules.update(dict.fromkeys({[p for ps in EXTRAS.values() for p in ps]!r})); "


WORKING = {
    "sweep-voltage --bit-error-rates 0,0.02 --chips 2 --images 20 --device cpu --out sweep": "sweep/sweep.png",
    "info": None,
    "energy --model ResNet18": None,
    "curve --out curve.png": "curve.png",
    "memory": None,
}
MISSING = {
    "energy --model ResNet18 --engine scalesim": ("scalesim", "energy"),
    "export --onnx net.onnx": ("onnx", "onnx"),
    "sweep-voltage --model transformers:CharGPT": ("transformers", "transformers"),
    "report . --out page.html": ("jinja2", "report"),
    "sweep-voltage --workers 2 --images 20 --device cpu": ("distributed", "cluster"),
    "serve-model --bit-error-rate 0 --device cpu": ("starlette", "serve"),
    "evaluate-blackbox --dataset digits --endpoint http://127.0.0.1:1": ("urllib3", "serve"),
    "train-base --model VGG11 --dataset cifar10 --out v.safetensors": ("pooch", "data"),
}
# One process for all commands: most of the time of each is the import of torch.
PROGRAM = """
import contextlib, io, json
from faultsim.cli import main
done = {}
for line in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            main(line.split())
        except SystemExit as end:
            done[line] = (end.code or 0, out.getvalue(), err.getvalue())
print(json.dumps(done))
"""


def python(code: str, folder: Path, *words: str) -> str:
    """What a program prints in an environment without the extras."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
    command = [sys.executable, "-c", BLOCKED + code, *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=250)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("without")


@pytest.fixture(scope="module")
def done(folder) -> dict[str, tuple[int, str, str]]:
    return json.loads(python(PROGRAM, folder, json.dumps([*WORKING, *MISSING])))


def test_all_is_all():
    (everything,) = PROJECT["optional-dependencies"]["all"]
    assert everything == f"faultsim[{','.join(sorted(EXTRAS))}]"


@pytest.mark.parametrize("line", WORKING)
def test_commands_that_need_no_extra(folder, done, line):
    status, _, said = done[line]
    assert (status, said.partition("error")[1]) == (0, "")
    if WORKING[line]:
        assert (folder / WORKING[line]).is_file()


@pytest.mark.parametrize("line", MISSING)
def test_a_missing_package_is_one_line_that_says_what_to_install(folder, done, line):
    package, extra = MISSING[line]
    assert package in EXTRAS[extra]
    status, out, said = done[line]
    assert (status, out) == (2, "")
    assert said.startswith("faultsim: error: ")
    assert said.count("\n") == 1
    assert package in said
    assert f'pip install "faultsim[{extra}]"' in said
    assert not [path for word in ("*.onnx", "*.html", "*.safetensors") for path in folder.glob(word)]


def test_packages_import_without_a_warning(folder):
    assert (
        python("import warnings; warnings.simplefilter('error'); import faultsim, neuralfuse, energy", folder)
        == ""
    )
