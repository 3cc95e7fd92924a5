"""Does no command overwrite what it reads, and are pictures what their name says, or refused before the work?"""

import os
from pathlib import Path

import pytest

from faultsim.io.files import keep_apart
from tests.cli.small_files import CURVE, LOG, SMALL


@pytest.mark.parametrize("link", ["itself", "a longer path", "symbolic", "hard", "symbolic folder"])
def test_inject_never_overwrites_what_it_reads(rejected, tmp_path, link):
    if link == "symbolic":
        (tmp_path / "o.npy").symlink_to("w.npy")
    elif link == "hard":
        os.link("w.npy", "o.npy")
    elif link == "symbolic folder":
        (tmp_path / "here").symlink_to(tmp_path)
    names = {"itself": "w.npy", "a longer path": f"../{tmp_path.name}/w.npy", "symbolic folder": "here/w.npy"}
    line = rejected("inject", "w.npy", names.get(link, "o.npy"), "--chip", 1, "--voltage", 0.83)
    assert "is the same file as IN.npy w.npy, which would be lost" in line


@pytest.mark.parametrize(
    "command",
    [
        "curve --curve c.csv --out c.csv",
        "chip 7 --voltage 0.83 --curve c.csv --out c.csv",
        "chip --fault-map c.csv --out c.csv",
        "chip 7 --voltage 0.83 --out a.csv --out ./a.csv",
        "energy --topology c.csv --write-topology ./c.csv",
        "sweep-voltage --curve run/summary.csv --out run",
        "sweep-voltage --weights w.png --picture w.png",
        "export --onnx m.onnx --weights m.onnx",
        "export --onnx m.onnx --generator linked.safetensors",
        "train-generator --generator ConvXS --bit-error-rate 1% --out g.safetensors --base g.safetensors",
        "train-generator --generator ConvXS --bit-error-rate 1% --out g.safetensors --start g.state.safetensors",
        "report run --out run/page.html",
    ],
)
def test_no_command_overwrites_what_it_reads(rejected, command):
    for name in ("run/summary.csv", "w.png", "m.onnx", "g.safetensors", "g.state.safetensors"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(CURVE)
    Path("linked.safetensors").symlink_to("m.onnx")
    Path("run/train.log.jsonl").write_text(LOG)
    os.link("run/train.log.jsonl", "run/page.html")
    assert "same file as" in rejected(*command.split())


def test_files_that_differ_may_stand_together(tmp_path):
    (tmp_path / "a").write_text("")
    keep_apart(
        {"--out": tmp_path / "b"}, {"--in": tmp_path / "a", "--none": None, "--more": [tmp_path / "c"]}
    )


def test_names_of_any_letters(call):
    Path("größe [bold] 圧.csv").write_text(CURVE)
    status, out, err = call("curve", "--curve", "größe [bold] 圧.csv", "--out", "bild 圧.svg")
    assert status == 0, err
    assert "größe [bold] 圧.csv" in out
    assert Path("bild 圧.svg").exists()


BEGINS = {"png": b"\x89PNG\r\n", "pdf": b"%PDF-", "svg": b"<?xml"}


@pytest.mark.parametrize("ending", BEGINS)
@pytest.mark.parametrize(
    "command",
    ["curve --out", "chip 7 --voltage 0.83 --arrays 2 --out", "sweep-voltage --voltages 0.9 --picture"],
)
def test_pictures_are_what_their_name_says_and_always_the_same(call, command, ending):
    small = SMALL if command.startswith("sweep") else ()
    contents = set()
    for name in (f"a.{ending}", f"b.{ending.upper()}"):
        status, out, err = call(*command.split(), name, *small)
        assert status == 0, err
        assert f"written to {name}" in out
        contents.add(Path(name).read_bytes())
    (content,) = contents
    assert content.startswith(BEGINS[ending])


@pytest.mark.parametrize("command", ["curve --out", "chip 7 --voltage 0.83 --out", "sweep-voltage --picture"])
@pytest.mark.parametrize("name", ["x.gif", "x", "x.png.txt", ".svg"])
def test_other_endings_are_refused_before_anything_is_computed(rejected, command, name):
    assert "the name must end in .png, .pdf" in rejected(*command.split(), name)


def test_a_picture_that_cannot_be_written_is_refused_before_the_sweep(rejected, tmp_path):
    (tmp_path / "p.png").mkdir()
    assert "cannot write p.png: it is a folder" in rejected("sweep-voltage", "--picture", "p.png")
    assert "is not a folder that can be written to" in rejected("sweep-voltage", "--picture", "w.npy/p.png")
