"""NeuralFuse: a small network in front of the input that restores the accuracy lost to bit errors.

    import neuralfuse

    fuse = neuralfuse.load("convs.safetensors")  # a torch module: F(x) = clamp(x + G(x), -1, 1)
    logits = base_model(fuse(images))

Names are loaded on first use: `import neuralfuse` alone imports neither torch nor a generator.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .adversarial import Adversarial as Adversarial
    from .eopm import EOPM as EOPM
    from .files import load as load
    from .files import save as save
    from .generators import NeuralFuse as NeuralFuse
    from .generators import create as create
    from .lookup_file import write_lookup as write_lookup
    from .paper.reproduction import reproduce as reproduce
    from .protection import Protection as Protection
    from .protection import evaluate_protected as evaluate_protected
    from .staged import train_staged as train_staged
    from .stages import Staged as Staged
    from .subject_protection import SubjectProtection as SubjectProtection
    from .subject_protection import evaluate_subject as evaluate_subject
    from .to_file import train as train
    from .training import Base as Base
    from .training import Training as Training
    from .training import train_generator as train_generator

_HOME = {
    "Adversarial": "adversarial",
    "Base": "training",
    "EOPM": "eopm",
    "NeuralFuse": "generators",
    "Protection": "protection",
    "Staged": "stages",
    "SubjectProtection": "subject_protection",
    "Training": "training",
    "create": "generators",
    "evaluate_protected": "protection",
    "evaluate_subject": "subject_protection",
    "load": "files",
    "reproduce": "paper.reproduction",
    "save": "files",
    "train": "to_file",
    "train_generator": "training",
    "train_staged": "staged",
    "write_lookup": "lookup_file",
}
__all__ = [*_HOME]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'neuralfuse' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
