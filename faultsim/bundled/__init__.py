"""Bundled models: with them every command runs at once, without a download.

train.py in this folder trained those for scikit-learn's handwritten digits. CharGPT, a language model that knows
characters, was trained on Python's own documentation by tools/text_model.py.
"""

from pathlib import Path

DATASET = "digits"
MODELS = {name: Path(__file__).parent / f"{name.lower()}.safetensors" for name in ("DigitsNet", "DigitsVGG")}
"""Weight files, by the names of the models."""

MODEL = "DigitsNet"
"""Default model of every command."""
WEIGHTS = MODELS[MODEL]
"""Its weight file."""

LANGUAGE_MODELS = {"CharGPT": Path(__file__).parent / "chargpt"}
"""Folders of language models, by what follows `transformers:` in their names."""
HELD_OUT = "held_out.txt"
"""Name of the text in such a folder that its model was not trained on."""
