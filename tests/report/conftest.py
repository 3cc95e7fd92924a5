"""Real run directories, made once: a small sweep with a generator and a small run of `reproduce`; and a browser."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from faultsim import save_weights
from faultsim.cli import main
from faultsim.data import digits

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


def _command(*arguments: object) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so little work is done sooner by one, on machines that others use too
    try:
        with pytest.raises(SystemExit) as ended:
            main([*map(str, arguments)])
    finally:
        torch.set_num_threads(threads)
    assert not ended.value.code


@pytest.fixture(scope="session")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a sweep of the shipped model, alone and behind a generator that never learned anything."""
    from neuralfuse import generators

    folder = tmp_path_factory.mktemp("sweep")
    torch.manual_seed(0)
    save_weights(folder / "convs.safetensors", generators.create("ConvS"), {"generator": "ConvS"})
    options = (
        "--voltages",
        "0.8,0.83,0.86,0.95",
        "--images",
        25,
        "--chips",
        3,
        "--seed",
        5,
        "--device",
        "cpu",
    )
    _command(
        "sweep-voltage", *options, "--generator", folder / "convs.safetensors", "--out", folder / "sweep"
    )
    return folder / "sweep"


@pytest.fixture(scope="session")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of `reproduce table1 --smoke` on 16 digits."""
    folder = tmp_path_factory.mktemp("reproduce") / "run"
    whole = digits.load_digits
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digits, "load_digits", lambda split: whole(split).subset(torch.arange(16)))
        few = ("--base-epochs", 2, "--epochs", 2, "--n-models", 1, "--device", "cpu")
        _command("reproduce", "table1", "--smoke", "--generator", "ConvS", *few, "--out", folder)
    return folder


@pytest.fixture
def report(capsys: pytest.CaptureFixture[str]) -> Callable[..., SimpleNamespace]:
    """report(arguments) -> exit status, stdout and stderr of `faultsim report`."""

    def run(*arguments: object) -> SimpleNamespace:
        with pytest.raises(SystemExit) as ended:
            main(["report", *map(str, arguments)])
        out, err = capsys.readouterr()
        return SimpleNamespace(status=ended.value.code or 0, out=out, err=err)

    return run


@pytest.fixture(scope="session")
def chromium() -> str:
    """The program; tests that need it skip where it is missing, but fail where FAULTSIM_REQUIRE_CHROMIUM=1, as in CI,
    which installs it."""
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        reason = "no Chromium is installed (on Debian: apt-get install chromium)"
        if os.environ.get("FAULTSIM_REQUIRE_CHROMIUM") == "1":
            pytest.fail(f"FAULTSIM_REQUIRE_CHROMIUM=1, but {reason}", pytrace=False)
        pytest.skip(reason)
    return found


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator:
    """A headless one with a new, empty profile."""
    from playwright.sync_api import sync_playwright

    options = "--disable-gpu --disable-quic --no-first-run --disable-background-networking"
    options += " --no-sandbox --disable-component-update --disable-sync"
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, headless=True, args=options.split())
        yield launched
        launched.close()
