"""What is let through to the parsers, and how long a line gets."""

import io
import json
import os
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from energy import EnergyError
from faultsim.errors import FaultsimError, shorten
from faultsim.io.bounds import parse_integer, parse_json, parse_number, read_bytes, read_npy_header, read_text

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**90), 10**90)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(values)
def test_ordinary_json_is_what_it_is_elsewhere(value):
    assert parse_json(json.dumps(value)) == value
    assert (
        parse_json(
            json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass").decode("utf-8", "replace")
        )
        is not ...
    )


@given(st.integers(1, 60), st.text())
def test_depth_is_counted_as_it_is(depth, text):
    nested = json.dumps(text)
    for level in range(depth):
        nested = f"[{nested}]" if level % 2 else f'{{"[[": {nested}}}'
    if depth <= 32:
        parse_json(nested)
    else:
        with pytest.raises(ValueError, match="more than 32 brackets"):
            parse_json(nested)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b"[" * 8_000_000, "brackets"),
        (b'{"a":' * 400_000, "brackets"),
        (b'"' + b'\\"' * 4_000_000, "strings"),
        (b'""' * 8_000_000, "strings"),
        (b"[],[]" * 1_000_000, "Extra data"),
        (b"[" + b"9" * 101 + b"]", "more than 100 digits"),
        (b"9" * 8_000_000, "more than 100 digits"),
        (b"1e999", "1e999 is no finite number"),
        (b"-Infinity", "no finite number"),
        (b"[NaN]", "no finite number"),
        (b" " * 17_000_000, "more than 16,777,216 bytes"),
        (b"\xff", "no text"),
        (b"", "Expecting value"),
    ],
    ids=range(13),
)
def test_json_is_bounded_before_it_is_parsed(text, complaint):
    began = time.process_time()
    with pytest.raises(ValueError, match=complaint):
        parse_json(text)
    assert time.process_time() - began < 4


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(-(10**18) + 1, 10**18 - 1))
def test_numbers_are_themselves(number, integer):
    assert parse_number(repr(number)) == number
    assert parse_integer(str(integer)) == integer


@pytest.mark.parametrize(
    "text",
    ["", " 1", "1_0", "0x10", "nan", "inf", "1e400", "\u0661", "9" * 5000, "1e99999", "--1", "1.", "+.5"],
)
def test_odd_numbers(text):
    if text in ("1.", "+.5"):
        assert parse_number(text) == float(text)
    else:
        with pytest.raises(ValueError, match="number"):
            parse_number(text)
    with pytest.raises(ValueError, match="no integer"):
        parse_integer(text)


def test_files_are_bounded(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"\xef\xbb\xbfabc")
    assert (read_bytes(path, 6), read_text(path, 6)) == (b"\xef\xbb\xbfabc", "abc")
    with pytest.raises(ValueError, match="larger than 5 bytes"):
        read_bytes(path, 5)
    os.mkfifo(tmp_path / "pipe")
    for odd in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(ValueError, match="no regular file"):
            read_bytes(odd, 5)
    with pytest.raises(FileNotFoundError):
        read_bytes(tmp_path / "nothing", 5)
    with pytest.raises(OSError, match="directory"):
        read_bytes(tmp_path, 5)


@given(st.sampled_from(["<f4", "<i8", "|u1"]), st.lists(st.integers(0, 9), max_size=5), st.booleans())
def test_headers_of_numpy_are_read(kind, shape, by_columns):
    file = io.BytesIO()
    np.lib.format.write_array(file, np.zeros(shape, kind, order="F" if by_columns else "C"))
    expected = np.lib.format.read_array_header_1_0(io.BytesIO(file.getvalue()[8:]))
    file.seek(0)
    assert read_npy_header(file) == (expected[2].str, expected[0], expected[1])


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<i4', 'fortran_order': False, 'shape': (3",
        "{'descr': '<i4', 'fortran_order': False, 'shape': (" + "9" * 4000 + ",)}",
        "{'descr': '<i4', 'fortran_order': False, 'shape': (0x" + "f" * 9000 + ",)}",
        "{'descr': '<i4', 'fortran_order': False, 'shape': (0x" + "f" * 700 + ",)}",
        "{'descr': '<i4', 'fortran_order': False, 'shape': (-1,)}",
        "{'descr': '<i4', 'fortran_order': False, 'shape': (True,)}",
        "{'descr': '<i4', 'fortran_order': False, 'shape': 3}",
        "{'descr': [('a', '<i4')], 'fortran_order': False, 'shape': (3,)}",
        "{'descr': '<i4', 'fortran_order': 0, 'shape': (3,)}",
        "{'descr': '<i4', 'fortran_order': False, 'shape': (3,), 'more': 1}",
        "(" * 900,
        "[" * 900,
        "7",
        "",
    ],
)
def test_headers_that_are_none(header):
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
    with pytest.raises(ValueError, match=r"no header of a \.npy file"):
        read_npy_header(io.BytesIO(content))


@given(st.text(max_size=2000))
def test_errors_are_one_line_of_at_most_300_characters(text):
    for error in (FaultsimError(text), EnergyError(text)):
        assert len(f"faultsim: error: {error}") <= 300
        assert str(error).isprintable()
    short = "".join(c for c in text if c.isprintable()).strip()[:280]
    assert str(FaultsimError(short)) == short


def test_a_long_line_keeps_its_beginning_and_end():
    line = shorten("the file /a/" + "b" * 1000 + " is damaged: move it away")
    assert line.startswith("the file /a/bbb")
    assert line.endswith("bbb is damaged: move it away")
    assert len(line) == 280
