"""What all suites share: GPU tests, the engines that run the kernel, and Hypothesis profiles."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# No deadline: machines that run this are shared. In CI the same examples every time: a red run can be repeated.
_UNCHECKED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
_COMMON = {"deadline": None, "suppress_health_check": _UNCHECKED}
settings.register_profile("default", max_examples=30, **_COMMON)
settings.register_profile("ci", max_examples=30, derandomize=True, **_COMMON)
settings.register_profile("long", max_examples=2000, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "default"))


def _why_no_cuda() -> str | None:
    import torch

    from faultsim.native import native

    if not torch.cuda.is_available():
        return "torch finds no GPU"
    return None if native().built_with_cuda() else "this build of faultsim has no CUDA kernels"


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("cuda") is None or (reason := _why_no_cuda()) is None:
        return
    if os.environ.get("FAULTSIM_REQUIRE_CUDA") == "1":
        pytest.fail(f"FAULTSIM_REQUIRE_CUDA=1, but {reason}", pytrace=False)
    pytest.skip(reason)


CUDA = pytest.param("cuda", marks=pytest.mark.cuda)


@pytest.fixture(params=["cpu", CUDA])
def device(request: pytest.FixtureRequest) -> str:
    """Each device that the operators run on."""
    return request.param


@dataclass(frozen=True)
class Engine:
    """One implementation of the kernel, driven through the real operators."""

    name: str
    device: str

    def __str__(self) -> str:
        return self.name


@pytest.fixture(params=["portable", "avx2", "avx512", CUDA])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Each CPU path that this processor can run, and CUDA: the operators use it while the test runs."""
    from faultsim import ops

    if request.param == "cuda":
        yield Engine("cuda", "cuda")
        return
    if request.param not in ops.cpu_paths():
        pytest.skip(f"this processor has no {request.param}")
    with ops.use_cpu_path(request.param):
        yield Engine(request.param, "cpu")


@pytest.fixture
def threads() -> Callable[[int], None]:
    """Sets torch's thread count for the length of the test."""
    import torch

    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def vectors() -> Callable[[str], list[list[str]]]:
    """Rows of a known-answer file in tests/vectors, split at blanks; # begins a comment."""

    def read(name: str) -> list[list[str]]:
        lines = (Path(__file__).parent / "vectors" / name).read_text(encoding="utf-8").splitlines()
        return [line.split() for line in lines if line.strip() and not line.startswith("#")]

    return read
