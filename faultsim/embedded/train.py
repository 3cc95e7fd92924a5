"""Trains the shipped model anew: `python -m faultsim.embedded.train [FILE]`. Takes a minute on a CPU."""

import sys

import torch

from .. import models
from ..checkpoint import save_weights
from ..data import augmentation_for, batches, load
from ..provenance import provenance
from ..train import Recipe, train_classifier
from . import DATASET, MODEL, WEIGHTS

SEED = 0
RECIPE = Recipe(
    "digits", epochs=40, batch_size=128, learning_rate=0.1, weight_decay=5e-4, schedule="one_cycle"
)


def main(path=WEIGHTS) -> None:
    torch.manual_seed(SEED)
    model = models.create(MODEL)
    training, test = load(DATASET, "train"), load(DATASET, "test")
    train_classifier(
        model,
        training,
        RECIPE,
        seed=SEED,
        augment=augmentation_for(DATASET),
        report=lambda epoch: print(f"epoch {epoch.epoch}: loss {epoch.loss:.4f}"),
    )
    with torch.inference_mode():
        correct = sum(int((model(x).argmax(1) == y).sum()) for x, y in batches(test, 512))
    accuracy = correct / len(test)
    print(f"test accuracy {100 * accuracy:.2f} %")
    metadata = {
        "model": MODEL,
        "num_classes": test.num_classes,
        "dataset": DATASET,
        "dataset_fingerprint": training.fingerprint,
        "recipe": vars(RECIPE),
        "seed": SEED,
        "test_accuracy": accuracy,
        **provenance(),
    }
    save_weights(path, model, metadata)
    print(f"written to {path}")


if __name__ == "__main__":
    main(*sys.argv[1:])
