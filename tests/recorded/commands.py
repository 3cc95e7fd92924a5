"""The commands of the record, and how one is run: in this process, in a folder of its own, on the first digits."""

import contextlib
import io
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

DIGITS = 100
"""The data set of the record: so many of scikit-learn's digits, four fifths of them to train on."""


@dataclass(frozen=True)
class Recorded:
    """Commands that run one after the other in one folder. What they print with --json and the files that they write
    are recorded."""

    name: str
    commands: tuple[str, ...]
    trains: bool = field(default=False, kw_only=True)
    """Weights are trained: their bytes are the same only on a machine like the recorded one."""


SWEEP = "sweep-voltage --chips 2 --voltages 0.8,0.83,1"
TRAIN = "train-generator --generator ConvXS --bit-error-rate 0.02 --batch-size 32 --device cpu"
RUN = "--smoke --device cpu --base-epochs 2 --epochs 1 --n-models 1 --faults iid_flips --generator ConvS --out run"

RECORDED = (
    Recorded("sweep", (f"{SWEEP} --out sweep --accuracy-floor 90% --json",)),
    Recorded(
        "sweep of the published fault model", (f"{SWEEP} --preset neuralfuse_2022 --out sweep --seed 3",)
    ),
    Recorded(
        "sweep of bit error rates",
        (
            "sweep-voltage --bit-error-rates 0,0.004,2% --chips 3 --fault-kind transient --read-error 0.3 --json",
        ),
    ),
    Recorded(
        "sweep of a measured chip",
        (
            "chip 5 --voltage 0.8,0.83 --out chip.npz --out chip.csv --fault-kind stuck_at_random --arrays 2 --json",
            "sweep-voltage --fault-map chip.npz --voltages 0.8,0.83,0.9 --placement tiled --capacity 8 --out sweep",
            "report sweep",
        ),
    ),
    Recorded(
        "sweep of an own curve",
        ("sweep-voltage --curve own.csv --chips 1 --per-channel --select 'features.*' --json",),
    ),
    Recorded(
        "evaluate",
        (
            "evaluate --bit-error-rate 0.02 --chips 3 --json",
            "evaluate --voltage 0.82 --chips 2 --fault-kind stuck_at_random --polarity 0.9 --placement tiled_per_layer"
            " --capacity 8 --metric cross_entropy --json",
            "evaluate --model DigitsVGG --generator BUNDLED/convqs.safetensors --bit-error-rate 3% --chips 1"
            " --images 10 --json",
        ),
    ),
    Recorded(
        "memory",
        ("memory --model ResNet18 --placement tiled --all --json", "memory --select '*.bias' --json"),
    ),
    Recorded(
        "curve",
        (
            "curve --voltages 0.76:1:0.04 --out curve.csv --json",
            "curve --curve own.csv --voltages 0.6:0.9:0.1 --json",
        ),
    ),
    Recorded(
        "chip",
        (
            "chip 7 --voltage 0.83 --out flip.csv --out flip.npz --json",
            "chip 8 --bit-error-rate 0.01 --preset neuralfuse_2022 --arrays 2 --out published.csv --json",
        ),
    ),
    Recorded(
        "inject",
        (
            "inject weights.npy flipped.npy --chip 7 --voltage 0.83 --json",
            "inject weights.npy published.npy --chip 7 --bit-error-rate 2% --preset neuralfuse_2022 --base 123 --json",
            "inject weights.npy transient.npy --chip 1 --bit-error-rate 0.1 --fault-kind transient --access 3 --json",
            "chip 9 --voltage 0.8 --arrays 2 --fault-kind stuck_at_random --out measured.csv",
            "inject weights.npy measured.npy --fault-map measured.csv --voltage 0.8 --json",
        ),
    ),
    Recorded(
        "energy",
        (
            "energy --model ResNet18 --generator UNetL --voltage 0.83 --json",
            "energy --model VGG11 --generator ConvS --voltage 0.9 --dataflow ws --counting exact --json",
            "energy --model DigitsNet --engine both --array 16x8 --dataflow is --write-topology digits.csv --json",
            "energy --topology digits.csv --voltage 0.83 --json",
        ),
    ),
    Recorded(
        "tables that need no training",
        tuple(f"reproduce {name} --json" for name in ("table6", "table7", "table8")),
    ),
    Recorded("figure 2", ("reproduce figure2 --out run --json",)),
    Recorded(
        "a base model",
        (
            "train-base --model DigitsNet --dataset digits --epochs 2 --seed 4 --device cpu --out base.safetensors",
            "evaluate --weights base.safetensors --bit-error-rate 0.01 --chips 1 --json",
            "export --weights base.safetensors --chip 7 --voltage 0.83 --onnx chip7.onnx --images 4",
        ),
        trains=True,
    ),
    Recorded(
        "a generator",
        (
            f"{TRAIN} --epochs 2 --n-models 2 --preset neuralfuse_2022 --out eopm.safetensors",
            "export --generator eopm.safetensors --onnx eopm.onnx --input uint8-nhwc --images 4",
        ),
        trains=True,
    ),
    Recorded(
        "a generator in stages",
        (
            f"{TRAIN} --trainer staged --classifier-epochs 1 --pattern-epochs 1 --drawing-epochs 1 --epochs 1"
            " --n-models 2 --out staged.safetensors",
        ),
        trains=True,
    ),
    Recorded(
        "a generator against an adversary",
        (
            "train-generator --generator ConvXS --batch-size 40 --trainer adversarial --flips 3 --epochs 1 --device cpu"
            " --out adversarial.safetensors",
        ),
        trains=True,
    ),
    Recorded(
        "reproduce",
        (
            f"reproduce table1 {RUN} --json",
            f"reproduce figure3 {RUN}",
            "report run",
        ),
        trains=True,
    ),
)


@contextlib.contextmanager
def few_digits() -> Iterator[None]:
    """scikit-learn has no more than DIGITS digits while this is open."""
    from faultsim.data import digits

    whole = digits.read_digits
    digits.read_digits = lambda: tuple(part[:DIGITS] for part in whole())
    try:
        yield
    finally:
        digits.read_digits = whole


def write_inputs(folder: Path) -> None:
    """The files that commands read."""
    import numpy as np

    np.save(folder / "weights.npy", ((np.arange(6000) * 77) % 255 - 127).astype(np.int8).reshape(60, 100))
    (folder / "own.csv").write_text(
        "voltage,bit_error_rate,energy_per_access_pj\n0.9,0,12\n0.8,0.0005,10\n0.7,0.02,8.5\n0.6,0.3,7\n"
    )


def bundled_generators() -> Path:
    import neuralfuse

    (file,) = Path(neuralfuse.__file__).parent.rglob("convqs.safetensors")
    return file.parent


def run(recorded: Recorded, folder: Path) -> list[str]:
    """Run the commands in the folder.

    Returns
    -------
    list of str
        What each command printed on stdout.

    Raises
    ------
    AssertionError
        A command ended with a status that isn't 0.
    """
    import torch

    from faultsim.cli import main

    write_inputs(folder)
    printed = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with few_digits(), contextlib.chdir(folder):
            for command in recorded.commands:
                words = [
                    word.replace("BUNDLED", os.fspath(bundled_generators())) for word in shlex.split(command)
                ]
                out, err, status = io.StringIO(), io.StringIO(), None
                with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                    try:
                        main(words)
                    except SystemExit as end:
                        status = end.code
                if status:
                    raise AssertionError(f"faultsim {command} ended with {status}: {err.getvalue()[-1000:]}")
                printed.append(out.getvalue())
    finally:
        torch.set_num_threads(threads)
    return printed
