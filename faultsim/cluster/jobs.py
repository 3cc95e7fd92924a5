"""One job: a named function with JSON arguments. What runs on a worker begins here."""

import importlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import FaultsimError
from .files import MissingFile


@dataclass(frozen=True)
class Job:
    """What one worker does at a time."""

    name: str
    """What it is, in words."""
    function: str
    """A function that workers can import, as package.module:function. It returns JSON values."""
    arguments: Mapping[str, Any]
    """Its keyword arguments, JSON values."""


@dataclass(frozen=True)
class Done:
    """A job that came to its end."""

    job: Job
    result: Any
    """What its function returned; None where it failed."""
    worker: str
    """Address of the worker; empty where it failed."""
    seconds: float
    """That its function took."""
    failure: str | None = None
    """Why it failed, in one line."""
    killed: bool = False
    """Whether its workers died."""
    missing: str | None = None
    """Checksum of a file that the worker needs first: the job has not ended then."""
    lost: bool = False
    """Whether its result died with its worker: the job has to be done again."""


def run_job(function: str, arguments: str) -> str:
    """Run a job on this worker, and return as JSON what came of it: a result, an error, or files that are missing.

    An error that is no FaultsimError is raised: Dask tries again, perhaps on another worker.
    """
    from distributed import get_worker

    began = time.perf_counter()
    module, _, name = function.partition(":")
    found: dict[str, Any] = {"worker": get_worker().address}
    try:
        found["result"] = getattr(importlib.import_module(module), name)(**json.loads(arguments))
    except MissingFile as missing:
        found["missing"] = missing.checksum
    except FaultsimError as error:
        found["error"] = str(error)
    return json.dumps(found | {"seconds": time.perf_counter() - began})
