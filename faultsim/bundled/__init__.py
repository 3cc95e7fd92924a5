"""Models that ship with faultsim, for scikit-learn's handwritten digits, trained by train.py beside this file. With
them every command runs at once, without a download."""

from pathlib import Path

DATASET = "digits"
MODELS = {name: Path(__file__).parent / f"{name.lower()}.safetensors" for name in ("DigitsNet", "DigitsVGG")}
"""Weight files."""

MODEL = "DigitsNet"
"""The default of every command."""
WEIGHTS = MODELS[MODEL]
