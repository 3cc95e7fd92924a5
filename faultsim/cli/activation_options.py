"""Options on activations: whether they fail, and in which memory they lie."""

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, cast

import typer

from ..errors import FaultsimError
from ..support.integers import checked_integer

if TYPE_CHECKING:
    from ..activations.memory import ActivationMemory, FaultSites
    from ..faults import FaultModel
    from ..sram import SRAM
    from ..studies.subject import Subject

FaultSitesOption = Annotated[
    str | None,
    typer.Option(
        "--fault-sites",
        help="Which cells fail: those of the weights, those of the activations, or both. [default: weights]",
        show_default=False,
    ),
]
ActivationsOption = Annotated[
    str | None,
    typer.Option(
        "--activations",
        help="Which activations lie in the input memory: input or output of the layers that hold weights, or cache: "
        "keys and values of a language model's attention. [default: input]",
        show_default=False,
    ),
]
ActivationBitsOption = Annotated[
    int | None,
    typer.Option(
        "--activation-bits",
        help="Quantize the activations to 2 to 8 bits, to the ranges of the first 256 samples. "
        "[default: 8 where they fail, else they stay float]",
        show_default=False,
    ),
]
InputSramOption = Annotated[
    str | None,
    typer.Option(
        "--input-sram",
        metavar="SIZE",
        help="Size of the input memory, such as 64KiB or 1MiB, or unlimited. With a size, each layer's inputs begin at "
        "address 0. [default: 256KiB]",
        show_default=False,
    ),
]
InputVoltageOption = Annotated[
    float | None,
    typer.Option(
        "--input-voltage",
        help="Voltage of the input memory, in the unit of the curve. [default: that of the weights]",
    ),
]


@dataclass(frozen=True)
class ActivationOptions:
    """Whether activations fail, and in which memory they lie."""

    fault_sites: FaultSitesOption = None
    activations: ActivationsOption = None
    activation_bits: ActivationBitsOption = None
    input_sram: InputSramOption = None
    input_voltage: InputVoltageOption = None

    @property
    def sites(self) -> "FaultSites":
        """Which memory's cells fail; FaultsimError for an unknown word."""
        from ..activations.memory import check_sites

        found = cast("FaultSites", self.fault_sites or "weights")
        check_sites(found)
        if found == "weights" and (self.input_sram is not None or self.input_voltage is not None):
            option = "--input-sram" if self.input_sram is not None else "--input-voltage"
            raise FaultsimError(f"{option} needs --fault-sites activations or both")
        return found

    def memory(self, subject: "Subject", faults: "FaultModel") -> "ActivationMemory | None":
        """Return the memory of the subject's activations; None where they are not quantized."""
        from ..activations.memory import INPUT_SRAM, ActivationMemory

        if self.sites == "weights" and self.activation_bits is None:
            if self.activations is not None:
                raise FaultsimError(
                    "--activations needs --fault-sites activations or both, or --activation-bits"
                )
            return None
        sram = INPUT_SRAM if self.input_sram is None else parse_input_sram(self.input_sram)
        bits = (
            8
            if self.activation_bits is None
            else checked_integer(self.activation_bits, "--activation-bits", 2, 8)
        )
        return ActivationMemory(
            subject.calibrate(what=self.activations or "input"),
            f"int{bits}",
            replace(faults, memory=sram, domains=()),
            self.input_voltage,
        )


def parse_input_sram(text: str) -> "SRAM":
    """Return the input memory of a size such as 256KiB, 1MiB or unlimited."""
    from ..activations.memory import INPUT_SRAM
    from ..sram import SRAM

    if text.strip().lower() == "unlimited":
        return SRAM()
    match = re.fullmatch(r"\s*([0-9]{1,9})\s*(KiB|MiB)\s*", text, re.IGNORECASE)
    if match is None:
        raise FaultsimError(f"--input-sram {text!r}: it must be a size like 256KiB or 1MiB, or unlimited")
    unit = {"kib": 1 << 10, "mib": 1 << 20}[match[2].lower()]
    return replace(INPUT_SRAM, capacity_bytes=int(match[1]) * unit)
