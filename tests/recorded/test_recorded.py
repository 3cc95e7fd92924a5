"""Do commands come to the same numbers, files and weights as they did when they were recorded?"""

import json
from pathlib import Path

import pytest

from tests.recorded.commands import RECORDED, Recorded
from tests.recorded.facts import differences, gather, machine
from tests.recorded.record import FACTS, locate_file, observe


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda recorded: recorded.name.replace(" ", "-"))
def test_commands_come_to_what_was_recorded(recorded: Recorded, tmp_path: Path):
    record = json.loads(locate_file(recorded.name).read_text(encoding="utf-8"))
    found = json.loads(json.dumps(observe(recorded, tmp_path)))
    alike = record["machine"] == machine()
    differing = list(differences(record["facts"], found, alike=alike, trains=recorded.trains))
    assert not differing, "\n".join(
        [
            f"{len(differing)} facts differ, on a machine {'like' if alike else 'unlike'} the recorded one",
            *differing[:20],
        ]
    )


def test_each_record_belongs_to_a_case():
    assert {path.name for path in FACTS.iterdir()} == {
        locate_file(recorded.name).name for recorded in RECORDED
    }


@pytest.mark.parametrize(
    ("path", "new", "alike_differs", "elsewhere_differs"),
    [
        ("printed/0/mean", 0.85, True, False),
        ("printed/0/mean", 0.5, True, True),
        ("printed/0/bit_error_rate", 0.0100001, True, True),
        ("printed/0/configuration/chips/0", 1, True, True),
        ("files/base.safetensors/tensors/w/sha256", "f" * 16, True, False),
        ("files/base.safetensors/tensors/w/shape", "int8[3]", True, True),
        ("files/base.safetensors/tensors/w/rms", 1.04, True, False),
        ("files/base.safetensors/tensors/w/rms", 2.0, True, True),
        ("files/base.safetensors", None, True, True),
    ],
)
def test_a_difference_is_seen(path: str, new: object, alike_differs: bool, elsewhere_differs: bool):
    """Exact facts differ everywhere, floats of a model elsewhere only if they are far off."""

    def facts() -> dict:
        weight = {"shape": "int8[2]", "sha256": "0" * 16, "rms": 1.0}
        printed = {"mean": 0.9, "bit_error_rate": 0.01, "configuration": {"chips": [0]}}
        return {"printed": [printed], "files": {"base.safetensors": {"tensors": {"w": weight}}}}

    changed = facts()
    *folders, last = path.split("/")
    inner = changed
    for name in folders:
        inner = inner[int(name) if name.isdigit() else name]
    inner[int(last) if last.isdigit() else last] = new
    for alike, expected in ((True, alike_differs), (False, elsewhere_differs)):
        seen = list(differences(facts(), changed, alike=alike, trains=True))
        assert bool(seen) == expected
        assert all(line.startswith(path) for line in seen)


def test_digests_of_weights_that_are_not_trained_are_the_same_everywhere():
    assert list(differences({"sha256": "0" * 16}, {"sha256": "1" * 16}, alike=False, trains=False))


def test_what_varies_between_runs_is_no_fact(tmp_path: Path):
    text = (
        '{"date": "today", "rows": [{"seconds": 3.0, "mean": 1.5}], "note": "{\\"commit\\": 1, \\"k\\": 2}"}'
    )
    (tmp_path / "a.json").write_text(text)
    (tmp_path / "weights.npy").write_bytes(b"")
    facts = gather([text, "no JSON"], tmp_path, inputs={"weights.npy"})
    steady = {"rows": [{"mean": 1.5}], "note": {"k": 2}}
    assert facts == {"printed": [steady], "files": {"a.json": steady}}
