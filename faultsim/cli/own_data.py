"""What --data and the options beside it ask for."""

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import FaultsimError

if TYPE_CHECKING:
    from ..data.sources import OwnData


def own_data(
    data: str | None,
    input_size: str | None = None,
    mean: str | None = None,
    std: str | None = None,
    dataset: str | None = None,
    data_dir: Path | None = None,
) -> "OwnData | None":
    """The words of --data, --input-size, --mean and --std; None without --data. FaultsimError for words that don't go
    together."""
    sizes = {"--input-size": input_size, "--mean": mean, "--std": std}
    given = [name for name, word in sizes.items() if word is not None]
    from ..data.sources import OwnData

    if data is None:
        if given:
            raise FaultsimError(f"{given[0]} is for the pictures of a folder: add --data FOLDER")
        return None
    if dataset is not None or data_dir is not None:
        other = "--dataset" if dataset is not None else "--data-dir"
        raise FaultsimError(f"--data cannot be combined with {other}: give one of them")
    is_folder = Path(data).is_dir()
    if not is_folder and ":" not in data:
        raise FaultsimError(f"--data {data}: no such folder; your own function is package.module:function")
    if given and not is_folder:
        raise FaultsimError(
            f"{given[0]} is for the pictures of a folder: {data} gives its own sizes and numbers"
        )
    if (mean is None) != (std is None):
        raise FaultsimError("--mean and --std belong together: give both")
    numbers = [
        None if text is None else _numbers(text, name) for text, name in ((mean, "--mean"), (std, "--std"))
    ]
    return OwnData(data, is_folder, None if input_size is None else parse_size(input_size), *numbers)


def own_text(
    text: Path | None,
    context: int | None,
    model: str | None,
    data: str | None,
    dataset: str | None,
    data_dir: Path | None,
) -> "OwnData | None":
    """The words of --text and --context; None without --text. FaultsimError for words that don't go together."""
    from ..bundled import HELD_OUT, LANGUAGE_MODELS
    from ..data.sources import OwnData
    from ..models.language import PREFIX

    language = model is not None and model.startswith(PREFIX)
    bundled = LANGUAGE_MODELS.get((model or "").removeprefix(PREFIX)) if language else None
    if text is None and bundled is not None and data is None:
        text = bundled / HELD_OUT
    if text is None:
        if context is not None:
            raise FaultsimError("--context is for the windows of a text: add --text FILE")
        if language and data is None:
            raise FaultsimError(f"{model} is a language model: add --text FILE")
        return None
    others = {"--data": data, "--dataset": dataset, "--data-dir": data_dir}
    for name, value in others.items():
        if value is not None:
            raise FaultsimError(f"--text cannot be combined with {name}: give one of them")
    if not language:
        raise FaultsimError(
            f"--text needs a language model, whose tokenizer divides it: add --model {PREFIX}FOLDER"
        )
    return OwnData(str(text), is_folder=False, is_text=True, context=context)


def parse_size(text: str, option: str = "--input-size") -> tuple[int, ...]:
    """(channels, height, width) of "1x28x28"."""
    sizes = text.lower().split("x")
    if len(sizes) != 3 or not all(re.fullmatch("[0-9]{1,6}", size.strip()) and int(size) for size in sizes):
        raise FaultsimError(f"{option} {text}: write channels x height x width, such as 1x28x28 or 3x224x224")
    return tuple(int(size) for size in sizes)


def _numbers(text: str, option: str) -> tuple[float, ...]:
    try:
        found = tuple(float(word) for word in text.split(","))
    except ValueError:
        found = ()
    if not found or not all(math.isfinite(number) for number in found):
        raise FaultsimError(
            f"{option} {text!r}: write a number, or one for each channel, such as 0.485,0.456,0.406"
        )
    return found
