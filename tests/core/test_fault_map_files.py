"""Files of fault maps: both formats are exact, bad files are refused."""

import io
import json
import pickle
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given

from faultsim.chips.fault_map import FaultMap
from faultsim.errors import FaultsimError
from faultsim.sram import ArrayGeometry
from tests.core.fault_maps import SMALL, fault_maps


@pytest.mark.parametrize("ending", ["npz", "csv"])
@given(fault_map=fault_maps())
def test_round_trip_is_exact(ending, fault_map, tmp_path):
    path, again = tmp_path / f"a.{ending}", tmp_path / f"b.{ending}"
    fault_map.save(path)
    loaded = FaultMap.load(path)
    assert loaded == fault_map
    loaded.save(again)
    assert again.read_bytes() == path.read_bytes()


def test_the_csv_is_the_documented_one(tmp_path):
    replace(SMALL, source="lab 3").save(tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == (
        "# arrays=4 rows=512 columns=64\n# source: lab 3\nvoltage,array,row,column,stuck_at\n"
        ",0,0,3,\n0.83,0,0,4,0\n0.9,3,511,63,1\n"
    )


def test_a_csv_that_a_person_typed(tmp_path):
    path = tmp_path / "my  chip.csv"
    path.write_text(
        "\n# measured on Monday, arrays=9\nvoltage, array, row, column, stuck_at\n\n0.9 ,3, 511,63,1\r\n"
        "# warmer now\n,0,0,3,-1\n.83,0,0,4,0",
        encoding="utf-8-sig",
    )
    assert FaultMap.load(path) == replace(SMALL, source="my chip.csv")


def test_an_empty_csv_needs_to_say_what_was_measured(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("# arrays=2 columns=16\nvoltage,array,row,column,stuck_at\n")
    loaded = FaultMap.load(path)
    assert (len(loaded), loaded.arrays, loaded.geometry) == (0, 2, ArrayGeometry(512, 16))


HEAD = "voltage,array,row,column,stuck_at\n"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", ": there is no header"),
        ("# arrays=4\n", ": there is no header"),
        (HEAD, ": no cells, and no '# arrays=N'"),
        ("array,row,column\n0,0,0\n", ", line 1: the header must be voltage,array,row,column,stuck_at"),
        (HEAD + "# x\n\n0.8,0,0\n", ", line 4: "),
        (HEAD + "0.8,0,0,0,1,1\n", ", line 2: "),
        (HEAD + "0.8;0;0;0;1\n", ", line 2: "),
        (HEAD + "0.8,0,0,0.5,1\n", ", line 2: "),
        (HEAD + "0.8,,0,0,1\n", ", line 2: "),
        (HEAD + "nan,0,0,0,1\n", ", line 2: "),
        (HEAD + "inf,0,0,0,1\n", ", line 2: "),
        (HEAD + "0.8,99999999999999999999,0,0,1\n", ", line 2: "),
        (HEAD + "0.8,0,0,0,1\n0.8,0,0," + "9" * 6000 + ",1\n", ", line 3: "),
        (HEAD + "0.8,0,0,0,1\n-0.8,0,0,1,1\n", ", line 3: voltage -0.8"),
        (HEAD + "0.8,0,0,0,1\n0.8,0,512,0,1\n", ", line 3: row 512 is outside 0 to 511"),
        (HEAD + "0.8,-1,0,0,1\n", ", line 2: array -1 is outside"),
        ("# arrays=1\n" + HEAD + "0.8,1,0,0,1\n", ", line 3: array 1 is outside 0 to 0"),
        (HEAD + "0.8,0,0,0,2\n", ", line 2: stuck_at 2"),
        (
            HEAD + "0.9,0,5,5,1\n0.8,0,0,0,1\n0.8,0,5,5,1\n",
            ", line 4: array 0, row 5, column 5 was named before",
        ),
        (HEAD + "0.8,4000000000000,0,0,1\n", "at most 1 GiB"),
        ("# arrays=0\n" + HEAD, "at least one array"),
        ("# arrays=999999999\n" + HEAD, "at most 1 GiB"),
        ("# arrays=4 columns=63\n" + HEAD, "columns a multiple of 8"),
        (
            "# lowest_voltage=0.9\n" + HEAD + "0.83,0,0,0,\n",
            "lowest voltage 0.9 must be above 0 and not above",
        ),
        ("# lowest_voltage=low\n" + HEAD, ", line 1: lowest_voltage: 'low' is no number"),
        (HEAD + "0.8,0,1_0,0,1\n", ", line 2: "),
        (HEAD + "0.8,0,\u0661,0,1\n", ", line 2: "),
        (HEAD + "#" + "x" * 70_000 + "\n", ", line 2: more than 65,536 characters"),
    ],
)
def test_bad_csv_names_file_and_line(tmp_path, text, complaint):
    path = tmp_path / "chip.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(FaultsimError, match=r"^fault map .*chip\.csv") as error:
        FaultMap.load(path)
    assert complaint in str(error.value)
    assert len(str(error.value)) <= 300
    assert "\n" not in str(error.value)


