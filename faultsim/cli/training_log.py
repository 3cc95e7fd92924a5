"""What a training of a generator tells while it runs: a line an epoch, and OUT.log.jsonl."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuralfuse.staged import Staged
    from neuralfuse.training import Epoch


def report_epochs(log: Path, epochs: int, world_size: int) -> Callable[["Epoch"], None]:
    """Writes each epoch to the log, and a line about it to stderr."""
    from ..io.files import write_text

    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    started, first = time.monotonic(), None

    def report(epoch: "Epoch") -> None:
        nonlocal first, lines
        first = first or epoch.epoch
        seconds = time.monotonic() - started
        left = seconds / (epoch.epoch - first + 1) * (epochs - epoch.epoch)
        entry = {**vars(epoch), "seconds": round(seconds, 1), "world_size": world_size}
        lines = [*lines[: epoch.epoch - 1], json.dumps(entry)]
        write_text(log, "\n".join(lines) + "\n")
        print(
            f"epoch {epoch.epoch}/{epochs}: loss {epoch.loss:.4f}, clean {epoch.clean:.4f}, "
            f"perturbed {epoch.perturbed:.4f}, at most {left / 60:.0f} min left",
            file=sys.stderr,
            flush=True,
        )

    return report


def report_stages(log: Path, staged: "Staged", images: int) -> Callable[[str, dict[str, Any]], None]:
    """Writes each epoch of each stage to the log, and a line about it to stderr."""
    from neuralfuse.staged import STAGES

    from ..io.files import write_text

    kept = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    entries = {(entry["stage"], entry["epoch"]): entry for entry in map(_logged, kept) if entry is not None}
    lengths = {stage: getattr(staged, stage).epochs_of(images) for stage in STAGES[:-1]}
    lengths["eopm"] = staged.eopm.max_epochs
    started = time.monotonic()

    def report(stage: str, entry: dict[str, Any]) -> None:
        seconds = round(time.monotonic() - started, 1)
        entries[stage, entry["epoch"]] = {"stage": stage, **entry, "seconds": seconds}
        write_text(log, "".join(json.dumps(kept) + "\n" for kept in entries.values()))
        values = ", ".join(f"{name} {value:.4f}" for name, value in entry.items() if name != "epoch")
        place = (
            f"stage {STAGES.index(stage) + 1}/{len(STAGES)}, {stage}, epoch {entry['epoch']}/{lengths[stage]}"
        )
        print(f"{place}: {values}", file=sys.stderr, flush=True)

    return report


def _logged(line: str) -> dict[str, Any] | None:
    """An entry of a log of stages; None for what is none, as a log may be anything."""
    try:
        entry = json.loads(line)
        return entry if {"stage", "epoch"} <= entry.keys() else None
    except (ValueError, AttributeError, RecursionError):
        return None
