"""Bundled generators, one for each bundled model (faultsim.bundled), trained by train.py in this folder."""

from pathlib import Path
from typing import NamedTuple


class BundledGenerator(NamedTuple):
    """A bundled generator."""

    name: str
    """Architecture, one of neuralfuse.generators.KNOWN."""
    weights: Path
    """Weight file, for `neuralfuse.load`."""


GENERATORS = {
    model: BundledGenerator(name, Path(__file__).parent / f"{name.lower()}.safetensors")
    for model, name in {"DigitsNet": "ConvXS", "DigitsVGG": "ConvQS"}.items()
}
"""By the name of the model that they protect."""

GENERATOR, WEIGHTS = GENERATORS["DigitsNet"]
"""Those of the default model."""
