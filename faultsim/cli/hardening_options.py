"""Options of `train-base` that make a model robust to bit errors, as one group."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import FaultsimError
from .numerals import fraction
from .option_groups import FaultOptions

if TYPE_CHECKING:
    from ..training.bit_errors import BitErrors
    from ..training.clipping import Clipping


@dataclass(frozen=True)
class HardeningOptions:
    """Bounds of the weights, and bit errors in training."""

    memory: FaultOptions
    clip: Annotated[
        float | None,
        typer.Option(help="Keep all stored weights within this size, like 0.1.", show_default=False),
    ] = None
    clip_deviations: Annotated[
        float | None,
        typer.Option(
            help="Instead of --clip: keep each tensor within so many standard deviations of its weights before the "
            "training, like 1.5. For models with batch normalization.",
            show_default=False,
        ),
    ] = None
    bit_error_rate: Annotated[
        float | None,
        typer.Option(
            parser=fraction,
            metavar="FRACTION",
            help="Random bit error training: fraction of failing cells, like 0.01 or 1%, of a new chip at every step.",
            show_default=False,
        ),
    ] = None
    divided: Annotated[
        bool,
        typer.Option(
            "--divided",
            help="With --bit-error-rate: half of a batch passes without errors, half with them, instead of all twice.",
        ),
    ] = False
    running_statistics: Annotated[
        bool,
        typer.Option(
            "--running-statistics",
            help="With --bit-error-rate: batch normalization uses its running statistics in passes with errors, as an "
            "evaluation does. For --start and a small learning rate.",
        ),
    ] = False
    chip: Annotated[
        Path | None,
        typer.Option(
            help="Instead of --bit-error-rate: train for this one measured chip (a fault map, .npz or .csv).",
            show_default=False,
        ),
    ] = None
    voltage: Annotated[
        float | None,
        typer.Option(help="Supply voltage of --chip, in the unit of its fault map.", show_default=False),
    ] = None

    def clipping(self) -> "Clipping | None":
        """The bounds of the weights; None without an option for them."""
        from ..training.clipping import Clipping

        if self.clip is None and self.clip_deviations is None:
            return None
        if self.clip is not None and self.clip_deviations is not None:
            raise FaultsimError("give either --clip or --clip-deviations")
        return Clipping(self.clip, self.clip_deviations)

    def errors(self) -> "BitErrors | None":
        """The bit errors of the training; None without an option for them."""
        from ..chips.measured_chip import MeasuredChip
        from ..training.bit_errors import OneChip, RandomBitErrors

        if self.chip is not None and self.bit_error_rate is not None:
            raise FaultsimError("give either --bit-error-rate or --chip")
        for name, given in (("divided", self.divided), ("running-statistics", self.running_statistics)):
            if given and self.bit_error_rate is None:
                raise FaultsimError(f"--{name} needs --bit-error-rate")
        if self.voltage is not None and self.chip is None:
            raise FaultsimError("--voltage needs --chip: the training draws chips at a --bit-error-rate")
        if self.chip is not None:
            return OneChip(MeasuredChip.load(self.chip), self.voltage, faults=self.memory.fault_model())
        if self.bit_error_rate is not None:
            faults = self.memory.fault_model()
            return RandomBitErrors(self.bit_error_rate, faults, self.divided, self.running_statistics)
        if self.memory.given:
            raise FaultsimError("faults in training need --bit-error-rate or --chip")
        return None
