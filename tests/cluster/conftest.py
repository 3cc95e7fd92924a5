"""Clusters on this machine. Tests that need one skip where the extra `cluster` is not installed;
`packaging/test_extras.py` says what a user sees then."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from faultsim import Subject, load_subject

if TYPE_CHECKING:
    from distributed import Client


@pytest.fixture(scope="session")
def in_process() -> Iterator["Client"]:
    """Three workers in this process."""
    distributed = pytest.importorskip("distributed")
    cluster = distributed.LocalCluster(
        n_workers=3, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0", silence_logs=50
    )
    with cluster, distributed.Client(cluster) as client:
        yield client


@pytest.fixture(scope="session")
def processes() -> Iterator["Client"]:
    """Two worker processes on loopback, which are started again when they die; on a busy machine that takes longer than
    Dask waits for them."""
    distributed = pytest.importorskip("distributed")
    import dask

    patient = dask.config.set({"distributed.deploy.lost-worker-timeout": "10 minutes"})
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0", silence_logs=50
    )
    with patient, cluster, distributed.Client(cluster) as client:
        yield client


@pytest.fixture(scope="session")
def subject() -> Subject:
    """The bundled DigitsNet on a few images."""
    return load_subject(images=40)
