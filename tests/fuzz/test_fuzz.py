"""A short part of the fuzzing, the same every time; `make fuzz` goes on for as long as one wants."""

import random
import time

import pytest

from faultsim.errors import FaultsimError
from tests.fuzz import mutations, run
from tests.fuzz.readers import Reader
from tests.fuzz.run import Judge, fuzz

COUNT = 380  # inputs of all readers together


def test_no_file_breaks_a_reader():
    inputs, accepted, findings = fuzz(COUNT, float("inf"), seed=0)
    assert not findings
    assert set(inputs.values()) == {-(-COUNT // len(inputs))}  # whole rounds
    assert len(inputs) >= 19
    assert 0 < sum(accepted.values()) < COUNT  # neither everything is refused nor nothing


def _asked(read, tmp_path, summed: bool = False) -> str:
    """The finding about a reader."""
    judge = Judge([Reader("made", {"a": b"0123456789"}, read, summed)], tmp_path / "input")
    try:
        return judge.ask(0, 0, 0).finding
    finally:
        judge.end()


def test_what_is_wrong_is_found(tmp_path, monkeypatch):
    """The harness sees what it is there for."""

    def refuse(message):
        raise FaultsimError(message)

    def shout(path, folder):
        error = FaultsimError()
        error.args = ("x" * 301,)
        raise error

    assert _asked(lambda path, folder: refuse("clear"), tmp_path) == ""
    assert _asked(lambda path, folder: path.read_bytes(), tmp_path) == ""
    assert _asked(lambda path, folder: path.read_bytes(), tmp_path, summed=True).startswith("accepted, but")
    assert _asked(lambda path, folder: {}["a"], tmp_path).startswith("KeyError")
    monkeypatch.setattr(run, "MEMORY", 1 << 27)
    assert _asked(lambda path, folder: bytes(3 << 30), tmp_path).startswith("MemoryError")
    assert "MiB" in _asked(lambda path, folder: len(b"x" * (150 << 20)), tmp_path)
    assert _asked(shout, tmp_path).startswith("a message of 301 characters")
    monkeypatch.setattr(run, "SECONDS", 0.01)
    assert _asked(lambda path, folder: sum(range(3_000_000)), tmp_path).endswith(" s")
    monkeypatch.setattr(run, "PATIENCE", 0.3)
    assert _asked(lambda path, folder: time.sleep(5), tmp_path) == "hangs"


@pytest.mark.parametrize("mutation", mutations.ANY, ids=lambda mutation: mutation.__name__)
def test_mutations_change_what_they_get_and_are_the_same_again(mutation):
    content = b"voltage,rate\n1.0,0.5\n" * 20
    made = [mutation(content, random.Random(seed)) for seed in range(20)]
    assert made == [mutation(content, random.Random(seed)) for seed in range(20)]
    assert sum(changed != content for changed in made) >= 10
