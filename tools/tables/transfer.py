"""The table of look-ups in front of a base model that another recipe trained than their surrogates."""

from __future__ import annotations

import json
from pathlib import Path

from neuralfuse.paper.result import JOINED
from neuralfuse.paper.words import format_spread
from tools.tables.text import Notes, commit_and_date, markdown, reading

FOLDER = Path("results") / "transfer"


def other_recipe(root: Path) -> str:
    """What `faultsim evaluate --json` said, in the order of the files' names, which end with the surrogates."""
    notes, rows = Notes(), []
    for path in sorted((root / FOLDER).glob("*.json"), key=lambda path: path.stem):
        with reading(path):
            found = json.loads(path.read_text(encoding="utf-8"))
            how, of = found["configuration"], {row["name"]: row for row in found["accuracy"]}
            generator, surrogates = path.stem.rsplit("-", 2)[1:]
            note = (
                f"{len(how['chips'])} chips, {how['images']:,} images, in {how['compute']}; {found['device']}; "
                f"{commit_and_date(found)}"
            )
            rows.append(
                [
                    f"{how['model']} by `{how['trained']['recipe']['name'].split(',')[0]}`, {generator} of "
                    f"{surrogates.replace(JOINED, ' and ')}",
                    *(
                        format_spread(
                            100 * of[name]["mean"], 100 * of[name]["std"] if "std" in of[name] else None
                        )
                        for name in ("C.A.", "P.A.", "C.A.+N.F.", "P.A.+N.F.")
                    ),
                    notes.number(note),
                ]
            )
    return notes.below(markdown(["", "C.A.", "P.A.", "C.A.+N.F.", "P.A.+N.F.", ""], rows, 1))