class Bomb:
    def __reduce__(self):
        return print, ("unpickled",)


def npz(path, **entries) -> None:
    """A file like those of save(), with changes."""
    meta = {
        "format": "faultsim fault map",
        "version": 1,
        "arrays": 4,
        "rows": 512,
        "columns": 64,
        "source": "",
    }
    meta |= entries.pop("meta", {})
    arrays = {name: getattr(SMALL, name) for name in ("array", "row", "column", "stuck_at", "voltage")}
    np.savez_compressed(path, meta=np.array(json.dumps(meta)), **{**arrays, **entries})


def test_the_helper_above_writes_what_is_read(tmp_path):
    npz(tmp_path / "a.npz")
    assert FaultMap.load(tmp_path / "a.npz") == SMALL


@pytest.mark.parametrize(
    ("entries", "complaint"),
    [
        ({"meta": {"format": "something else"}}, "no fault map of faultsim"),
        ({"meta": {"version": 2}}, "version 2, this faultsim reads version 1"),
        ({"meta": {"arrays": 3}}, "array 3 is outside 0 to 2"),
        ({"meta": {"arrays": "many"}}, "no fault map of faultsim"),
        ({"meta": {"arrays": 10**9}}, "at most 1 GiB"),
        ({"meta": {"columns": 9}}, "columns a multiple of 8"),
        ({"row": np.zeros(3)}, "row must be integers"),
        ({"row": np.zeros(2, int)}, "of one length"),
        ({"row": np.zeros((3, 1), int)}, "of one length"),
        ({"extra": np.zeros(1)}, "no fault map of faultsim"),
        ({"voltage": np.array([Bomb(), 1, 2])}, "no fault map of faultsim"),
        ({"voltage": np.array(["a", "b", "c"])}, "no fault map of faultsim"),
        ({"meta": {"rows": 512.0}}, "no fault map of faultsim"),
        (
            {"meta": {"lowest_voltage": 0.84}},
            "a map's lowest voltage 0.84 must be above 0 and not above that of any",
        ),
        ({"meta": {"lowest_voltage": [0.8]}}, "no fault map of faultsim"),
    ],
)
def test_bad_npz(tmp_path, capsys, entries, complaint):
    path = tmp_path / "chip.npz"
    npz(path, **entries)
    with pytest.raises(FaultsimError, match=r"^fault map .*chip\.npz: ") as error:
        FaultMap.load(path)
    assert complaint in str(error.value)
    assert "unpickled" not in capsys.readouterr().out


def test_truncated_and_damaged_npz(tmp_path):
    path = tmp_path / "chip.npz"
    npz(path)
    whole = path.read_bytes()
    for cut in range(0, len(whole), 41):
        path.write_bytes(whole[:cut])
        with pytest.raises(FaultsimError, match="damaged"):
            FaultMap.load(path)
    rng, refused = np.random.default_rng(0), 0
    for _ in range(100):
        broken = bytearray(whole)
        broken[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        path.write_bytes(broken)
        try:  # a date inside the archive may change without harm; nothing else than FaultsimError may come out
            assert FaultMap.load(path) == SMALL
        except FaultsimError:
            refused += 1
    assert refused > 50


def test_an_archive_that_would_fill_the_memory(tmp_path):
    path = tmp_path / "chip.npz"
    npz(path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            with archive.open(name, "w", force_zip64=True) as file:
                file.write(data)
                if name == "row.npy":
                    for _ in range(300):
                        file.write(bytes(1 << 20))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(FaultsimError, match=r"more than 33,554,432 cells"):
        FaultMap.load(path)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<i4", "fortran_order": False, "shape": (10**13,)})
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {**entries, "row.npy": header.getvalue()}.items():
            archive.writestr(name, data)
    with pytest.raises(FaultsimError, match="damaged"):
        FaultMap.load(path)


@pytest.mark.parametrize("ending", ["npz", "csv"])
@pytest.mark.parametrize(
    "content",
    [pickle.dumps(Bomb()), b"\x93NUMPY\x01\x00", b"\xff\xfe\x00\x01" * 9, b"PK\x05\x06" + bytes(18)],
)
def test_foreign_files(tmp_path, capsys, ending, content):
    path = tmp_path / f"chip.{ending}"
    path.write_bytes(content)
    with pytest.raises(FaultsimError, match=r"^fault map .*chip\."):
        FaultMap.load(path)
    assert capsys.readouterr().out == ""


def test_files_that_are_not_there_or_have_no_format(tmp_path):
    for path, complaint in (
        ("none.npz", "no such file"),
        ("none.csv", "no such file"),
        ("none.txt", "must end in .npz or .csv"),
        ("none", "must end in .npz or .csv"),
    ):
        with pytest.raises(FaultsimError, match=complaint):
            FaultMap.load(tmp_path / path)
    with pytest.raises(FaultsimError, match=r"must end in \.npz or \.csv"):
        SMALL.save(tmp_path / "a.json")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(FaultsimError, match="no such file"):
        FaultMap.load(tmp_path / "folder.csv")
    assert [p.name for p in tmp_path.iterdir()] == ["folder.csv"]
