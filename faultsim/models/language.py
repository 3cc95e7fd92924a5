"""Language models of the transformers library, from a local folder: safetensors and a configuration, no network."""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..bundled import LANGUAGE_MODELS
from ..errors import FaultsimError, FaultsimWarning, summarize_error
from ..support.extras import needs_extra

if TYPE_CHECKING:
    from torch import nn

PREFIX = "transformers:"
"""What the name of such a model begins with; its folder follows."""

_TOKENIZERS = ("tokenizer.json", "vocab.*", "*.model", "*.tiktoken")
"""Files of which a tokenizer has at least one; without any, transformers makes one that knows no word."""


def find_folder(name: str) -> Path:
    """Return the folder that a model's name means, which may be a bundled one.

    FaultsimError where it is none, or holds no configuration.
    """
    if not name.startswith(PREFIX):
        raise FaultsimError(f"model {name!r} is no language model: it must be {PREFIX}FOLDER")
    word = name.removeprefix(PREFIX)
    folder = LANGUAGE_MODELS.get(word) or Path(word)
    if not (folder / "config.json").is_file():
        raise FaultsimError(
            f"model {name!r} must be a folder with config.json, *.safetensors and a tokenizer, such as "
            "save_pretrained() writes it"
        )
    return folder


def load_language_model(name: str) -> "nn.Module":
    """Load a language model that predicts the next token.

    Parameters
    ----------
    name
        transformers:FOLDER, or transformers:CharGPT for the bundled one. The folder holds config.json and
        *.safetensors. Without safetensors the model is built from its configuration, with random weights (a warning
        says so). Nothing is downloaded or unpickled, and no code of the folder runs.

    Returns
    -------
    Module
        In evaluation mode and float32. It takes tokens int64 [B, T] and returns an object with logits [B, T, tokens].

    Raises
    ------
    FaultsimError
        For folders that cannot be read, models of another kind, and weights that are missing.
    """
    folder = find_folder(name)
    with needs_extra("transformers"):
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM
    weights = any(folder.glob("*.safetensors"))
    if not weights and any(folder.glob("*.bin")):
        raise FaultsimError(
            f"model {name!r} has pickled weights only, which are never opened here: write *.safetensors with "
            "save_pretrained()"
        )
    with _readable(name), _quiet():
        configuration = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if type(configuration) not in AutoModelForCausalLM._model_mapping:
            raise FaultsimError(f"a {configuration.model_type} model predicts no next token")
        if weights:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
            model, found = loaded
            if missing := sorted(found["missing_keys"]):
                raise FaultsimError(f"its safetensors hold no {missing[0]!r}")
        else:
            warnings.warn(
                f"model {name!r} has no *.safetensors, so that its weights are random (seed 0)",
                FaultsimWarning,
                stacklevel=2,
            )
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                model = AutoModelForCausalLM.from_config(configuration, trust_remote_code=False)
    model.config.use_cache = False  # one pass over each window: keys and values are not needed again
    result: nn.Module = model.float().eval()
    return result


def tokenize(name: str, text: str) -> tuple[list[int], int | None]:
    """Divide a text into tokens of a language model's own tokenizer, without special ones.

    Parameters
    ----------
    name
        transformers:FOLDER.
    text
        Any text.

    Returns
    -------
    tokens : list of int
        Their numbers.
    longest : int or None
        How many tokens the model takes at once, where its configuration says so.

    Raises
    ------
    FaultsimError
        For a folder without a tokenizer.
    """
    folder = find_folder(name)
    if not any(found for pattern in _TOKENIZERS for found in folder.glob(pattern)):
        raise FaultsimError(
            f"model {name!r} has no tokenizer: save it there with tokenizer.save_pretrained()"
        )
    with needs_extra("transformers"):
        from transformers import AutoConfig, AutoTokenizer
    with _readable(name), _quiet():
        options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        configuration = AutoConfig.from_pretrained(folder, **options)
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        found = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    longest = getattr(configuration, "max_position_embeddings", None)
    return list(found), longest if isinstance(longest, int) and longest > 0 else None


@contextlib.contextmanager
def _readable(name: str) -> Iterator[None]:
    """Turn what transformers says of a folder that it cannot read into one line."""
    try:
        yield
    except FaultsimError as error:
        raise FaultsimError(f"model {name!r}: {error}") from None
    except Exception as error:  # transformers fails in many ways on foreign files
        raise FaultsimError(
            f"model {name!r} cannot be read ({type(error).__name__}: {summarize_error(error)})"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Let transformers show no progress and log errors only, meanwhile."""
    from transformers.utils import logging

    level, shown = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()
