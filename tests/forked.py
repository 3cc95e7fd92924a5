"""Programs in processes of their own, without three seconds of imports for each: they are forked from a process that
has imported what they need. For tests that kill, stop and share work; what a new interpreter does, others ask."""

import multiprocessing
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

FAULTSIM = "from faultsim.cli import main; main()"
"""The program behind `faultsim` and `python -m faultsim`."""
_FORKS = multiprocessing.get_context("forkserver")
_IMPORTED = [
    "faultsim.cli.tables", "faultsim.show.sweep_plot", "faultsim.studies.voltage_sweep", "neuralfuse.training",
    "neuralfuse.files", "scipy.stats", "sklearn.datasets", "tests.forked", "torch.distributed",
]  # fmt: skip


def _run(
    program: str, words: list[str], folder: str, settings: dict, limit: int | None, out: str, err
) -> None:
    """What the new process does."""
    os.dup2(os.open(out, os.O_WRONLY | os.O_APPEND), 1)
    os.dup2(err.fileno(), 2)
    err.close()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(settings)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    sys.argv = ["-c", *words]
    exec(compile(program, "<program>", "exec"), {"__name__": "__main__"})


class Forked:
    """`python -c PROGRAM WORDS`, with one thread, as subprocess.Popen would run it.

    Parameters
    ----------
    program
        Its text.
    words
        The arguments.
    cwd
        Its folder. Default: the current one.
    env
        What the environment has besides.
    limit
        The size in bytes at which its files are full, as on a full disk.
    """

    def __init__(
        self,
        program: str,
        words: Sequence[object] = (),
        *,
        cwd: str | os.PathLike | None = None,
        env: Mapping[str, str] | None = None,
        limit: int | None = None,
    ):
        _FORKS.set_forkserver_preload(
            _IMPORTED
        )  # nothing happens where the first process was started already
        # in a file, which takes any amount while stderr is read
        self._out = tempfile.NamedTemporaryFile("r", encoding="utf-8")  # noqa: SIM115
        here, there = _FORKS.Pipe(duplex=False)
        settings = {**os.environ, "OMP_NUM_THREADS": "1", **(env or {})}
        folder = os.fspath(cwd or os.getcwd())
        arguments = (program, [*map(str, words)], folder, settings, limit, self._out.name, there)
        self._process = _FORKS.Process(target=_run, args=arguments, daemon=True)
        self._process.start()
        there.close()
        self.stderr = open(os.dup(here.fileno()), encoding="utf-8")  # noqa: SIM115
        here.close()
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit status, or minus the signal that ended it; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self) -> tuple[str, str]:
        """What it has written to stdout and (from here) to stderr, once it has ended."""
        with self.stderr, self._out:
            err = self.stderr.read()
            self._process.join()
            return self._out.read(), err


class Done(NamedTuple):
    """What has ended."""

    out: str
    err: str
    status: int

    @classmethod
    def of(cls, process: Forked) -> "Done":
        """Waits for it."""
        out, err = process.communicate()
        return cls(out, err, process.returncode)


def run(program: str, words: Sequence[object] = (), **settings: Any) -> Done:
    """A program (see Forked) until it ends."""
    return Done.of(Forked(program, words, **settings))
