"""A model with everything that its ONNX file says about it, also as a chip reads it."""

from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from ..data import Dataset, OwnBatches
from ..data.dataset import Normalization
from ..errors import FaultsimError
from ..faults import Chip, FaultModel
from ..io.provenance import find_version, record_provenance
from ..network.batch import describe_inputs
from ..perturbation import corrupt_stored, resolve_operating_point
from ..show.units import format_percent
from ..stored import StoredWeights
from ..studies.conditions import Conditions
from ..studies.subject import Subject
from ..voltage import VoltageCurve
from .export import export_onnx


@dataclass(frozen=True)
class WrittenModel:
    """An ONNX file that was written, and checked."""

    path: Path
    """The file."""
    bytes: int
    """Its size."""
    difference: float
    """Largest absolute difference of onnxruntime's and torch's outputs on the images that it was checked with."""
    images: int
    """How many images these were."""
    model: "ExportableModel"
    """What the file holds."""

    def __str__(self) -> str:
        stored = self.model.stored
        return (
            f"{self.model.name}{self.model.read_as}: {self.bytes:,} bytes, "
            f"{stored.share.stored:,} {stored.format} weights; "
            f"onnxruntime and torch differ by {self.difference:.1g} at most on {self.images} {self.model.data.name} "
            f"images; written to {self.path}"
        )


@dataclass(frozen=True, eq=False)
class ExportableModel:
    """A model, its weights as stored, and data to check its ONNX file with.

    Examples
    --------
    >>> from faultsim import ExportableModel, load_subject
    >>> model = ExportableModel.of(load_subject("DigitsNet", images=64))
    >>> written = model.read_by(7, voltage=0.83).write("chip7.onnx", inputs="uint8")  # doctest: +SKIP
    """

    name: str
    """The model's name, for people."""
    model: nn.Module
    """On the CPU, in float32."""
    stored: StoredWeights
    """Its weights as they are exported."""
    data: Dataset | OwnBatches
    """What the file is checked with: at least 3 images, or batches of one input tensor of one size."""
    configuration: dict[str, Any]
    """JSON values that the file keeps: the model, its weights and their training."""
    output: str = "logits"
    """Name of the file's output."""
    read_as: str = ""
    """Which chip reads the weights, and how, in words that follow the name."""

    @classmethod
    def of(cls, subject: Subject) -> Self:
        """Return a base model with its test data, as faultsim.load_subject loads them; it must be on the CPU."""
        return cls(
            subject.name,
            subject.model,
            subject.stored,
            subject.dataset,
            subject.network,
            read_as=" without bit errors",
        )

    def read_by(
        self,
        chip: Chip | int,
        *,
        voltage: float | None = None,
        bit_error_rate: float | None = None,
        curve: VoltageCurve | None = None,
        faults: FaultModel | None = None,
    ) -> Self:
        """Return the model with the weights that a simulated chip reads.

        Parameters
        ----------
        chip : Chip or int
            The chip, or its seed.
        voltage, bit_error_rate : float
            The operating point: one of both. The bit error rate is a fraction.
        curve : VoltageCurve, optional
            Bit error rate against voltage. Default: the paper's SRAM.
        faults : FaultModel, optional
            Kind of fault and memory. Default: flips, every weight in cells of its own.

        Returns
        -------
        ExportableModel
            Its configuration says which chip reads it, and how.

        Raises
        ------
        FaultsimError
            For operating points out of range.
        """
        chip = chip if isinstance(chip, Chip) else Chip(chip)
        if voltage is not None:
            curve = curve or VoltageCurve.default()
        faults = faults or FaultModel()
        volts, found = resolve_operating_point([chip], voltage, bit_error_rate, curve)
        rate = cast(float, found)  # it is None for measured chips only
        stored = corrupt_stored(self.stored, chip, bit_error_rate=rate, faults=faults)
        read_by = {
            "chip": chip.seed,
            "voltage": volts,
            "bit_error_rate": rate,
            "curve": curve and curve.describe(),
            "faults": faults.describe(self.stored.format.width),
            "memory": stored.share.as_dict(),
        }
        conditions = Conditions(faults, curve, format=stored.format)
        return replace(
            self,
            stored=stored,
            configuration={**self.configuration, "read_by": read_by},
            read_as=f" as chip {chip.seed} reads it at bit error rate {format_percent(rate)} ({conditions})",
        )

    def write(self, path: str | PathLike[str], inputs: str = "float32") -> WrittenModel:
        """Write the ONNX file, with what it was made of in its metadata, after onnxruntime has checked it.

        Parameters
        ----------
        path : path
            File to write (.onnx), atomically.
        inputs : str
            What the file takes, one of faultsim.onnx.export.INPUTS.

        Returns
        -------
        WrittenModel
            `print` shows it in one line.

        Raises
        ------
        FaultsimError
            For the reasons of faultsim.export_onnx, and for data of other inputs than one tensor of one size.
        """
        images, normalization = self._images()
        origin = record_provenance("cpu")
        origin["versions"] |= {name: find_version(name) for name in ("onnx", "onnxruntime")}
        checked = {
            "dataset": self.data.name,
            "images": len(self.data),
            "images_fingerprint": self.data.fingerprint,
        }
        metadata = {"checked_with": checked, "input": inputs, "output": self.output, **origin}
        difference = export_onnx(
            path,
            self.model,
            self.stored,
            images,
            inputs=inputs,
            output=self.output,
            normalization=normalization,
            metadata=self.configuration | metadata,
        )
        return WrittenModel(Path(path), Path(path).stat().st_size, difference, len(images), self)

    def _images(self) -> tuple[Tensor, Normalization | None]:
        """Return pixels, or inputs that the model takes as they are, and how pixels are normalized."""
        if isinstance(self.data, Dataset):
            return self.data.images, self.data.normalization
        parts = [inputs for inputs, _ in self.data.batches]
        for part in parts:
            if not isinstance(part, Tensor) or part.shape[1:] != parts[0].shape[1:]:
                raise FaultsimError(
                    f"export needs a model with one input of one size; {self.data.name} gives {describe_inputs(part)}"
                )
        return torch.cat(parts), None
