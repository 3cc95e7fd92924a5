"""Bundled models, trained on scikit-learn's handwritten digits by train.py in this folder.

With them every command runs at once, without a download.
"""

from pathlib import Path

DATASET = "digits"
MODELS = {name: Path(__file__).parent / f"{name.lower()}.safetensors" for name in ("DigitsNet", "DigitsVGG")}
"""Weight files, by the names of the models."""

MODEL = "DigitsNet"
"""Default model of every command."""
WEIGHTS = MODELS[MODEL]
"""Its weight file."""
