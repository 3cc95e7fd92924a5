"""Train a bundled generator anew: `python -m neuralfuse.bundled.train [MODEL [FILE]]`. Takes some minutes on a CPU.

`python -m neuralfuse.bundled.train MODEL FILE.classifier.safetensors` trains the classifier of the generator's size,
with which a comparison compares it: its encoder with a linear head, as the first stage of staged training makes it.

The bit error rate is that of a voltage where the bundled model begins to fail. ConvXS is trained by EOPM; the loss of a
step depends far more on its chips than on its images, so a step has many chips and few images. ConvQS is trained in
stages. Every number that differs from, or equals, a default is written out, so that the result does not change with the
defaults.
"""

import sys
from pathlib import Path

import torch

from faultsim import bundled
from faultsim import data as datasets
from faultsim.errors import FaultsimError
from faultsim.evaluation import evaluate
from faultsim.faults import Chip
from faultsim.io.provenance import record_provenance
from faultsim.stored import StoredWeights
from faultsim.studies.subject import Subject, load_subject

from .. import generators
from ..stage_files import CLASSIFIER_ENDING as ENDING
from ..stage_files import save_classifier
from ..staged import train_classifier
from ..stages import Stage, Staged
from ..to_file import train
from ..training import Base, Training
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
    """Train the generator of a bundled model, or the classifier of its size, to its file or to another one."""
    if name not in GENERATORS:
        raise FaultsimError(f"no bundled generator for {name!r}; there are some for {', '.join(GENERATORS)}")
    generator = GENERATORS[name]
    path = Path(path or generator.weights)
    if path.name.endswith(ENDING):
        write_classifier(path, name)
    else:
        train(
            path, generator.name, lambda: [load_subject(name)], TRAININGS[name], report=print, resumable=False
        )
    print(f"written to {path}")


def write_classifier(path: Path, name: str) -> None:
    """Train the classifier of the size of a bundled model's generator to a file."""
    training = TRAININGS[name]
    staged = training if isinstance(training, Staged) else Staged(training, classifier=Stage(200, 128, 0.01))
    torch.manual_seed(staged.eopm.seed)
    network = generators.create(GENERATORS[name].name)
    subject = load_subject(name)
    data = datasets.load(subject.dataset.name, "train")
    base = Base(subject.model, subject.stored)
    classifier, cost = train_classifier(
        network,
        [base],
        data,
        staged,
        augment=datasets.find_augmentation(data.name),
        report=lambda stage, entry: print(entry),
    )
    variant = Subject(name, classifier, StoredWeights.of(classifier), subject.dataset)
    about = {
        "generator": GENERATORS[name].name,
        "dataset": data.name,
        "dataset_fingerprint": data.fingerprint,
        "training": staged.describe(),
        **record_provenance(),
    }
    found = {
        "accuracy": evaluate(
            classifier, variant.data, [Chip(0)], bit_error_rate=0.0, stored=variant.stored
        ).mean,
        "accesses": variant.accesses,
    }
    save_classifier(path, classifier, about, found, cost.describe())


if __name__ == "__main__":
    main(*sys.argv[1:])
