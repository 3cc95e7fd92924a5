"""Train a bundled generator anew: `python -m neuralfuse.bundled.train [MODEL [FILE]]`. Takes some minutes on a CPU.

The bit error rate is that of a voltage where the bundled model begins to fail. ConvXS is trained by EOPM; the loss of a
step depends far more on its chips than on its images, so a step has many chips and few images. ConvQS is trained in
stages. Every number that differs from, or equals, a default is written out, so that the result does not change with the
defaults.
"""

import sys
from pathlib import Path

from faultsim import bundled
from faultsim.errors import FaultsimError
from faultsim.subject import load_subject

from ..stages import Stage, Staged
from ..to_file import train
from ..training import Training
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
    """Train the generator of a bundled model to its file, or to another one."""
    if name not in GENERATORS:
        raise FaultsimError(f"no bundled generator for {name!r}; there are some for {', '.join(GENERATORS)}")
    generator = GENERATORS[name]
    path = path or generator.weights
    train(path, generator.name, lambda: [load_subject(name)], TRAININGS[name], report=print, resumable=False)
    print(f"written to {path}")


if __name__ == "__main__":
    main(*sys.argv[1:])
