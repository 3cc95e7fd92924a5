"""The systolic array whose SRAM accesses are counted."""

import re
from dataclasses import dataclass
from enum import StrEnum

from .errors import EnergyError
from .integers import checked_positive


class Dataflow(StrEnum):
    """Which operand stays in the array while the other two stream through it."""

    OUTPUT_STATIONARY = "os"
    WEIGHT_STATIONARY = "ws"
    INPUT_STATIONARY = "is"


def parse_dataflow(text: str) -> Dataflow:
    """Parse `os`, `ws` or `is`, in any case; EnergyError for anything else."""
    try:
        return Dataflow(str(text).lower())
    except ValueError:
        raise EnergyError(
            f"unknown dataflow {text!r}: it can be os (output-stationary), ws (weight-stationary) and "
            "is (input-stationary)"
        ) from None


@dataclass(frozen=True)
class Accelerator:
    """A systolic array with one SRAM for the weights, one for the inputs and one for the outputs.

    The defaults are the paper's accelerator (Appendix C): 32x32, output-stationary, 256 KiB of weight memory. Rows,
    columns and dataflow decide the number of accesses. The SRAM sizes describe the machine; they decide DRAM traffic,
    which is not counted here. The paper gives no input and output SRAM sizes; those are SCALE-Sim's defaults.

    Raises
    ------
    EnergyError
        For sizes below one, an unknown dataflow, and words that do not hold a weight.
    """

    rows: int = 32
    """Height of the array, in processing elements."""
    columns: int = 32
    """Width of the array, in processing elements."""
    dataflow: Dataflow = Dataflow.OUTPUT_STATIONARY
    """Which operand stays in the array."""
    weight_sram_kib: int = 256
    """Capacity of the weight memory, KiB."""
    input_sram_kib: int = 256
    """Capacity of the input memory, KiB."""
    output_sram_kib: int = 128
    """Capacity of the output memory, KiB."""
    word_bits: int = 64
    """Width of one SRAM word, bits: what one access reads."""
    weight_bits: int = 8
    """Width of one weight, bits, with the cells that stay unused beside it."""

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if name != "dataflow":
                value = checked_positive(getattr(self, name), f"{name} of an accelerator")
                object.__setattr__(self, name, value)
        object.__setattr__(self, "dataflow", parse_dataflow(self.dataflow))
        if self.word_bits < self.weight_bits:
            raise EnergyError(
                f"a word of {self.word_bits} bits can't hold a weight of {self.weight_bits} bits"
            )

    @property
    def weights_per_access(self) -> int:
        """How many weights one SRAM access reads: 8 int8 weights in a 64-bit word, or 21 of 3 bits."""
        return self.word_bits // self.weight_bits

    @classmethod
    def paper(cls) -> "Accelerator":
        """Return the paper's accelerator (Appendix C)."""
        return PAPER


PAPER = Accelerator()
"""The paper's accelerator: 32x32, output-stationary, 256 KiB of weight memory (Appendix C)."""


def parse_array(text: str) -> tuple[int, int]:
    """Parse ROWSxCOLUMNS, such as 32x16, as (rows, columns); EnergyError for anything else."""
    match = re.fullmatch(r"\s*([0-9]{1,9})\s*[xX]\s*([0-9]{1,9})\s*", text)
    if match is None:
        raise EnergyError(f"{text!r} is no array size; write ROWSxCOLUMNS, for example 32x32")
    return int(match[1]), int(match[2])
