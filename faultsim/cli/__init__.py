"""The command line. One file a command (group); each imports what is heavy only when it runs."""

import contextlib
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from itertools import pairwise
from types import FrameType
from typing import Any

import typer

from . import (
    bench,
    blackbox,
    campaign,
    chip,
    compare,
    curve,
    energy,
    evaluate,
    export,
    generator,
    info,
    inject,
    lookup,
    memory,
    patterns,
    report,
    reproduce,
    serve,
    status,
    sweep,
    train,
    transfer,
    vulnerability,
)

app = typer.Typer(
    name="faultsim",
    help="Low-voltage SRAM bit errors in the weights of neural networks: voltage, faults, accuracy, energy.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("sweep-voltage")(sweep.sweep_voltage)
app.command("compare")(compare.compare)
app.command("evaluate")(evaluate.evaluate)
app.command("serve-model")(serve.serve_model)
app.command("evaluate-blackbox")(blackbox.evaluate_blackbox)
app.command("train-base")(train.train_base)
app.command("train-generator")(generator.train_generator)
app.command("patterns")(patterns.patterns)
app.command("make-lookup")(lookup.make_lookup)
app.command("export")(export.export)
app.command("curve")(curve.curve)
app.command("chip")(chip.chip)
app.command("inject")(inject.inject)
app.command("info")(info.info)
app.command("energy")(energy.energy)
app.command("memory")(memory.memory)
app.command("sample-size")(campaign.sample_size)
app.command("reproduce")(reproduce.reproduce)
app.command("transfer")(transfer.transfer)
app.command("vulnerability")(vulnerability.vulnerability)
app.command("report")(report.report)
app.command("status")(status.status)
bench.app.command("blackbox")(blackbox.bench)
app.add_typer(bench.app, name="bench")

INTERRUPTED = 130  # exit status of a program that Ctrl-C ended


def main(arguments: list[str] | None = None) -> None:
    """Runs one command. What the user can mend becomes one line on stderr and exit status 2."""
    words = sys.argv[1:] if arguments is None else arguments
    with _noted_interrupts() as interrupts:
        try:
            _check_empty(words)
            with warnings.catch_warnings(), _progress_on_stderr():
                warnings.showwarning = _one_line(warnings.showwarning)
                status = app(words or ["--help"], prog_name="faultsim", standalone_mode=False)
            sys.stdout.flush()  # here an output that takes nothing more can still be told
        except (KeyboardInterrupt, typer.Abort):
            status = INTERRUPTED
        except BrokenPipeError:  # nobody is left who reads
            _drop_output()
            sys.exit(1)
        except Exception as error:
            if not interrupts:
                _tell(error)
                sys.exit(2)
            status = INTERRUPTED
    if status == INTERRUPTED:
        kept = any(word.partition("=")[0] == "--out" for word in words)
        what = "finished results are in --out" if kept else "nothing was written"
        print(f"faultsim: interrupted; {what}", file=sys.stderr)
    sys.exit(status)


@contextlib.contextmanager
def _noted_interrupts() -> Iterator[list[int]]:
    """Yields a list that is not empty once Ctrl-C was pressed.

    A library that is just being imported may catch the KeyboardInterrupt and fail later for another reason, half
    imported (seen: torch and NumPy, RecursionError). That is an interruption all the same.
    """
    seen: list[int] = []
    before = signal.getsignal(signal.SIGINT)

    def interrupt(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        signal.default_int_handler(number, frame)

    ours = before is signal.default_int_handler and threading.current_thread() is threading.main_thread()
    if ours:
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield seen
    finally:
        if ours:
            signal.signal(signal.SIGINT, before)


def _tell(error: Exception) -> None:
    """Says in one line on stderr what the user can mend; raises any other error again."""
    from ..errors import FaultsimError, shorten

    if isinstance(error, FaultsimError | ImportError):
        message = str(error)
    elif _out_of_memory(error):
        message = "not enough memory: choose smaller sizes, such as a smaller --batch-size"
    elif hasattr(error, "format_message"):  # typer's own: an unknown option, a word where a number belongs
        message = f"{error.format_message().rstrip('.')} (faultsim COMMAND --help shows the options)"
    elif isinstance(error, OSError):
        message = f"cannot read or write {error.filename or 'the output'}: {error.strerror or error}"
        _drop_output()
    else:
        raise error
    with contextlib.suppress(OSError):
        if _speaks():
            print("faultsim: error: " + shorten(message), file=sys.stderr, flush=True)


def _drop_output() -> None:
    """Python would try once more, when it ends, to write what the output didn't take, and say so in its own words."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def _progress_on_stderr() -> Iterator[None]:
    """Show what the library logs of its progress, such as the start of a download, as lines on stderr."""
    log, handler = logging.getLogger("faultsim"), logging.StreamHandler(sys.stderr)
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


def _one_line(otherwise: Callable[..., None]) -> Callable[..., None]:
    """Shows our own warnings as one line on stderr, and others as before."""
    from ..errors import FaultsimWarning, shorten

    def show(message: Warning | str, category: type[Warning], *where: Any) -> None:
        if issubclass(category, FaultsimWarning):
            print("faultsim: warning: " + shorten(str(message)), file=sys.stderr, flush=True)
        else:
            otherwise(message, category, *where)

    return show


def _out_of_memory(error: Exception) -> bool:
    """Python's own error, or one of torch, which has a class for GPUs only."""
    told = type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and told)


def _check_empty(words: list[str]) -> None:
    """Raises FaultsimError for an empty value, like that of an unset shell variable: no option has a use for one."""
    from ..errors import FaultsimError

    for before, word in pairwise(["", *words]):
        option, equals, value = word.partition("=") if word.startswith("--") else (before, "=", word)
        if equals and not value.strip():
            what = f"{option} is empty" if option.startswith("-") else "an argument is empty"
            raise FaultsimError(f"{what}: give it a value, or leave it out")


def _speaks() -> bool:
    """Of the processes that torchrun started, one reports the error. What fails before torch is imported isn't worth
    the time to ask."""
    if "torch" not in sys.modules:
        return True
    from neuralfuse.distributed import find_first_to_fail

    return find_first_to_fail()
