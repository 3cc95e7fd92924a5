"""Reading the pickled CIFAR batches without running anything that a pickle may ask for.

The official files are Python 2 pickles of protocol 2: a dictionary of strings, integers, lists and one uint8
array. Three fences keep everything else out: only the opcodes that such a file needs, only the three NumPy
names that an array is written with, and stand-ins instead of NumPy's own functions behind those names.
"""

import io
import math
import pickle
import pickletools

import numpy as np

from ..errors import FaultsimError
from ..io.bounds import are_integers

_PLAIN = {
    "PROTO", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2",
    "SHORT_BINSTRING", "BINSTRING", "SHORT_BINBYTES", "BINBYTES", "BINUNICODE",
    "APPEND", "APPENDS", "SETITEM", "SETITEMS", "BINGET", "LONG_BINGET",
}  # fmt: skip
_MEMO = {"BINPUT", "LONG_BINPUT"}
# One array takes about ten of these. The limit keeps a file from nesting tuples until the stack overflows.
_STRUCTURAL = {"GLOBAL", "REDUCE", "BUILD", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}
_MOST_STRUCTURAL = 32
# So are lists and dictionaries; an official file has five of them.
_CONTAINERS = {"EMPTY_LIST", "EMPTY_DICT"}
_MOST_CONTAINERS = 32
_MOST_OPCODES = 1_000_000  # CIFAR-100's training batch has 300,000
_MOST_DIMENSIONS = 4


class _Array:
    """Stands in for numpy.ndarray: takes the state of a uint8 array, nothing else."""

    def __setstate__(self, state):
        _version, shape, dtype, fortran, raw = state
        if not (isinstance(dtype, _Dtype) and isinstance(raw, bytes) and isinstance(shape, tuple)):
            raise pickle.UnpicklingError("an array of another type than uint8")
        if len(shape) > _MOST_DIMENSIONS:
            raise pickle.UnpicklingError(f"an array of {len(shape):,} dimensions")
        if not are_integers(shape, 0, 2**31 - 1) or math.prod(shape) != len(raw):
            raise pickle.UnpicklingError(f"an array of shape {shape} with {len(raw)} bytes")
        self.values = np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran else "C")


class _Dtype:
    """Stands in for numpy.dtype: admits one byte without sign."""

    def __init__(self, code, *_):
        if code not in (b"u1", "u1"):
            raise pickle.UnpicklingError(f"an array of type {code!r}, not uint8")

    def __setstate__(self, state):
        """Byte order and the like, which mean nothing for single bytes."""


def _reconstruct(kind, *_):
    if kind is not _Array:
        raise pickle.UnpicklingError(f"a {kind!r} where an array is expected")
    return _Array()


_ADMITTED = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return _ADMITTED[module, name]


def _check_opcodes(content: bytes) -> None:
    structural = containers = 0
    for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        if count >= _MOST_OPCODES:
            raise pickle.UnpicklingError(f"it holds more than {_MOST_OPCODES:,} values")
        if opcode.name in _MEMO:
            # The memo is a table as long as its highest index; a pickler never skips one.
            admitted = argument is not None and argument <= count
        elif opcode.name in _STRUCTURAL:
            structural += 1
            admitted = structural <= _MOST_STRUCTURAL
        elif opcode.name in _CONTAINERS:
            containers += 1
            admitted = containers <= _MOST_CONTAINERS
        else:
            admitted = opcode.name in _PLAIN
        if not admitted:
            raise pickle.UnpicklingError(f"it holds an unexpected {opcode.name}")


def unpickle(content: bytes, where: str) -> dict[str, object]:
    """Read the dictionary in a pickled CIFAR file: {key: int, bytes, str, list, or uint8 array}.

    `where` names the file in messages. FaultsimError for what the official files do not hold.
    """
    try:
        _check_opcodes(content)
        value = _Unpickler(io.BytesIO(content), encoding="bytes").load()
        if not isinstance(value, dict) or not all(isinstance(key, bytes | str) for key in value):
            raise pickle.UnpicklingError("it is not a dictionary of strings")
        return {
            key.decode("latin1") if isinstance(key, bytes) else key: (
                item.values if isinstance(item, _Array) else item
            )
            for key, item in value.items()
        }
    except Exception as error:  # the unpickler may fail in many ways on foreign bytes
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise FaultsimError(f"{where} is not a whole official CIFAR batch, refused: {reason}") from None
