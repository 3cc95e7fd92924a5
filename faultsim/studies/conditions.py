"""What "1 % bit errors" means in a result: fault kind, placement and voltage curve. Every output states it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..chips.measured_chip import AnyChip, MeasuredChip
from ..faults import FaultKind, FaultModel
from ..formats import INT8, Format
from ..memory import Share
from ..voltage import VoltageCurve

if TYPE_CHECKING:
    from ..activations.memory import ActivationMemory

COLUMNS = ("fault_kind", "placement", "curve", "stored_weights", "weights")
"""Columns of results; the last two where it is known how many of a model's weights lie in the faulty memory."""
SITES = "fault_sites"
"""One more column where activations are quantized: which memory's cells fail."""
_MOST_LABELS = 5


@dataclass(frozen=True)
class Conditions:
    """The faults of a result, and the curve that its voltages belong to."""

    faults: FaultModel
    """Kind of fault and memory."""
    curve: VoltageCurve | None = None
    """None: the bit error rate was given, and no voltage."""
    measured: tuple[str, ...] = ()
    """Labels of measured chips; their fault maps say what each failing cell reads."""
    share: Share | None = None
    """How many of the model's weights can fail, where it is known."""

    sites: str = "weights"
    """Which memory's cells fail: weights, activations or both."""
    activations: "ActivationMemory | None" = None
    """What lies in the memory of the activations; None: they are not quantized."""
    format: Format = INT8
    """What a stored weight is."""
    compute: str = "float32"
    """What the model computes in, as for faultsim.evaluate."""

    @classmethod
    def of(
        cls,
        faults: FaultModel,
        chips: Sequence[AnyChip],
        curve: VoltageCurve | None = None,
        share: Share | None = None,
        sites: str = "weights",
        activations: "ActivationMemory | None" = None,
        format: Format = INT8,
        compute: str = "float32",
    ) -> "Conditions":
        """Return the conditions of an evaluation on some chips."""
        labels = tuple(chip.label for chip in chips if isinstance(chip, MeasuredChip))
        return cls(faults, curve, labels, share, sites, activations, format, compute)

    @property
    def kind(self) -> str:
        """Name of the fault kind."""
        return "as measured" if self.measured else str(self.faults.kind)

    @property
    def memories(self) -> str:
        """Name of what the energy is that of: the memories that can fail."""
        return "weight memory" if self.sites == "weights" else "weight and input memory"

    @property
    def columns(self) -> dict[str, str]:
        """The cells that all rows share: COLUMNS, and `format` and `compute` where they are not int8 and float32."""
        curve = "" if self.curve is None else self.curve.name
        cells = [self.kind, str(self.faults.memory.placement), curve]
        if self.share is not None:
            cells += [str(self.share.stored), str(self.share.weights)]
        columns = dict(zip(COLUMNS, cells, strict=False))
        if self.format != INT8:
            columns["format"] = self.format.name
        if self.compute != "float32":
            columns["compute"] = self.compute
        return columns if self.activations is None else columns | {SITES: self.sites}

    def __str__(self) -> str:
        """Return one line, such as "flip, unlimited placement, curve '14nm'"."""
        faults, memory = self.faults, self.faults.memory
        words = [self.kind, f"{memory.placement} placement"]
        if self.measured:
            count = len(self.measured)
            words[0] += f" ({', '.join(self.measured) if count <= _MOST_LABELS else f'{count} chips'})"
        elif faults.kind is FaultKind.STUCK_AT_RANDOM and faults.polarity != 0.5:
            words[0] += f" (stuck at 1 with probability {faults.polarity:g})"
        elif faults.kind is FaultKind.TRANSIENT:
            words[0] += f" (each read wrong with probability {faults.read_error:g})"
        if memory.placement.startswith("tiled"):
            words[1] += f" in {memory.capacity_bytes // 1024} KiB"
        words.append("no voltage curve" if self.curve is None else f"curve '{self.curve.name}'")
        if self.format != INT8:
            words.append(f"{self.format} weights")
        if self.compute != "float32":
            words.append(f"computed in {self.compute}")
        words += map(str, faults.domains)
        if self.activations is not None:
            failing = {"both": "weights and activations"}.get(self.sites, self.sites)
            words.append(f"{failing} fail ({self.activations})")
        if self.share is not None and self.share.stored < self.share.weights:
            words.append(str(self.share))
        return ", ".join(words)
