"""Weight files of generators: safetensors whose metadata name the architecture (see faultsim.checkpoint)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from energy.saving import count_weight_accesses
from energy.trace import POLICIES
from faultsim.checkpoint import compute_fingerprint, load_weights, read_file, save_weights
from faultsim.data import Dataset, OwnBatches
from faultsim.errors import FaultsimError
from faultsim.network.architecture import Architecture
from faultsim.onnx.exportable_model import ExportableModel
from faultsim.sram import WORD_BYTES
from faultsim.stored import StoredWeights
from faultsim.studies.sweep_result import Variant

from . import generators
from .generators import NeuralFuse, check_generator_size
from .lookup import LOOKUP, PatternLookup, read_lookup


class SavedGenerator(NamedTuple):
    """A generator as its weight file holds it."""

    name: str
    """Architecture, one of neuralfuse.generators.KNOWN; of a look-up its own name."""
    network: nn.Module
    """The generator G, on the CPU, with the dequantized weights."""
    stored: StoredWeights
    """Its int8 weights."""
    metadata: dict[str, Any]
    """What the file says about its training."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of everything the generator computes with."""
        return compute_fingerprint(self.network, self.stored)

    def create_variant(self, device: torch.device, image_shape: tuple[int, ...] | None) -> Variant:
        """Make the variant of a voltage sweep that has this generator in front of the model.

        Parameters
        ----------
        device
            Device of the model. The generator moves there.
        image_shape
            (3, height, width) of one image; None if the model does not take a single image.

        Returns
        -------
        Variant
            With the NeuralFuse module in evaluation mode, and the generator's weight memory accesses per image.

        Raises
        ------
        FaultsimError
            If the generator does not fit images of this shape.
        """
        shape = check_generator_size(self.name, image_shape)
        architecture = Architecture("neuralfuse.files:create_untrained", {"name": self.name})
        if isinstance(self.network, PatternLookup):
            if shape != (size := tuple(self.network.patterns.shape[1:])):
                raise FaultsimError(f"{self.name} has patterns for images {list(size)}, not {list(shape)}")
            accesses = self.network.count_accesses()
            architecture = Architecture("neuralfuse.lookup:create_untrained", self.network.describe())
        elif self.name in generators.BASELINES:
            accesses = -(-self.stored.bytes // WORD_BYTES)  # read once for each image
        else:
            accesses = count_weight_accesses(self.network, shape, policy=POLICIES["paper-generator"])
        return Variant(
            f"with {self.name}",
            NeuralFuse(self.network).to(device).eval(),
            accesses,
            self.fingerprint,
            architecture=architecture,
        )

    def prepare_export(self, data: Dataset | OwnBatches) -> ExportableModel:
        """Return F(x) = clamp(x + G(x), -1, 1) as a model that can be written as an ONNX file.

        Parameters
        ----------
        data
            Images to check the file with, at least 3.

        Raises
        ------
        FaultsimError
            If the generator does not fit images of this shape.
        """
        check_generator_size(self.name, data.input_shape)
        configuration = {"generator": self.name, "weights": self.fingerprint, "trained": self.metadata}
        return ExportableModel(
            self.name,
            NeuralFuse(self.network),
            self.stored,
            data,
            configuration,
            "transformed",
            " without bit errors",
        )


def read_generator(path: str | Path) -> SavedGenerator:
    """Read a generator's weight file with its metadata and int8 weights.

    Raises
    ------
    FaultsimError
        If the file is damaged or holds no generator.
    """
    metadata = read_file(path)[1]
    name = metadata.get("generator")
    if name == LOOKUP:
        lookup = read_lookup(metadata.get(LOOKUP), path)
        return SavedGenerator(lookup.name, lookup, load_weights(lookup, path)[0], metadata)
    if not isinstance(name, str) or name not in (*generators.KNOWN, *generators.BASELINES):
        raise FaultsimError(
            f"{path} holds no generator: its metadata must name one of {', '.join(generators.KNOWN)}"
        )
    network = generators.create(name)
    stored, _ = load_weights(network, path)
    return SavedGenerator(name, network, stored, metadata)


def create_untrained(name: str) -> NeuralFuse:
    """Create the module of an architecture, one of ``neuralfuse.generators.KNOWN``, with random weights."""
    return NeuralFuse(generators.create(name))


def load(path: str | Path) -> NeuralFuse:
    """Load a generator as the module that stands in front of a base model.

    Parameters
    ----------
    path
        Weight file (.safetensors), as `save` or ``faultsim train-generator`` writes it.

    Returns
    -------
    NeuralFuse
        F(x) = clamp(x + G(x), -1, 1), in evaluation mode, on the CPU. Pass it to ``faultsim.evaluate(transform=...)``.

    Raises
    ------
    FaultsimError
        If the file is damaged or holds no generator.

    Examples
    --------
    >>> import neuralfuse
    >>> from neuralfuse.bundled import GENERATORS
    >>> fuse = neuralfuse.load(GENERATORS["DigitsVGG"].weights)
    """
    return NeuralFuse(read_generator(path).network).eval()


def save(
    path: str | Path,
    generator: NeuralFuse | nn.Module,
    name: str,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write a generator's weight file, with int8 weights.

    Parameters
    ----------
    path
        File to write (.safetensors). It is written atomically.
    generator
        A NeuralFuse module, or the generator G in it.
    name
        Architecture, one of ``neuralfuse.generators.KNOWN``.
    metadata
        JSON values that the file keeps: training, base model, dataset.

    Raises
    ------
    FaultsimError
        If the generator does not have this architecture, or the file cannot be written.
    """
    network = generator.generator if isinstance(generator, NeuralFuse) else generator
    if not generators.has_architecture(network, name):
        raise FaultsimError(f"this generator does not have the architecture {name}: name the one that it has")
    save_weights(path, network, {**(metadata or {}), "generator": name})
