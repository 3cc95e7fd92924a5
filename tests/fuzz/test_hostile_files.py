"""Damaged and hostile files that once were a traceback, a hang or silent garbage: each is refused in one clear line."""

import io
import json
import os
import shutil
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from energy import EnergyError, read_topology
from energy.accelerator import parse_array
from faultsim import bundled, load_weights, models
from faultsim.chip_map import find_failing_cells
from faultsim.cli import main
from faultsim.data.cifar import load_cifar
from faultsim.data.unpickle import unpickle
from faultsim.errors import FaultsimError
from faultsim.fault_map import FaultMap
from faultsim.faults import Chip
from faultsim.io.checkpoint import read_file
from faultsim.io.run_directory import RunDirectory
from faultsim.training.state import load_state, save_state
from faultsim.voltage import VoltageCurve
from neuralfuse import bundled as shipped
from neuralfuse.blackbox import wire
from neuralfuse.paper import result


def refused(read: Callable[[], object], complaint: str, error: type[Exception] = FaultsimError) -> None:
    """`read` says so in one line, soon."""
    began = time.process_time()
    with pytest.raises(error) as caught:
        read()
    message = str(caught.value)
    assert complaint in message
    assert len(message) <= 300
    assert message.isprintable()
    assert time.process_time() - began < 5


def faultsim(capfd: pytest.CaptureFixture[str], *words: object) -> str:
    """The one line that a command says before it ends with status 2."""
    with pytest.raises(SystemExit) as ended:
        main([*map(str, words)])
    out, err = capfd.readouterr()
    assert (ended.value.code, out) == (2, "")
    assert err.startswith("faultsim: error: ")
    assert err.count("\n") == 1
    assert len(err) <= 301
    return err


# -- a: fault maps ---------------------------------------------------------------------------------------------------


@pytest.fixture
def entries(tmp_path) -> dict[str, bytes]:
    find_failing_cells(Chip(1), 2, 0.01).save(tmp_path / "whole.npz")
    with zipfile.ZipFile(tmp_path / "whole.npz") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def npz(path: Path, entries: dict[str, bytes], way: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", way) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def npy(header: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("row.npy", npy("{'descr': '<i4', 'fortran_order': False, 'shape': (3")),
        ("row.npy", npy("{'descr': '<i4', 'fortran_order': False, 'shape': (" + "9" * 4000 + ",), }")),
        ("row.npy", npy("{'descr': '<i4', 'fortran_order': False, 'shape': (9223372036854775807,), }")),
        ("row.npy", npy("{'descr': '|O', 'fortran_order': False, 'shape': (3,), }")),
        ("meta.npy", npy("{'descr': '<U999999', 'fortran_order': False, 'shape': (), }")),
    ],
)
def test_headers_in_a_fault_map(tmp_path, entries, name, content):
    path = npz(tmp_path / "a.npz", entries | {name: content})
    refused(
        lambda: FaultMap.load(path), f"fault map {path}: this is no fault map of faultsim, or a damaged one"
    )


@pytest.mark.parametrize("rows", ["1e999", "9" * 5000, "true", "[" * 5000, '"512"', "-Infinity"])
def test_meta_of_a_fault_map(tmp_path, entries, rows):
    whole = {
        "format": "faultsim fault map",
        "version": 1,
        "arrays": 2,
        "rows": 512,
        "columns": 64,
        "source": "",
    }
    meta = json.dumps(whole).replace("512", rows)
    file = io.BytesIO()
    np.save(file, np.array(meta))
    path = npz(tmp_path / "a.npz", entries | {"meta.npy": file.getvalue()})
    refused(lambda: FaultMap.load(path), "this is no fault map of faultsim, or a damaged one")


@pytest.mark.parametrize("way", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_other_compressions_of_a_fault_map(tmp_path, entries, way):
    path = npz(tmp_path / "a.npz", entries, way)
    refused(lambda: FaultMap.load(path), "this is no fault map of faultsim")
    damaged = bytearray(path.read_bytes())
    damaged[60] ^= 255
    path.write_bytes(damaged)
    refused(lambda: FaultMap.load(path), "this is no fault map of faultsim")


# -- b, c: images ----------------------------------------------------------------------------------------------------

ARRAY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
UINT8 = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (b"]" * 100_000 + b"a" * 99_999, "unexpected EMPTY_LIST"),
        (b"}" * 100_000, "unexpected EMPTY_DICT"),
        (
            ARRAY + b"(K\x01(" + b"J\xff\xff\xff\x7f" * 300_000 + b"t" + UINT8 + b"\x89U\x01atb",
            "300,000 dimensions",
        ),
        (b"]" + b"N" * 1_000_000, "more than 1,000,000 values"),
    ],
)
def test_pickles(value, complaint):
    refused(lambda: unpickle(b"\x80\x02}U\x04data" + value + b"s.", "batch"), complaint)


