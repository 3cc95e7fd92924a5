"""How large, deep and long what a file says may be, looked at before it is parsed.

Files come from anywhere. Readers take their bytes, JSON and numbers from here: what is beyond a bound is a ValueError
of one short sentence, which the reader puts into its own.
"""

import ast
import json
import math
import os
import re
import stat
from collections.abc import Iterable
from itertools import accumulate
from pathlib import Path
from typing import IO, Any

MOST_JSON = 16 << 20  # bytes
MOST_DEPTH = 32  # of lists and objects in one another
MOST_DIGITS = 100  # in a row
MOST_STRINGS = 500_000
MOST_HEADER = 1024  # bytes of a .npy header; NumPy writes 128

_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_NOT_BRACKETS = bytes(set(range(256)) - _STEPS.keys())
_LONG = re.compile(rb"[0-9]{%d}" % (MOST_DIGITS + 1))
_LARGE = re.compile(rb"[0-9.][eE]\+?[0-9]{3}")  # only such a number can be beyond a float
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,100}\.?[0-9]{0,100}|\.[0-9]{1,100})(?:[eE][+-]?[0-9]{1,4})?")
_TOKEN = re.compile(rb"[0-9A-Za-z_]{20}")


def read_bytes(path: str | Path, most: int) -> bytes:
    """Read the whole of a regular file.

    OSError as open() raises it; ValueError for more than `most` bytes, and for a pipe or device, which may never end.
    """
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is no regular file")
        if status.st_size > most:
            raise ValueError(f"it is larger than {most:,} bytes")
        content = file.read(status.st_size + 1)  # asking for `most` would allocate as many
    if len(content) > status.st_size:
        raise ValueError("it grew while it was read")
    return content


def read_text(path: str | Path, most: int) -> str:
    """Read a file as UTF-8, without its byte order mark; ValueError for other bytes."""
    try:
        return read_bytes(path, most).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("it is no text") from None


def parse_json(text: str | bytes | bytearray, most: int = MOST_JSON, depth: int = MOST_DEPTH) -> Any:
    """Parse a JSON text of at most `most` bytes.

    ValueError for more than `depth` lists and objects in one another, MOST_DIGITS digits in a row or MOST_STRINGS
    strings, for numbers that are not finite, and for what is no JSON.
    """
    if isinstance(text, str):
        text = text.encode("utf-8", "surrogatepass")
    if len(text) > most:
        raise ValueError(f"JSON of more than {most:,} bytes")
    if text.count(b'"') > 2 * MOST_STRINGS:
        raise ValueError(f"JSON of more than {MOST_STRINGS:,} strings")
    bare = b"".join(text.replace(rb"\\", b"").replace(rb"\"", b"").split(b'"')[::2])  # without its strings
    if max(accumulate(map(_STEPS.__getitem__, bare.translate(None, _NOT_BRACKETS))), default=0) > depth:
        raise ValueError(f"JSON with more than {depth} brackets in one another")
    if _LONG.search(bare):
        raise ValueError(f"a number of more than {MOST_DIGITS} digits")
    try:
        return json.loads(
            bytes(text).decode(),
            parse_float=_finite if _LARGE.search(bare) else None,  # a function a number takes time
            parse_constant=_finite,
        )
    except UnicodeDecodeError:
        raise ValueError("it is no text") from None


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is no finite number")
    return value


def parse_integer(text: str) -> int:
    """Parse an integer of at most 18 decimal digits: it fits into 64 bits. ValueError for anything else."""
    if not _INTEGER.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is no integer of at most 18 digits")
    return int(text)


def parse_number(text: str) -> float:
    """Parse a finite decimal number; ValueError for anything else."""
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is no number")
    return _finite(text)


def are_integers(values: Iterable[object], least: int, most: int) -> bool:
    """Whether all are integers (true and false are none) within [least, most]."""
    return all(type(value) is int and least <= value <= most for value in values)


def read_npy_header(file: IO[bytes]) -> tuple[str, tuple[int, ...], bool]:
    """Read the header of a .npy file of format 1.0 or 2.0, and leave the file at its data.

    Returns
    -------
    tuple[str, tuple[int, ...], bool]
        Type, such as "<f4"; shape; whether in Fortran order.

    Raises
    ------
    ValueError
        For anything else, and for sizes that are not below 2**63.
    """
    begin = file.read(8)
    width = {b"\x93NUMPY\x01\x00": 2, b"\x93NUMPY\x02\x00": 4}.get(begin)
    length = int.from_bytes(file.read(width or 0), "little")
    header = file.read(min(length, MOST_HEADER))
    if width is None or len(header) != length or _TOKEN.search(header) or header.count(b"(") > 1:
        raise ValueError("it has no header of a .npy file of format 1.0 or 2.0")
    try:
        found = ast.literal_eval(header.decode("latin1").strip())
        kind, shape, by_columns = (found.pop(key) for key in ("descr", "shape", "fortran_order"))
        fits = (
            not found and isinstance(kind, str) and isinstance(by_columns, bool) and isinstance(shape, tuple)
        )
    except Exception:  # Python's parser may fail in many ways on foreign text
        fits = False
    if not fits or not are_integers(shape, 0, 2**63 - 1):
        raise ValueError("it has no header of a .npy file of format 1.0 or 2.0")
    return kind, shape, by_columns
