"""What the tests of the commands share: sweeps in this process and in one of their own, other commands, and modules
of the user's."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from faultsim.cli import main
from faultsim.data import load
from tests.cli.small_files import CURVE, PICOJOULES
from tests.forked import FAULTSIM, Done, Forked


@pytest.fixture(scope="session")
def start() -> Callable[..., Forked]:
    """start(options) -> a sweep in a process of its own."""
    return lambda *options, **settings: Forked(FAULTSIM, ["sweep-voltage", *options], **settings)


@pytest.fixture(scope="session")
def finish() -> Callable[[Forked], tuple[int, str, str]]:
    """finish(process) -> its exit status, stdout and stderr."""

    def wait(process: Forked) -> tuple[int, str, str]:
        done = Done.of(process)
        return done.status, done.out, done.err

    return wait


@pytest.fixture
def sweep(capfd: pytest.CaptureFixture[str]) -> Callable[..., dict]:
    """sweep(options) -> the JSON of a sweep, in this process."""

    def run(*options: object) -> dict:
        with pytest.raises(SystemExit) as ended:
            main(["sweep-voltage", *map(str, options), "--json"])
        out, err = capfd.readouterr()
        assert not ended.value.code, err
        return json.loads(out)

    return run


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """refused(options) -> the one line that a sweep says, in this process, before it ends with status 2."""

    def run(*options: object) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["sweep-voltage", *map(str, options)])
        out, err = capfd.readouterr()
        assert ended.value.code == 2
        assert out == ""
        assert err.startswith("faultsim: error: ")
        assert err.count("\n") == 1
        assert err.endswith("\n")
        return err.strip()

    return run


OWN = """
import torch
from torch import nn


def known():
    '''Says 7 as long as its one weight is right, and 3 when it is not: pixel 0 of every digit is black, -1.'''
    layer = nn.Linear(3 * 32 * 32, 10)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[3, 0] = 1
        layer.bias.zero_()
        layer.bias[3], layer.bias[7] = 1.0, 0.5
    return nn.Sequential(nn.Flatten(), layer)


class Fails(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 10)

    def forward(self, x):
        return self.layer(x)


class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 10, 1)

    def forward(self, x):
        return self.layer(x)


def raises():
    raise RuntimeError("first line\\nsecond line")


def text():
    return "a model"


no_weights = nn.Flatten
few = lambda: nn.Sequential(nn.Flatten(), nn.Linear(3072, 4))
number = 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, the current one, with a module of the user's."""
    (tmp_path / "sweep_own_model.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("sweep_own_model", None)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, the current one, with own_data_module.py."""
    shutil.copy(Path(__file__).with_name("own_data_module.py"), tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("own_data_module", None)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """(exit status, stdout, stderr) of a command, where @name stands for a name of own_data_module."""

    def call(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(word).replace("@", "own_data_module:") for word in words])
        out, err = capfd.readouterr()
        return ended.value.code or 0, out, err

    return call


@pytest.fixture
def call(capsys, tmp_path, monkeypatch) -> Callable[..., tuple[int, str, str]]:
    """(exit status, stdout, stderr) of a command in a folder with a few files."""
    monkeypatch.chdir(tmp_path)
    np.save("w.npy", np.arange(5000, dtype=np.int32).astype(np.int8))
    Path("c.csv").write_text(CURVE)
    Path("pj.csv").write_text(PICOJOULES)

    def run(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main([*map(str, words)])
        return end.value.code or 0, *capsys.readouterr()

    return run


@pytest.fixture
def rejected(call) -> Callable[..., str]:
    """The one line with which a command ends; nothing was written."""

    def run(*words: object) -> str:
        before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
        status, out, err = call(*words)
        assert (status, out, err.count("\n")) == (2, "", 1), err
        assert err.startswith("faultsim: error: ")
        assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before
        return err

    return run


@pytest.fixture(scope="module")
def few_images() -> Iterator[None]:
    """Training on 60 digits; the test images are all there."""

    def some(name: str, split: str, data_dir: Path | None):
        data = load(name, split, data_dir)
        return data.subset(torch.arange(60)) if split == "train" else data

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("faultsim.data.load", some)
        yield