@pytest.mark.parametrize(
    "records",
    [
        b"30 GNU.sparse.map=1,2,3,x,5,66\n",
        b"99999999999999999999 size=1\n",
        b"9" * 5000 + b" size=1\n",
        b"12 size=-99\n",
        b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n",
    ],
)
def test_pax_records_of_a_tar_archive(tmp_path, records):
    path = tmp_path / "cifar-10-binary.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        header = tarfile.TarInfo("pax")
        header.type, header.size = tarfile.XHDTYPE, len(records)
        tar.addfile(header, io.BytesIO(records))
        member = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
        member.size = 3073
        tar.addfile(member, io.BytesIO(bytes(3073)))
    refused(lambda: load_cifar("cifar10", "test", tmp_path), f"{path}")


def test_a_pipe_among_images(tmp_path):
    for name in ("data_batch_1", "test_batch", "batches.meta"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "data_batch_2").write_bytes(b"")
    refused(lambda: load_cifar("cifar10", "test", tmp_path), "is no official file: it is no regular file")


def test_a_tar_header_that_would_fill_the_memory(tmp_path):
    path = tmp_path / "cifar-10-binary.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        header = tarfile.TarInfo("pax")
        header.type, header.size = tarfile.GNUTYPE_LONGNAME, 1 << 20
        tar.addfile(header, io.BytesIO(bytes(1 << 20)))
    refused(lambda: load_cifar("cifar10", "test", tmp_path), "a header of 1,048,576 bytes")


# -- d, e: weights ---------------------------------------------------------------------------------------------------


def with_metadata(path: Path, source: Path, metadata: str | dict) -> Path:
    tensors, known = read_file(source)
    text = metadata if isinstance(metadata, str) else json.dumps({**known, **metadata})
    save_file(tensors, path, {"faultsim": text})
    return path


@pytest.mark.parametrize(
    "metadata", ["[" * 100_000, '{"a": 1e999}', '{"a": ' + "9" * 5000 + "}", '{"format": NaN}']
)
def test_metadata_of_weights(tmp_path, metadata):
    path = with_metadata(tmp_path / "a.safetensors", bundled.WEIGHTS, metadata)
    refused(
        lambda: read_file(path),
        f"weight file {path} was written by another version of faultsim or is damaged",
    )


@pytest.mark.parametrize("classes", [True, 10**12, 0, -1, 10.0, "ten", [], 11])
def test_numbers_of_classes(tmp_path, capfd, classes):
    path = with_metadata(tmp_path / "a.safetensors", bundled.WEIGHTS, {"num_classes": classes})
    line = faultsim(capfd, "sweep-voltage", "--weights", path, "--out", tmp_path / "out")
    assert f"says that it has {classes!r} classes: it has no weights for so many" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", [[], {}, None, 7, "ConvXXL"])
def test_names_of_generators(tmp_path, capfd, name):
    path = with_metadata(tmp_path / "a.safetensors", shipped.WEIGHTS, {"generator": name})
    assert "holds no generator: its metadata must name one of" in faultsim(
        capfd, "sweep-voltage", "--generator", path, "--out", tmp_path / "out"
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e38])
@pytest.mark.parametrize("kind", ["bias", "weight.scale", "running_mean", "running_var"])
def test_numbers_that_are_none_in_weights(tmp_path, kind, value):
    tensors = load_file(bundled.WEIGHTS)
    name = next(name for name in tensors if name.endswith(kind))
    tensors[name].view(-1)[0] = value
    path = tmp_path / "a.safetensors"
    save_file(tensors, path)
    model = models.create("DigitsNet")
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    refused(lambda: load_weights(model, path), repr(name))
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def test_negative_variances_and_scales(tmp_path):
    for kind in ("running_var", "weight.scale"):
        tensors = load_file(bundled.WEIGHTS)
        name = next(name for name in tensors if name.endswith(kind))
        tensors[name].view(-1)[0] = -0.5
        save_file(tensors, tmp_path / "a.safetensors")
        refused(lambda: load_weights(models.create("DigitsNet"), tmp_path / "a.safetensors"), repr(name))


def test_infinite_buffers_may_be_meant(tmp_path):
    class Masked(nn.Linear):
        def __init__(self) -> None:
            super().__init__(3, 3)
            self.register_buffer("mask", torch.full((3,), -torch.inf))

    save_file(Masked().state_dict(), tmp_path / "a.safetensors")
    load_weights(Masked(), tmp_path / "a.safetensors")


# -- f: training states ----------------------------------------------------------------------------------------------


