"""Training curves (*.log.jsonl), as train-base and train-generator write them."""

from pathlib import Path

from ...errors import FaultsimError
from ...io.bounds import parse_json, read_text
from .document import LARGEST, Chart, Point, Series, format_value

ENDING = ".log.jsonl"
MOST_BYTES = 16 << 20
MOST = 60
"""Points of a curve; longer ones are thinned out evenly."""
# a curve's quantities: key, name, factor; of a base model the accuracies, of a generator the losses
_ACCURACIES = (("accuracy", "training accuracy", 100.0), ("test_accuracy", "test accuracy", 100.0))
_LOSSES = (("clean", "without bit errors", 1.0), ("perturbed", "with bit errors", 1.0))


def make_chart(path: Path) -> Chart:
    """Make the chart of a training log. Raises FaultsimError for a damaged one."""
    entries = _entries(path)
    accuracies = all("accuracy" in entry for entry in entries)
    quantities = _ACCURACIES if accuracies else _LOSSES
    thinned = _thinned(entries)
    series = []
    for key, name, factor in quantities:
        points = [
            Point(entry["epoch"], factor * entry[key], _hover(name, entry, key, factor))
            for entry in thinned
            if key in entry
        ]
        if points:
            series.append(Series(name, tuple(points)))
    if not series:
        raise FaultsimError(f"{path} holds no training curve that is known")
    return Chart(
        title=path.name.removesuffix(ENDING),
        x_label="epoch",
        y_label="accuracy (%)" if accuracies else "cross entropy",
        series=tuple(series),
        y_range=(0, 103) if accuracies else (0, None),
        size="small",
    )


def _entries(path: Path) -> list[dict]:
    try:
        lines = read_text(path, MOST_BYTES).splitlines()
        entries = [parse_json(line) for line in lines if line.strip()]
        if not entries:
            raise ValueError("it is empty")
        for entry in entries:
            numbers = [value for value in entry.values() if isinstance(value, int | float)]
            if (
                "epoch" not in entry
                or len(numbers) != len(entry)
                or not all(abs(value) < LARGEST for value in numbers)
            ):
                raise ValueError("an entry is not made of an epoch and numbers")
    except (OSError, ValueError, AttributeError) as error:
        raise FaultsimError(f"{path} is no training log that faultsim wrote ({error})") from None
    return entries


def _thinned(entries: list[dict]) -> list[dict]:
    step = -(-len(entries) // MOST)
    kept = entries[::-1][::step][::-1]  # the last one is what counts
    return kept if kept[0] is entries[0] else [entries[0], *kept]


def _hover(name: str, entry: dict, key: str, factor: float) -> tuple[str, ...]:
    value = f"{factor * entry[key]:.2f} %" if factor == 100 else f"{entry[key]:.4f}"
    lines = [f"epoch {format_value(entry['epoch'])}", f"{name}: {value}"]
    if "loss" in entry:
        lines.append(f"loss: {entry['loss']:.4f}")
    return tuple(lines)
