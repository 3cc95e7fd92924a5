"""Do runs and reports whose files are damaged, lost or cannot be written end in one clear line?"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from faultsim.cli import main
from faultsim.io.run_directory import RunDirectory
from neuralfuse.paper import result
from tests.fuzz.refusals import faultsim, refused

# -- runs and reports ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"configuration": ' + "[" * 200 + "]" * 200 + "}", "{", "\ufeff7", "null"]
)
def test_descriptions_of_a_run(tmp_path, text):
    (tmp_path / "sweep.json").write_text(text, encoding="utf-8")
    refused(lambda: RunDirectory(tmp_path, "sweep", {}, ("a",)).__enter__(), "cannot be read")


def test_a_pipe_in_a_run_directory(tmp_path):
    os.mkfifo(tmp_path / "sweep.json")
    refused(lambda: RunDirectory(tmp_path, "sweep", {}, ("a",)).__enter__(), "it is no regular file")


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> Path:
    """A small sweep."""
    folder = tmp_path_factory.mktemp("hostile") / "run"
    small = ("--images", "5", "--chips", "2", "--voltages", "0.8,0.9", "--device", "cpu")
    with pytest.raises(SystemExit) as ended:
        main(["sweep-voltage", *small, "--out", str(folder)])
    assert not ended.value.code
    return folder


@pytest.mark.parametrize(
    ("name", "old", "new", "complaint"),
    [
        ("summary.csv", "variant,", "kind,", "variant is missing"),
        ("summary.csv", ",5,", "," + "9" * 5000 + ",", "is no integer"),
        ("summary.csv", ",5,", ",\u0665,", "is no integer"),
        ("summary.csv", "0.9,", "1e999,", "is no finite number"),
        ("sweep.json", "{", "[" * 100_000 + "{", "cannot be read as a sweep's description"),
    ],
)
def test_reports(tmp_path, capfd, swept, name, old, new, complaint):
    shutil.copytree(swept, tmp_path / "run")
    path = tmp_path / "run" / name
    path.write_text(path.read_text().replace(old, new, 1), encoding="utf-8")
    assert complaint in faultsim(capfd, "report", tmp_path / "run")


def test_results_and_logs(tmp_path):
    (tmp_path / "result-a.json").write_text("[" * 100_000)
    refused(lambda: result.read(tmp_path / "result-a.json"), "is no result that faultsim wrote")


@pytest.mark.parametrize("lost", ["directory", "sweep.json", "replaced"])
def test_a_run_that_loses_its_directory_ends_with_an_error(tmp_path, lost):
    path = tmp_path / "run"

    def lose() -> None:
        if lost == "sweep.json":
            (path / "sweep.json").unlink()
            return
        shutil.rmtree(path)
        if lost == "replaced":
            path.mkdir()
            (path / "sweep.json").write_text('{"configuration": {}}')

    def run(more: bool) -> None:
        with RunDirectory(path, "sweep", {}, ("a",)) as directory:
            directory.begin({})
            directory.add([{"a": 1}])
            lose()
            if more:
                directory.add([{"a": 2}])

    for more in (True, False):  # after the last row the end tells
        refused(lambda more=more: run(more), "was removed or replaced while the run went on")
        shutil.rmtree(path, ignore_errors=True)


def test_a_sweep_whose_description_is_deleted(tmp_path, monkeypatch, capfd):
    import faultsim.studies.measurement

    out, evaluate = tmp_path / "out", faultsim.studies.measurement.evaluate

    def losing(*arguments, **options):
        (out / "sweep.json").unlink(missing_ok=True)
        return evaluate(*arguments, **options)

    monkeypatch.setattr(faultsim.studies.measurement, "evaluate", losing)
    with pytest.raises(SystemExit) as ended:
        main(["sweep-voltage", "--images", "5", "--chips", "2", "--voltages", "0.8,0.9", "--out", str(out)])
    err = capfd.readouterr().err
    assert ended.value.code == 2
    assert f"{out / 'sweep.json'} was removed or replaced while the run went on" in err.splitlines()[-1]


# -- a full device ------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("words", [("curve",), ("curve", "--json"), ("--help",)])
def test_output_to_a_full_device(words):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [os.getcwd(), *sys.path]))}
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "faultsim", *words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        silent = subprocess.run(
            [sys.executable, "-m", "faultsim", *words], stdout=full, stderr=full, env=environment
        )
    line = "faultsim: error: cannot read or write the output: No space left on device\n"
    assert (done.returncode, done.stderr) == (2, line)
    assert silent.returncode == 2


def test_output_that_nobody_reads():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [os.getcwd(), *sys.path]))}
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as closed:
        words = [sys.executable, "-m", "faultsim", "curve", "--json"]
        done = subprocess.run(words, stdout=closed, stderr=subprocess.PIPE, text=True, env=environment)
    assert (done.returncode, done.stderr) == (1, "")