def put(name: str, value: torch.Tensor | None) -> Callable[[dict], object]:
    return lambda tensors: tensors.pop(name) if value is None else tensors.update({name: value})


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (put("optimizer.x.y", torch.zeros(1)), "'x' is no integer"),
        (put("optimizer.0", torch.zeros(1)), "'optimizer.0' is no state"),
        (put("optimizer.2.step", torch.zeros([])), "'optimizer.2.step' is no state"),
        (put("optimizer." + "9" * 5000 + ".step", torch.zeros([])), "is no integer"),
        (put("optimizer.0.exp_avg", torch.zeros(7)), "[7], not as its parameter"),
        (put("optimizer.0.exp_avg", torch.zeros([])), "[], not as its parameter"),
        (put("optimizer.0.exp_avg", None), "isn't exp_avg, exp_avg_sq, step"),
        (put("optimizer.0.more", torch.zeros(2, 3)), "isn't exp_avg, exp_avg_sq, step"),
        (put("optimizer.0.exp_avg_sq", torch.full((2, 3), -1.0)), "what no step leaves there"),
        (put("optimizer.0.step", torch.tensor(1e38)), "what no step leaves there"),
        (put("optimizer.0.exp_avg", torch.full((2, 3), torch.inf)), "what no step leaves there"),
        (put("model.weight", torch.full((2, 3), torch.nan)), "holds NaN"),
        (put("model.weight", None), "Missing key"),
    ],
)
def test_training_states(tmp_path, change, complaint):
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    path = tmp_path / "state.safetensors"
    save_state(path, {"model": model}, optimizer, {"done": 1})
    assert load_state(path, {"model": model}, optimizer) == {"done": 1}
    tensors, metadata = read_file(path)
    change(tensors)
    save_file(tensors, path, {"faultsim": json.dumps(metadata)})
    refused(lambda: load_state(path, {"model": model}, optimizer), complaint)


# -- g, k: runs and reports ------------------------------------------------------------------------------------------


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
    import faultsim.voltage_sweep

    out, evaluate = tmp_path / "out", faultsim.voltage_sweep.evaluate

    def losing(*arguments, **options):
        (out / "sweep.json").unlink(missing_ok=True)
        return evaluate(*arguments, **options)

    monkeypatch.setattr(faultsim.voltage_sweep, "evaluate", losing)
    with pytest.raises(SystemExit) as ended:
        main(["sweep-voltage", "--images", "5", "--chips", "2", "--voltages", "0.8,0.9", "--out", str(out)])
    err = capfd.readouterr().err
    assert ended.value.code == 2
    assert f"{out / 'sweep.json'} was removed or replaced while the run went on" in err.splitlines()[-1]


# -- h to j: bodies, topologies, curves ------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["0x" + "f" * 9000, "0x" + "f" * 800, "9" * 4000, "1" * 5000, "-1", "3.0"])
def test_shapes_in_http_bodies(shape):
    body = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (N,), }".replace("N", shape))
    refused(lambda: wire.from_npy(body, wire.IMAGES), "the body is no .npy file")


@pytest.mark.parametrize(
    "body",
    [
        b'{"images": ' + b"[" * 100_000,
        b'{"images": ' + b"9" * 5000 + b"}",
        b'{"images": [1e999]}',
        b'{"images": ["a", "b"]}',
    ],
)
def test_json_in_http_bodies(body):
    refused(lambda: wire.images_from_json(body), "")


def test_arrays_and_topologies(tmp_path, capfd):
    for array in ("9" * 5000 + "x32", "1x" + "9" * 400, "\u0663x3"):
        refused(lambda array=array: parse_array(array), "is no array size", EnergyError)
    path = tmp_path / "a.csv"
    path.write_text("Layer, H, W, R, S, C, F, Stride,\nconv, " + "9" * 5000 + ", 34, 3, 3, 3, 64, 1,\n")
    refused(lambda: read_topology(path), "line 2: sizes have to be positive integers", EnergyError)
    assert "sizes have to be positive integers" in faultsim(capfd, "energy", "--topology", path)
    assert "is no array size" in faultsim(capfd, "energy", "--model", "VGG11", "--array", "9" * 5000)
    for shape in ("\u00b2x3x3", "9" * 5000 + "x3x3"):
        assert "is not an input shape" in faultsim(
            capfd, "energy", "--model", "VGG11", "--input-shape", shape
        )


def test_curves(tmp_path, capfd):
    path, header = tmp_path / "a.csv", "voltage,bit_error_rate,energy_per_access\n"
    path.write_text(header + "1,0,1e308\n0.9,0.1,1e-308\n")
    refused(lambda: VoltageCurve.from_csv(path), "energy 1e-30 to 1e+30")
    assert "energy 1e-30 to 1e+30" in faultsim(capfd, "curve", "--curve", path)
    path.write_text(header + "1,0,1\n" * 1_000_000)
    refused(lambda: VoltageCurve.from_csv(path), "line 10002: more than 10,000 points")


# -- l: a full device ------------------------------------------------------------------------------------------------


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
