"""Clusters on this machine. All of it skips where the extra `cluster` is not installed; `packaging/test_extras.py` says
what a user sees then."""

from collections.abc import Iterator

import pytest

from faultsim import Subject, load_subject

distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="session")
def in_process() -> Iterator["distributed.Client"]:
    """Three workers in this process."""
    cluster = distributed.LocalCluster(
        n_workers=3, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0", silence_logs=50
    )
    with cluster, distributed.Client(cluster) as client:
        yield client


@pytest.fixture(scope="session")
def processes() -> Iterator["distributed.Client"]:
    """Two worker processes on loopback, which are started again when they die."""
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0", silence_logs=50
    )
    with cluster, distributed.Client(cluster) as client:
        yield client


@pytest.fixture(scope="session")
def subject() -> Subject:
    """The bundled DigitsNet on a few images."""
    return load_subject(images=40)
