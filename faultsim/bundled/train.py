"""Train a bundled model anew: `python -m faultsim.bundled.train [MODEL [FILE]]`. Takes a minute on a CPU."""

import sys
from pathlib import Path

from ..data import find_augmentation, load
from ..errors import FaultsimError
from ..training.classifier import Recipe
from ..training.to_file import train_classifier_to_file
from . import DATASET, MODEL, MODELS

RECIPES = {
    name: Recipe(
        "digits", epochs=epochs, batch_size=128, learning_rate=0.1, weight_decay=5e-4, schedule="one_cycle"
    )
    for name, epochs in {"DigitsNet": 40, "DigitsVGG": 30}.items()
}


def main(name: str = MODEL, path: str | Path | None = None) -> None:
    """Train one of MODELS to its file, or to another one."""
    if name not in MODELS:
        raise FaultsimError(f"no bundled model {name!r}; the bundled models are {', '.join(MODELS)}")
    metadata = train_classifier_to_file(
        path or MODELS[name],
        name,
        load(DATASET, "train"),
        load(DATASET, "test"),
        RECIPES[name],
        augment=find_augmentation(DATASET),
        report=print,
        resumable=False,
    )
    print(f"test accuracy {100 * metadata['test_accuracy']:.2f} %, written to {path or MODELS[name]}")


if __name__ == "__main__":
    main(*sys.argv[1:])
