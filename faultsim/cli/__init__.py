"""The command line. One file a command (group); each imports what is heavy only when it runs."""

import sys
import warnings
from collections.abc import Callable
from typing import Any

import typer

from . import (
    bench,
    blackbox,
    curve,
    energy,
    evaluate,
    export,
    generator,
    inject,
    memory,
    patterns,
    report,
    reproduce,
    serve,
    sweep,
    train,
    transfer,
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
app.command("evaluate")(evaluate.evaluate)
app.command("serve-model")(serve.serve_model)
app.command("evaluate-blackbox")(blackbox.evaluate_blackbox)
app.command("train-base")(train.train_base)
app.command("train-generator")(generator.train_generator)
app.command("patterns")(patterns.patterns)
app.command("export")(export.export)
app.command("curve")(curve.curve)
app.command("chip")(inject.chip)
app.command("inject")(inject.inject)
app.command("info")(curve.info)
app.command("energy")(energy.energy)
app.command("memory")(memory.memory)
app.command("reproduce")(reproduce.reproduce)
app.command("transfer")(transfer.transfer)
app.command("report")(report.report)
bench.app.command("blackbox")(blackbox.bench)
app.add_typer(bench.app, name="bench")

INTERRUPTED = 130  # exit status of a program that Ctrl-C ended


def main(arguments: list[str] | None = None) -> None:
    """Runs one command. What the user can mend becomes one line on stderr and exit status 2."""
    from energy.errors import EnergyError

    from ..errors import FaultsimError

    arguments = arguments or sys.argv[1:] or ["--help"]
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _one_line(warnings.showwarning)
            status = app(arguments, prog_name="faultsim", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    except Exception as error:
        if isinstance(error, FaultsimError | EnergyError | ImportError):
            message = str(error)
        elif hasattr(
            error, "format_message"
        ):  # typer's own: an unknown option, a word where a number belongs
            message = f"{error.format_message().rstrip('.')} (faultsim COMMAND --help shows the options)"
        else:
            raise
        if _speaks():
            print("faultsim: error: " + " ".join(message.split()), file=sys.stderr)
        sys.exit(2)
    if status == INTERRUPTED:
        kept = any(word.partition("=")[0] == "--out" for word in arguments)
        what = "what was finished is kept in --out" if kept else "nothing is kept"
        print(f"faultsim: interrupted; {what}", file=sys.stderr)
    sys.exit(status)


def _one_line(otherwise: Callable[..., None]) -> Callable[..., None]:
    """Shows our own warnings as one line on stderr, and others as before."""
    from ..errors import FaultsimWarning

    def show(message: Warning | str, category: type[Warning], *where: Any) -> None:
        if issubclass(category, FaultsimWarning):
            print("faultsim: warning: " + " ".join(str(message).split()), file=sys.stderr, flush=True)
        else:
            otherwise(message, category, *where)

    return show


def _speaks() -> bool:
    """Of the processes that torchrun started, one reports the error. What fails before torch is imported isn't worth
    the time to ask."""
    if "torch" not in sys.modules:
        return True
    from neuralfuse.distributed import first_to_fail

    return first_to_fail()
