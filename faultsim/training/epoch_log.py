"""The log of a training, OUT.log.jsonl, and its entries as lines for people."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..io.files import write_text

ENDING = ".log.jsonl"
_ABOUT = ("stage", "epoch", "seconds", "world_size")  # entries that are no means over the epoch


class EpochLog:
    """One JSON object per line and epoch: the stage (in trainings that have several), the epoch, means, seconds.

    The file is written anew, atomically, after every epoch. A training that continues keeps the entries of the epochs
    before; whatever else the file holds is dropped.

    Parameters
    ----------
    path
        File, or None for no file.
    stages
        Names of the stages, in their order; empty for a training without stages.
    """

    def __init__(self, path: Path | None, stages: Sequence[str] = ()) -> None:
        self.path, self.stages = path, list(stages)
        self.began = time.monotonic()
        found = path.read_text(encoding="utf-8", errors="replace") if path and path.exists() else ""
        entries = [entry for line in found.splitlines() if (entry := _parse(line)) is not None]
        self.entries = {place: entry for entry in entries if (place := self._place(entry)) is not None}

    def add(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """Write an entry with the seconds since this session began; returns the complete entry."""
        whole = {**entry, "seconds": round(time.monotonic() - self.began, 1)}
        if "world_size" in whole:  # stays last, as in older logs
            whole["world_size"] = whole.pop("world_size")
        place = self._place(whole)
        if place is None:
            raise ValueError(f"no entry of this training: {entry}")
        before = {other: kept for other, kept in self.entries.items() if other < place}
        self.entries = {**dict(sorted(before.items())), place: whole}
        if self.path is not None:
            write_text(self.path, "".join(json.dumps(kept) + "\n" for kept in self.entries.values()))
        return whole

    def _place(self, entry: Mapping[str, Any]) -> tuple[int, int] | None:
        """Return the numbers of the stage and of the epoch; None for an entry of another training."""
        stage, epoch = entry.get("stage"), entry.get("epoch")
        if type(epoch) is not int or (stage is not None) != bool(self.stages):
            return None
        if stage is None:
            return 0, epoch
        return (self.stages.index(stage), epoch) if stage in self.stages else None


class Progress:
    """Formats log entries: "epoch 3/100: loss 0.4312, clean 0.0921, perturbed 0.0678, at most 5 min left".

    Parameters
    ----------
    epochs
        Largest number of epochs, of each stage by its name; without stages under the name "".
    """

    def __init__(self, epochs: Mapping[str, int]) -> None:
        self.epochs = epochs
        self.first: int | None = None

    def format(self, entry: Mapping[str, Any]) -> str:
        """Return the line of an entry that EpochLog.add returned."""
        stage, epoch = entry.get("stage", ""), entry["epoch"]
        total = self.epochs[stage]
        means = [
            f"{name.replace('_', ' ')} {value:.4f}" for name, value in entry.items() if name not in _ABOUT
        ]
        where = f"epoch {epoch}/{total}"
        if stage:
            number = list(self.epochs).index(stage) + 1
            return f"stage {number}/{len(self.epochs)}, {stage}, {where}: {', '.join(means)}"
        self.first = self.first or epoch
        left = entry["seconds"] / (epoch - self.first + 1) * (total - epoch)
        return f"{where}: {', '.join(means)}, at most {left / 60:.0f} min left"


def _parse(line: str) -> dict[str, Any] | None:
    """Parse an object in JSON; None for anything else, because anybody may have changed a log."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None
