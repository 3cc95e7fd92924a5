"""A text as test data of a language model: windows of tokens, and the tokens that follow."""

from os import PathLike
from pathlib import Path

import torch

from ..errors import FaultsimError
from ..io.bounds import read_text
from ..models.language import tokenize
from .own import OwnBatches

CONTEXT = 256
"""Tokens in a window, where the model takes as many."""
TOKENS_AT_ONCE = 2048
"""Tokens in a batch: of each, the model returns as many logits as it knows tokens."""
_MOST_BYTES = 1 << 30


def load_text(
    path: str | PathLike[str], model: str, context: int | None = None, windows: int | None = None
) -> OwnBatches:
    """Read a text, and cut it into windows that do not overlap.

    Each token but the first is predicted once, from those before it in its window: the first one of a window from one
    token, the last one from `context`. So a shorter context gives a higher perplexity.

    Parameters
    ----------
    path
        UTF-8 text file.
    model
        transformers:FOLDER, whose tokenizer is used.
    context
        Tokens in a window. Default: CONTEXT, or as many as the model takes if that is less.
    windows
        The first so many windows only.

    Returns
    -------
    OwnBatches
        Tokens int64 [B, context] with the tokens that follow, int64 [B, context]. What is left at the end is a shorter
        window of its own.

    Raises
    ------
    FaultsimError
        For a file that cannot be read or is too short, and a context or number of windows that is out of range.
    """
    try:
        text = read_text(Path(path), _MOST_BYTES)
    except FileNotFoundError:
        raise FaultsimError(f"text {path} does not exist") from None
    except (OSError, ValueError) as error:
        raise FaultsimError(
            f"text {path} cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from None
    tokens, longest = tokenize(model, text)
    if len(tokens) < 2:
        raise FaultsimError(f"text {path} has {len(tokens)} tokens: at least 2 are needed")
    length = context or min(CONTEXT, longest or CONTEXT)
    if length < 1 or (longest is not None and length > longest):
        raise FaultsimError(
            f"a context of {length} tokens: this model takes 1 to {longest or 'any number of'} tokens"
        )
    ids = torch.tensor(tokens, dtype=torch.int64)
    whole = (len(ids) - 1) // length
    inputs, targets = (ids[at : at + whole * length].reshape(whole, length) for at in (0, 1))
    count = max(1, TOKENS_AT_ONCE // length)
    batches = list(zip(inputs.split(count), targets.split(count), strict=True)) if whole else []
    if (len(ids) - 1) % length:
        batches.append((ids[None, whole * length : -1], ids[None, whole * length + 1 :]))
    if windows is not None:
        total = sum(len(rows) for rows, _ in batches)
        if not 1 <= windows <= total:
            raise FaultsimError(f"{windows} windows: text {path} has {total:,}, choose 1 to {total}")
        batches = _first_rows(batches, windows)
    return OwnBatches(batches, Path(path).name)


def _first_rows(
    batches: list[tuple[torch.Tensor, torch.Tensor]], count: int
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return the first windows of all."""
    found = []
    for inputs, targets in batches:
        if count > 0:
            found.append((inputs[:count], targets[:count]))
        count -= len(inputs)
    return found
