"""`faultsim serve-model` in a process of its own, and `evaluate-blackbox` against it, an ONNX file and a function."""

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from faultsim import bundled, save_weights
from faultsim.cli import main
from neuralfuse import generators

POINT = ["--bit-error-rate", "0.02", "--preset", "neuralfuse_2022"]
IMAGES = ["--dataset", "digits", "--images", "100"]


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as status:
        main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return status.value.code or 0, out, err


@contextlib.contextmanager
def serve(*arguments: object) -> Iterator[tuple[subprocess.Popen, str]]:
    """A server and its address."""
    command = [sys.executable, "-m", "faultsim", "serve-model", "--port", "0", *map(str, arguments)]
    path = os.pathsep.join(filter(None, [os.getcwd(), *sys.path]))
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )
    try:
        line = process.stdout.readline()
        chip = r"on chip \d+ \(bit error rate \S+ %; [a-z_]+, [a-z_0-9]+ placement, no voltage curve\)"
        found = re.fullmatch(rf"serving digits classifier {chip} at (http://127\.0\.0\.1:\d+)\n", line)
        assert found, line + process.stderr.read()
        yield process, found[1]
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Holds an (untrained) generator and a function that always says 7."""
    path = tmp_path_factory.mktemp("blackbox")
    torch.manual_seed(0)
    metadata = {"generator": "UNetS", "dataset": "digits"}
    save_weights(path / "g.safetensors", generators.create("UNetS"), metadata=metadata)
    (path / "seven_for_test.py").write_text(
        "def seven(images):\n    return [7] * len(images)\n\nnumber = 7\n"
    )
    return path


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> Iterator[str]:
    """Chip 1, from a weight file that is gone when the server runs."""
    weights = shutil.copy(bundled.WEIGHTS, tmp_path_factory.mktemp("gone") / "w.safetensors")
    with serve("--weights", weights, "--chip", 1, *POINT) as (_, address):
        os.unlink(weights)
        yield address


@pytest.fixture(scope="module")
def white_box(folder) -> dict[str, dict]:
    """What `evaluate` says of chips 0 and 1, with all the weights in hand."""
    printed = io.StringIO()
    arguments = [*POINT, *IMAGES, "--chips", "2", "--generator", str(folder / "g.safetensors"), "--json"]
    with contextlib.redirect_stdout(printed), pytest.raises(SystemExit):
        main(["evaluate", *arguments])
    return {row["name"]: row for row in json.loads(printed.getvalue())["accuracy"]}


def test_the_black_box_is_that_chip(url, folder, white_box, capsys):
    arguments = [
        "--generator",
        folder / "g.safetensors",
        "--images",
        100,
        "--json",
    ]  # digits: the generator's
    code, out, err = run(capsys, "evaluate-blackbox", "--endpoint", url, *arguments)
    assert (code, err) == (0, "")
    report = json.loads(out)
    rows = {row["name"]: row for row in report["accuracy"]}
    assert rows["accuracy"]["mean"] == white_box["P.A."]["chips"][1]
    assert rows["accuracy+N.F."]["mean"] == white_box["P.A.+N.F."]["chips"][1]
    assert rows["IP"]["mean"] == pytest.approx(rows["accuracy+N.F."]["mean"] - rows["accuracy"]["mean"])
    assert rows["accuracy"]["mean"] != white_box["P.A."]["chips"][0]
    assert report["configuration"]["boxes"] == [url]
    assert "std" not in rows["accuracy"]
    assert "chip" not in out.lower()  # the box hasn't told


def test_an_exported_chip_is_the_same_box(white_box, tmp_path, capsys):
    """Two chips in ONNX: their mean and spread are those of `evaluate`."""
    files = [tmp_path / f"{chip}.onnx" for chip in (0, 1)]
    for chip, file in enumerate(files):
        code, _, err = run(capsys, "export", "--onnx", file, "--chip", chip, *POINT, "--images", 4)
        assert code == 0, err
    boxes = [word for file in files for word in ("--onnx", file)]
    code, out, _ = run(capsys, "evaluate-blackbox", *boxes, *IMAGES, "--json")
    assert code == 0
    (row,) = json.loads(out)["accuracy"]
    assert row["boxes"] == white_box["P.A."]["chips"]
    assert row["std"] == white_box["P.A."]["std"]
    code, out, _ = run(capsys, "evaluate-blackbox", *boxes, *IMAGES)
    assert "standard deviation over 2 black boxes" in out


def test_a_function_of_the_users(folder, capsys, monkeypatch):
    monkeypatch.syspath_prepend(folder)
    code, out, _ = run(capsys, "evaluate-blackbox", "--function", "seven_for_test:seven", *IMAGES)
    assert code == 0
    assert "seven_for_test:seven on 100" in out
    assert 0 < float(re.search(r"accuracy\W+([\d.]+)", out)[1]) < 30


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_when_it_is_told(number, capsys):
    with serve("--bit-error-rate", 0) as (process, address):
        code, out, _ = run(capsys, "evaluate-blackbox", "--endpoint", address, *IMAGES)
        assert code == 0
        assert "│ accuracy │" in out
        port = address.rpartition(":")[2]
        code, out, err = run(capsys, "serve-model", "--bit-error-rate", 0, "--port", port)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert f"cannot listen on 127.0.0.1, port {port}: " in err
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
        assert (process.returncode, out, err) == (0, "", "")
    code, _, err = run(capsys, "evaluate-blackbox", "--endpoint", address, *IMAGES)
    assert code == 2
    assert "no connection" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "give either --voltage or --bit-error-rate"),
        (("--bit-error-rate", 0.01, "--voltage", 0.83), "give either --voltage or --bit-error-rate"),
        (("--bit-error-rate", 2), "outside [0, 1]"),
        (("--voltage", 0.83, "--chip", -1), "chip seed -1"),
        (("--voltage", 0.83, "--port", 70000), "cannot listen on 127.0.0.1, port 70000"),
        (("--voltage", 0.83, "--max-batch", 0), "limits of 0 images"),
        (("--voltage", 0.83, "--max-body", -1), "both must be from 1 to"),
        (("--voltage", 0.83, "--max-seconds", 0), "time limit of 0.0 s"),
        (("--voltage", 0.83, "--classes", 3), "--classes cannot be combined with these weights"),
        (("--voltage", 0.83, "--model", "VGG11"), "VGG11 would be untrained"),
        (("--voltage", 0.83, "--weights", "none.safetensors"), "does not exist"),
    ],
)
def test_wrong_words_to_the_server_get_one_line(arguments, words, capsys):
    code, out, err = run(capsys, "serve-model", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert words in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "which black box?"),
        (("--function", "json:dumps"), "which images?"),
        (("--function", "json:dumps", *IMAGES), "fails on images"),
        (("--function", "seven_for_test:number", *IMAGES), "is of type int"),
        (("--function", "seven_for_test:six", *IMAGES), "has no 'six'"),
        (("--function", "seven", *IMAGES), "package.module:function"),
        (("--onnx", "none.onnx", *IMAGES), "none.onnx does not exist"),
        (("--onnx", bundled.WEIGHTS, *IMAGES), "is no ONNX model"),
        (("--endpoint", "localhost", *IMAGES), "write one like http://"),
        (("--endpoint", "http://127.0.0.1:9", "--timeout", 0, *IMAGES), "a timeout of 0.0 s"),
        (
            ("--onnx", "none.onnx", "--timeout", 3, *IMAGES),
            "--timeout is the time for answers of an --endpoint",
        ),
        (
            ("--function", "seven_for_test:seven", "--generator", bundled.WEIGHTS, *IMAGES),
            "holds no generator",
        ),
        (("--function", "seven_for_test:seven", *IMAGES, "--batch-size", 0), "batch size must be at least 1"),
    ],
)
def test_wrong_words_about_a_black_box_get_one_line(arguments, words, folder, capsys, monkeypatch):
    monkeypatch.syspath_prepend(folder)
    code, out, err = run(capsys, "evaluate-blackbox", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert words in err


def test_another_data_set_is_refused_before_anything_is_asked(url, capsys, monkeypatch):
    from dataclasses import replace

    from faultsim.data import load

    def more_classes(*arguments: object):
        return replace(load("digits", "test"), class_names=tuple("abcdefghijk"), name="eleven")

    monkeypatch.setattr("faultsim.data.sources.load", more_classes)
    code, _, err = run(capsys, "evaluate-blackbox", "--endpoint", url, "--dataset", "cifar100")
    assert code == 2
    assert "knows 10 classes, eleven has 11" in err


def test_bench_compares_in_one_run(capsys):
    small = ["--model", "DigitsNet", "--batch-size", 8, "--batches", 1, "--seconds", 0, "--device", "cpu"]
    code, out, _ = run(capsys, "bench", "blackbox", *small, "--json")
    assert code == 0
    found = json.loads(out)
    assert found["ratio"] == pytest.approx(found["http"] / found["callable"])
    assert found["overhead"] > 0
    code, out, _ = run(capsys, "bench", "blackbox", *small)
    assert "x the time in process" in out
