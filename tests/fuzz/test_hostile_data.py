"""Are damaged fault maps, images, topologies, curves and HTTP bodies refused in one clear line?"""

import io
import json
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from energy import EnergyError, read_topology
from energy.accelerator import parse_array
from faultsim.chips.chip_map import find_failing_cells
from faultsim.chips.fault_map import FaultMap
from faultsim.data.cifar import load_cifar
from faultsim.data.unpickle import unpickle
from faultsim.faults import Chip
from faultsim.voltage import VoltageCurve
from neuralfuse.blackbox import wire
from tests.fuzz.refusals import faultsim, npy, refused

# -- fault maps ---------------------------------------------------------------------------------------------------


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


# -- images ----------------------------------------------------------------------------------------------------

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


# -- bodies, topologies, curves ------------------------------------------------------------------------------


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
