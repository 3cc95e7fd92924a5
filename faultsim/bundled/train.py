"""Trains a shipped model anew: `python -m faultsim.bundled.train [MODEL [FILE]]`. Takes a minute on a CPU."""

import sys
from pathlib import Path

import torch

from .. import models
from ..data import batches, find_augmentation, load
from ..errors import FaultsimError
from ..io.checkpoint import save_weights
from ..io.provenance import provenance
from ..training.classifier import Recipe, train_classifier
from . import DATASET, MODEL, MODELS

SEED = 0
RECIPES = {
    "DigitsNet": Recipe(
        "digits", epochs=40, batch_size=128, learning_rate=0.1, weight_decay=5e-4, schedule="one_cycle"
    ),
    "DigitsVGG": Recipe(
        "digits", epochs=30, batch_size=128, learning_rate=0.1, weight_decay=5e-4, schedule="one_cycle"
    ),
}


def main(name: str = MODEL, path: str | Path | None = None) -> None:
    if name not in MODELS:
        raise FaultsimError(f"no model {name!r} ships with faultsim; those that do: {', '.join(MODELS)}")
    path, recipe = path or MODELS[name], RECIPES[name]
    torch.manual_seed(SEED)
    model = models.create(name)
    training, test = load(DATASET, "train"), load(DATASET, "test")
    train_classifier(
        model,
        training,
        recipe,
        seed=SEED,
        augment=find_augmentation(DATASET),
        report=lambda epoch: print(f"epoch {epoch.epoch}: loss {epoch.loss:.4f}", flush=True),
    )
    with torch.inference_mode():
        correct = sum(int((model(x).argmax(1) == y).sum()) for x, y in batches(test, 512))
    accuracy = correct / len(test)
    print(f"test accuracy {100 * accuracy:.2f} %")
    metadata = {
        "model": name,
        "num_classes": test.num_classes,
        "dataset": DATASET,
        "dataset_fingerprint": training.fingerprint,
        "recipe": vars(recipe),
        "seed": SEED,
        "test_accuracy": accuracy,
        **provenance(),
    }
    save_weights(path, model, metadata)
    print(f"written to {path}")


if __name__ == "__main__":
    main(*sys.argv[1:])
