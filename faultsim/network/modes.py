"""Evaluation mode for a while."""

import contextlib
from collections.abc import Iterator

from torch import nn


@contextlib.contextmanager
def evaluation_mode(*modules: nn.Module | None) -> Iterator[None]:
    """Put modules into evaluation mode, and each of their parts back into its own mode afterwards.

    Parts of a model in training may be frozen, so one mode for the whole model would not do. None is passed over.
    """
    given = [module for module in modules if module is not None]
    modes = [(part, part.training) for module in given for part in module.modules()]
    try:
        for module in given:
            module.eval()
        yield
    finally:
        for part, training in modes:
            part.training = training
