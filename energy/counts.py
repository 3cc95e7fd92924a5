"""What an engine finds out: accesses and cycles of each layer, and of the whole network."""

from dataclasses import dataclass, fields

from .accelerator import Accelerator
from .errors import EnergyError
from .integers import checked_positive
from .layers import Layer


@dataclass(frozen=True)
class LayerCounts:
    """Accesses and cycles of one inference through one layer, one access for each int8 value.

    The first four are SCALE-Sim's counters. The two over-counts are the part of a counter that has no access behind it
    in SCALE-Sim's own demand matrices (see `energy.closed_form` for where they come from).
    """

    filter_reads: int
    """Weights read."""
    input_reads: int
    """Activations read."""
    output_writes: int
    """Outputs and partial sums written."""
    cycles: int
    """Compute cycles: the number of the last cycle, counted from 0, as SCALE-Sim reports it."""
    input_overcount: int
    """The part of `input_reads` that lies outside of the map."""
    output_overcount: int
    """The part of `output_writes` that writes nothing."""

    def __add__(self, other: "LayerCounts") -> "LayerCounts":
        return LayerCounts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def times(self, repeats: int) -> "LayerCounts":
        """Return the counts of `repeats` runs, one after the other."""
        return LayerCounts(*(repeats * getattr(self, f.name) for f in fields(self)))


@dataclass(frozen=True)
class NetworkCounts:
    """The counts of every layer of a network on one accelerator, from one engine."""

    engine: str
    """Name of the engine that counted."""
    accelerator: Accelerator
    """What it counted for."""
    layers: tuple[Layer, ...]
    """The layers of the network."""
    counts: tuple[LayerCounts, ...]
    """As many as `layers`, in the same order."""

    @property
    def total(self) -> LayerCounts:
        """The sum over the layers."""
        return sum(self.counts, LayerCounts(0, 0, 0, 0, 0, 0))

    @property
    def weight_memory_accesses(self) -> int:
        """Accesses of the weight memory per inference, the paper's T.W.M.A. (Table 6).

        One access reads a whole word, so this is the number of weights read over the weights in a word; a
        last word that is filled only in part is one access.
        """
        return self.accesses_of(self.total)

    def count_input_accesses(self, bits: int = 8) -> int:
        """Return the accesses of the input memory per inference, which holds activations of `bits` bits.

        One access reads as many activations as fit into a word. Reads outside of the map have no address: SCALE-Sim
        counts them, this does not.
        """
        per_access = self.accelerator.word_bits // checked_positive(bits, "bits of an activation")
        if not per_access:
            raise EnergyError(
                f"a word of {self.accelerator.word_bits} bits can't hold an activation of {bits} bits"
            )
        return -(-(self.total.input_reads - self.total.input_overcount) // per_access)

    def accesses_of(self, counts: LayerCounts) -> int:
        """Return the weight memory accesses of the filter reads of `counts`, rounded up."""
        return -(-counts.filter_reads // self.accelerator.weights_per_access)
