"""Trains the default model's generator anew: `python -m neuralfuse.embedded.train [FILE]`. Takes minutes on a CPU.

The bit error rate is that of a voltage where the shipped model has begun to fail. Steps differ far more by their chips
than by their images, so a step has many chips and few images.
"""

import sys
from pathlib import Path

import torch

from faultsim import embedded, models
from faultsim.checkpoint import load_weights, save_weights
from faultsim.data import augmentation_for, load
from faultsim.provenance import provenance

from .. import generators
from ..train import Base, Training, train_generator
from . import GENERATOR, WEIGHTS

TRAINING = Training(
    bit_error_rate=0.02, n_models=10, batch_size=32, learning_rate=5e-3, max_epochs=20, seed=0
)


def main(path: str | Path = WEIGHTS) -> None:
    torch.manual_seed(TRAINING.seed)
    model = models.create(embedded.MODEL)
    stored, trained = load_weights(model, embedded.WEIGHTS)
    generator = generators.create(GENERATOR)
    data = load(embedded.DATASET, "train")
    curve, _ = train_generator(
        generator,
        [Base(model, stored)],
        data,
        TRAINING,
        augment=augmentation_for(embedded.DATASET),
        report=lambda epoch: print(f"epoch {epoch.epoch}: loss {epoch.loss:.4f}", flush=True),
    )
    metadata = {
        "generator": GENERATOR,
        "dataset": data.name,
        "dataset_fingerprint": data.fingerprint,
        "base": {"model": embedded.MODEL, "trained": trained},
        "training": TRAINING.describe(),
        "epochs": len(curve),
        "losses": vars(curve[-1]),
        **provenance(),
    }
    save_weights(path, generator, metadata)
    print(f"written to {path}")


if __name__ == "__main__":
    main(*sys.argv[1:])
