"""The model that ships with faultsim: DigitsNet on scikit-learn's handwritten digits, trained by train.py beside this
file. It lets every command run at once, without a download."""

from pathlib import Path

MODEL = "DigitsNet"
DATASET = "digits"
WEIGHTS = Path(__file__).parent / "digitsnet.safetensors"
