"""Renews the record of what commands come to.

    python tests/recorded/record.py [NAME ...]

Runs every case of commands.py (or those named) and writes its facts into tests/recorded/facts/. Renew it only where a
result has to change, and say why in the commit. PYTHONPATH chooses another checkout of faultsim to record from.
"""

import json
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))

from tests.recorded import commands, facts

FACTS = Path(__file__).parent / "facts"


def locate_file(name: str) -> Path:
    return FACTS / f"{name.replace(' ', '-')}.json"


def observe(recorded: commands.Recorded, folder: Path) -> dict:
    """Run a case in an empty folder; its facts."""
    printed = commands.run(recorded, folder)
    return facts.gather(printed, folder, inputs={"weights.npy", "own.csv"})


def main(names: list[str]) -> None:
    import faultsim

    print(f"recording {Path(faultsim.__file__).parent}")
    FACTS.mkdir(exist_ok=True)
    for recorded in commands.RECORDED:
        if names and recorded.name not in names:
            continue
        with tempfile.TemporaryDirectory() as folder:
            record = {"machine": facts.machine(), "facts": observe(recorded, Path(folder))}
        locate_file(recorded.name).write_text(
            json.dumps(record, indent=0, sort_keys=True) + "\n", encoding="utf-8"
        )
        print(recorded.name)


if __name__ == "__main__":
    main(sys.argv[1:])
