"""Can a pickled batch do anything but hold an image array, labels and names?"""

import contextlib
import os
import pickle
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faultsim.data.unpickle import unpickle
from faultsim.errors import FaultsimError

ARRAY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
UINT8 = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"


def in_dictionary(value: bytes) -> bytes:
    return b"\x80\x02}U\x04data" + value + b"s."


def array(shape: bytes, dtype: bytes = UINT8, fortran: bytes = b"\x89", raw: bytes = b"U\x06abcdef") -> bytes:
    return in_dictionary(ARRAY + b"(K\x01" + shape + dtype + fortran + raw + b"tb")


def test_arrays_in_both_orders():
    values = unpickle(array(b"K\x02K\x03\x86"), "file")["data"]
    assert values.tolist() == [list(b"abc"), list(b"def")]
    values = unpickle(array(b"K\x02K\x03\x86", fortran=b"\x88"), "file")["data"]
    assert values.tolist() == [list(b"ace"), list(b"bdf")]


def test_both_homes_of_numpys_constructor():
    newer = array(b"K\x02K\x03\x86").replace(b"numpy.core", b"numpy._core")
    assert unpickle(newer, "file")["data"].shape == (2, 3)


def test_a_copy_written_by_python_3_is_read_too():
    batch = {b"labels": [3, 300, -1, 70000], "data": b"bytes", b"flag": True, b"none": None}
    assert unpickle(pickle.dumps(batch, protocol=3), "file") == {
        "labels": [3, 300, -1, 70000],
        "data": b"bytes",
        "flag": True,
        "none": None,
    }


class Evil:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(6))
def test_nothing_is_ever_called(tmp_path, protocol):
    victim = tmp_path / "made"
    for evil in (
        Evil(os.mkdir, str(victim)),
        Evil(eval, f"open({str(victim)!r}, 'w')"),
        Evil(np.load, str(victim)),
        Evil(np.memmap, str(victim), "uint8", "w+", 0, (10,)),
    ):
        with pytest.raises(FaultsimError, match="bad_batch is not a whole official CIFAR batch, refused"):
            unpickle(pickle.dumps({b"data": evil}, protocol=protocol), "bad_batch")
    assert not victim.exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (in_dictionary(b"cos\nsystem\n"), "names os.system"),
        (in_dictionary(b"cnumpy\nload\n"), "names numpy.load"),
        (in_dictionary(b"cnumpy.core.multiarray\nndarray\n"), "names numpy.core.multiarray.ndarray"),
        (b"(U\x02lsios\nsystem\n.", "unexpected INST"),
        (b"\x80\x02\x82\x01.", "unexpected EXT1"),
        (b"\x80\x02U\x01xQ.", "unexpected BINPERSID"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "unexpected"),
        (b"\x80\x02}G" + bytes(8) + b"K\x01s.", "unexpected BINFLOAT"),
        (b"\x80\x02].", "not a dictionary"),
        (b"\x80\x02}", ""),
        (b"", ""),
        (b"not a pickle at all", ""),
        (array(b"K\x02K\x04\x86"), r"shape \(2, 4\) with 6 bytes"),
        (array(b"J\xff\xff\xff\xffK\x06\x86"), "shape"),
        (array(b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86"), "shape"),
        (array(b"K\x02K\x03\x86", dtype=UINT8.replace(b"U\x02u1", b"U\x01O")), "not uint8"),
        (array(b"K\x02K\x03\x86", dtype=UINT8.replace(b"u1", b"i4")), "not uint8"),
        (array(b"K\x02K\x03\x86", dtype=b"N"), "another type"),
        (array(b"K\x02K\x03\x86", raw=b"]"), "another type"),
        (in_dictionary(ARRAY.replace(b"numpy\nndarray", b"numpy\ndtype")), "where an array is expected"),
        (in_dictionary(ARRAY + b"K\x01b"), ""),
    ],
)
def test_everything_else_is_refused_in_one_line(content, reason):
    with pytest.raises(FaultsimError, match=f"^bad_batch is not a whole .*{reason}") as caught:
        unpickle(content, "bad_batch")
    assert "\n" not in str(caught.value)


def test_bombs_are_refused_before_they_go_off():
    # 34 GB for the memo table; a tuple nested so deeply that hashing it overflows the stack.
    for bomb in (
        b"\x80\x02}r" + struct.pack("<I", 2**31 - 1) + b".",
        b"\x80\x02}K\x01" + b"\x85" * 1_000_000 + b"K\x01s.",
    ):
        with pytest.raises(FaultsimError, match="unexpected"):
            unpickle(bomb, "bad_batch")


def read_or_refused(content):
    """Any other exception fails the test."""
    with contextlib.suppress(FaultsimError):
        assert isinstance(unpickle(content, "file"), dict)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(content):
    read_or_refused(content)


@given(st.data())
def test_one_changed_byte_is_read_or_refused(data):
    content = bytearray(array(b"K\x02K\x03\x86"))
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] = data.draw(st.integers(0, 255))
    read_or_refused(bytes(content))
