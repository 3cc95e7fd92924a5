"""The generator that ships with faultsim, for its shipped model (faultsim.embedded), trained by train.py beside this
file."""

from pathlib import Path

GENERATOR = "ConvXS"
WEIGHTS = Path(__file__).parent / "convxs.safetensors"
