"""Generators that ship with faultsim, one for each of its shipped models (faultsim.embedded).

ConvXS for DigitsNet is trained by train.py beside this file; ConvQ for DigitsVGG, in stages, by

    faultsim train-generator --model DigitsVGG --generator ConvQ --trainer staged --bit-error-rate RATE \\
        --epochs 20 --device cpu --out convq.safetensors
"""

from pathlib import Path

GENERATORS = {
    model: Path(__file__).parent / f"{name.lower()}.safetensors"
    for model, name in {"DigitsNet": "ConvXS", "DigitsVGG": "ConvQ"}.items()
}
"""Weight files, by the model that they protect."""

GENERATOR = "ConvXS"
WEIGHTS = GENERATORS["DigitsNet"]
"""Of the default model."""
