"""One layer as a systolic array sees it: a convolution over a padded map, repeated."""

from dataclasses import dataclass

from .errors import EnergyError
from .integers import checked_positive


@dataclass(frozen=True)
class Layer:
    """A row of a SCALE-Sim topology. A fully connected layer is a 1x1 convolution on a 1x1 map.

    A grouped convolution is `repeats` convolutions of the size of one group, one after the other.

    Raises
    ------
    EnergyError
        For sizes below one, and for a kernel larger than the padded input.
    """

    name: str
    """Name in results."""
    input_height: int
    """Rows of the input map, padding included."""
    input_width: int
    """Columns of the input map, padding included."""
    kernel_height: int
    """Rows of the kernel."""
    kernel_width: int
    """Columns of the kernel."""
    channels: int
    """Input channels (of one group)."""
    filters: int
    """Output channels (of one group)."""
    stride_height: int = 1
    """Step of the kernel from row to row."""
    stride_width: int = 1
    """Step of the kernel from column to column."""
    repeats: int = 1
    """How often the row runs: once for each group (and for each image of a batch, if there is one)."""

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if name != "name":
                value = checked_positive(
                    getattr(self, name), f"layer {self.name!r}: {name.replace('_', ' ')}"
                )
                object.__setattr__(self, name, value)
        if self.kernel_height > self.input_height or self.kernel_width > self.input_width:
            raise EnergyError(
                f"layer {self.name!r}: its {self.kernel_height}x{self.kernel_width} kernel is larger than "
                f"its padded input of {self.input_height}x{self.input_width}"
            )

    @property
    def output_height(self) -> int:
        """Rows of the output map, rounded up as SCALE-Sim does (frameworks round down)."""
        return 1 + -(-(self.input_height - self.kernel_height) // self.stride_height)

    @property
    def output_width(self) -> int:
        """Columns of the output map, rounded up as SCALE-Sim does (frameworks round down)."""
        return 1 + -(-(self.input_width - self.kernel_width) // self.stride_width)

    @property
    def output_pixels(self) -> int:
        """Pixels of the output map: P in the closed forms."""
        return self.output_height * self.output_width

    @property
    def window(self) -> int:
        """Weights of one filter: K in the closed forms."""
        return self.kernel_height * self.kernel_width * self.channels

    @property
    def weights(self) -> int:
        """Weights of one run of the row (of one group)."""
        return self.window * self.filters

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all repeats, with the output size above."""
        return self.output_pixels * self.weights * self.repeats
