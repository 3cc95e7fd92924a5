"""Does the site say what the sources say: output of tutorials, names on the page of the house? Does it build?"""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tools import house, tutorials

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", tutorials.names())
def test_a_tutorial_prints_what_its_page_shows(name):
    said, shown = tutorials.run(name), tutorials.recorded(name)
    assert len(said) == len(shown) == len(tutorials.read(name)[2])
    for ours, theirs in zip(said, shown, strict=True):
        assert not tutorials.differ(ours, theirs), (
            f"python -m tools.tutorials {name}:\n{ours}\nrecorded:\n{theirs}"
        )


@pytest.mark.parametrize(
    ("said", "recorded", "different"),
    [
        ("a 1 b", "a 1 b", False),
        ("a 1 b", "a 2 b", True),
        ("a 1 b", "c 1 b", True),
        ("0.99", "1.00", False),
        ("0.97", "1.00", True),
        ("51.0 %", "55.0 %", False),
        ("51.0 %", "57.0 %", True),
        ("11,164,352 weights", "11,164,353 weights", True),
    ],
)
def test_small_differences_of_floats_are_no_differences(said, recorded, different):
    assert tutorials.differ(said, recorded) is different


WAY = re.findall(
    r"^\| (.+?) \| `(.+?)` \| `(.+?)` \|$", (ROOT / "docs" / "house.md").read_text("utf-8"), re.M
)


@pytest.mark.parametrize(("what", "file", "name"), WAY)
def test_the_way_of_a_weight_leads_past_what_exists(what, file, name):
    if file.startswith("csrc"):
        assert re.search(rf"\b{name}\(", (ROOT / file).read_text("utf-8"))
        return
    found = importlib.import_module(file.removesuffix(".py").replace("/", "."))
    for part in name.split("."):
        found = getattr(found, part)
    home = found.__module__ if hasattr(found, "__module__") else file.removesuffix(".py").replace("/", ".")
    assert home == file.removesuffix(".py").replace("/", "."), f"{name} is defined in {home}"


def test_the_way_has_its_stations():
    assert len(WAY) >= 12


def test_a_module_stands_above_what_it_imports():
    arrows = {"a": {"b", "c"}, "b": {"c"}, "c": set(), "d": {"e"}, "e": {"d"}}
    assert house.floors_of(set(arrows), arrows) == [["c", "d", "e"], ["b"], ["a"]]


def test_the_picture_has_every_module():
    text = house.draw()
    for package in ("faultsim", "energy", "neuralfuse"):
        for path in (ROOT / package).glob("*.py"):
            if path.stem not in ("__init__", "__main__"):
                assert f">{path.stem}</text>" in text


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings_handlers.python")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "reference" / "faultsim.html").read_text("utf-8")
    import faultsim

    for name in faultsim.__all__:
        if name not in ("__version__", "energy"):
            assert f'id="faultsim.{name}"' in page, name
    others = re.compile(r"""(?:src|href)="https?://[^"]*\.(?:js|css|woff2?|png)["?]""")
    for path in tmp_path.rglob("*.html"):
        assert not others.search(path.read_text("utf-8")), f"{path} loads from elsewhere"
