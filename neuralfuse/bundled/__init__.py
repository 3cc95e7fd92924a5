"""Generators that ship with faultsim, one for each of its shipped models (faultsim.bundled), trained by train.py
beside this file."""

from pathlib import Path
from typing import NamedTuple


class Embedded(NamedTuple):
    """A generator that ships."""

    name: str  #: one of neuralfuse.generators.KNOWN
    weights: Path


GENERATORS = {
    model: Embedded(name, Path(__file__).parent / f"{name.lower()}.safetensors")
    for model, name in {"DigitsNet": "ConvXS", "DigitsVGG": "ConvQ"}.items()
}
"""By the model that they protect."""

GENERATOR, WEIGHTS = GENERATORS["DigitsNet"]
"""Of the default model."""
