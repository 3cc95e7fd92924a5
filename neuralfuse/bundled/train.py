"""Trains a shipped generator anew: `python -m neuralfuse.bundled.train [MODEL [FILE]]`. Takes some minutes on a CPU.

The bit error rate is that of a voltage where the shipped model has begun to fail. ConvXS is trained by EOPM; its steps
differ far more by their chips than by their images, so a step has many chips and few images. ConvQ is trained in
stages, and every length and rate is written down here, so that the command stays what it was.
"""

import sys
from pathlib import Path

import torch

from faultsim import bundled, models
from faultsim.data import find_augmentation, load
from faultsim.errors import FaultsimError
from faultsim.io.checkpoint import load_weights, save_weights
from faultsim.io.provenance import provenance

from .. import generators
from ..staged import Stage, Staged, judge, train_staged
from ..training import Base, Training, train_generator
from . import GENERATORS

TRAININGS: dict[str, Training | Staged] = {
    "DigitsNet": Training(
        bit_error_rate=0.02, n_models=10, batch_size=32, learning_rate=5e-3, max_epochs=20, seed=0
    ),
    "DigitsVGG": Staged(
        Training(
            bit_error_rate=0.03,
            n_models=5,
            loss="error_probability",
            divided=True,
            learning_rate=2e-3,
            schedule="linear",
            batch_size=96,
            max_epochs=8,
            seed=0,
        ),
        classifier=Stage(20, 128, 0.01, 400),
        patterns=Stage(6, 48, 0.05),
        pattern_models=3,
        drawing=Stage(15, 128, 0.01),
        smoothing=0.05,
        weight_decay=0.01,
        temperature=0.03,
        choice=0.03,
    ),
}


def main(name: str = bundled.MODEL, path: str | Path | None = None) -> None:
    if name not in GENERATORS:
        known = ", ".join(GENERATORS)
        raise FaultsimError(f"no generator for {name!r} ships with faultsim, but for {known}")
    training, made = TRAININGS[name], GENERATORS[name]
    eopm = training if isinstance(training, Training) else training.eopm
    torch.manual_seed(eopm.seed)
    generator = generators.create(made.name)
    model = models.create(name)
    stored, trained = load_weights(model, bundled.MODELS[name])
    data, base = load(bundled.DATASET, "train"), Base(model, stored)
    augment = find_augmentation(bundled.DATASET)
    if isinstance(training, Training):
        curve, cost = train_generator(
            generator,
            [base],
            data,
            training,
            augment=augment,
            report=lambda epoch: print(f"epoch {epoch.epoch}: loss {epoch.loss:.4f}", flush=True),
        )
        losses, found = vars(curve[-1]), {"cost": cost.describe()}
    else:
        outcome = train_staged(
            generator,
            [base],
            data,
            training,
            augment=augment,
            report=lambda stage, entry: print(stage, entry, flush=True),
        )
        curve = outcome.curves["eopm"]
        losses, found = curve[-1], judge(outcome, base, load(bundled.DATASET, "test"), training)
    metadata = {
        "generator": made.name,
        "dataset": data.name,
        "dataset_fingerprint": data.fingerprint,
        "base": {"model": name, "trained": trained},
        "training": training.describe(),
        **found,
        "epochs": len(curve),
        "losses": losses,
        **provenance(),
    }
    path = path or made.weights
    save_weights(path, generator, metadata)
    print(f"written to {path}")


if __name__ == "__main__":
    main(*sys.argv[1:])
