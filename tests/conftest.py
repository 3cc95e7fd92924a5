"""What all suites share: GPU tests, slow tests, the engines that run the kernel, and Hypothesis profiles."""

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


SLOW = (
    "packaging/test_gpu_training.py",
    "cli/test_reproduce_cli.py",
    "neuralfuse/test_train_generator.py",
    "neuralfuse/test_staged.py",
    "neuralfuse/test_distributed.py",
    "packaging/test_gpu_check.py",
    "packaging/test_import.py",
    "packaging/test_build.py",
    "core/test_cuda_logic_on_cpu.py",
    "core/test_draw_has_no_floats.py",
    "cli/test_sweep.py",
    "torch/test_ops.py",
    "report/test_report_browser.py",
    "packaging/test_site.py",
    "neuralfuse/test_reproduce_run.py",
    "torch/test_robust_training.py",
    "neuralfuse/test_full_paper.py",
    "packaging/test_tables.py",
    "packaging/test_extras.py",
    "packaging/test_readme.py",
    "packaging/test_types.py",
    "recorded/test_recorded.py",
    "cluster/test_failures.py",
    "cluster/test_studies.py",
    "fuzz/test_fuzz.py",
    "cli/test_outputs_tell.py",
    "cli/test_files_and_pictures.py",
    "cli/test_tables_fit.py",
    "cli/test_sweep_groups.py",
    "cli/test_sweep_options.py",
    "cli/test_generator_cli.py",
    "cli/test_own_data.py",
    "cli/test_own_data_refused.py",
    "cli/test_blackbox_cli.py",
    "cli/test_format_options.py",
    "neuralfuse/test_shipped_generator.py",
    "neuralfuse/test_reproduce_costs.py",
    "energy/test_engines.py",
    "torch/test_ops_resources.py",
    "torch/test_transformers.py",
    "statistical/test_rates.py",
    "statistical/test_precision.py",
)
"""Files that train, compile, start programs or draw many samples, the longest first. `make test-fast` leaves them out;
`make test` begins with them, so that no process is left with a long one at the end. packaging/test_types.py reads what
`make lint` has found by then."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    if missing := [name for name in SLOW if not (here / name).is_file()]:
        raise pytest.UsageError(
            f"tests/conftest.py: SLOW names files that are not there: {', '.join(missing)}"
        )
    rank = {here / name: number for number, name in enumerate(SLOW)}
    for item in items:
        if item.path in rank:
            item.add_marker("slow")
    items.sort(key=lambda item: rank.get(item.path, len(SLOW)))


def _why_no_cuda() -> str | None:
    import torch

    from faultsim.kernel.native import native

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
    from faultsim.kernel import ops

    if request.param == "cuda":
        yield Engine("cuda", "cuda")
        return
    if request.param not in ops.list_cpu_paths():
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
