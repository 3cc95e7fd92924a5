"""What a refusal is: one line, soon, by a function of Python or a command."""

import struct
import time
from collections.abc import Callable

import pytest

from faultsim.cli import main
from faultsim.errors import FaultsimError


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


def npy(header: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()
