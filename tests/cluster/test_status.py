"""What does `faultsim status` say of runs that go on, were stopped, or are complete?"""

import json

import pytest
from filelock import FileLock

import faultsim
from faultsim import FaultsimError
from faultsim.cli import main
from faultsim.io.run_status import read_status

POINTS = {"bit_error_rates": [0.0, 0.02]}


CPU = "AMD EPYC 7763 64-Core Processor, 1 threads"


class Stopped(Exception):
    pass


def stop_after(rows: int):
    seen = []

    def progress(row) -> None:
        seen.append(row)
        if len(seen) == rows:
            raise Stopped

    return progress


def status(capsys, *words) -> str:
    with pytest.raises(SystemExit) as end:
        main(["status", *map(str, words)])
    assert not end.value.code
    return capsys.readouterr().out


def test_a_run_that_was_stopped_and_went_on(subject, tmp_path, capsys):
    with pytest.raises(Stopped):
        faultsim.sweep_subject(subject, 6, **POINTS, out=tmp_path, progress=stop_after(2))
    found = read_status(tmp_path)
    assert (found.kind, found.state, found.total, found.unit) == ("sweep", "stopped", 12, "chips")
    assert 0 <= found.done < 12
    assert "the same command goes on" in status(capsys, tmp_path)
    faultsim.sweep_subject(subject, 6, **POINTS, out=tmp_path)
    found = read_status(tmp_path)
    assert (found.state, found.done, found.total, found.running) == ("complete", 12, 12, ())
    assert status(capsys, tmp_path) == f"{tmp_path}: sweep, complete; 12 of 12 chips, 100 %\n"
    assert not (tmp_path / "status.json").exists()


def test_what_runs_and_who_computes(in_process, subject, tmp_path, capsys):
    seen = []

    def look(row) -> None:
        if (tmp_path / "status.json").exists():
            seen.append(read_status(tmp_path))

    faultsim.sweep_subject(subject, 12, **POINTS, out=tmp_path, client=in_process, progress=look)
    assert seen
    assert {one.state for one in seen} == {"running"}
    assert seen[-1].total == 24
    assert sum(worker["jobs"] for worker in seen[-1].workers) >= 0
    assert {worker["host"] for worker in seen[-1].workers} == {seen[-1].workers[0]["host"]}
    assert all("chip" in name for one in seen for name in one.running)


def test_the_lines_and_the_table_fit(tmp_path, capsys):
    chips = list(range(1000))
    configuration = {"points": [{}] * 10, "chips": chips, "variants": [{}] * 3}
    (tmp_path / "sweep.json").write_text(json.dumps({"configuration": configuration}))
    (tmp_path / "results.csv").write_text("header\n" + "row\n" * 700)
    workers = [
        {
            "name": str(n),
            "host": f"node{n // 64:02}",
            "processor": CPU,
            "jobs": n,
        }
        for n in range(256)
    ]
    told = {"done": 10_000, "done_before": 5000, "total": 40_000, "seconds": 100.0, "unit": "chips"}
    told |= {"running": [f"unprotected, V = 0.{n}, chips 1 to 9" for n in range(30)], "workers": workers}
    told |= {"failed": [["unprotected, V = 0.78, chip 3", "each worker that ran it died"]]}
    (tmp_path / "status.json").write_text(json.dumps(told))
    assert read_status(tmp_path).state == "stopped"
    with FileLock(tmp_path / ".lock"):
        found, said = read_status(tmp_path), status(capsys, tmp_path)
        as_json = json.loads(status(capsys, tmp_path, "--json"))
    assert (found.state, found.done, found.total, found.seconds_left) == ("running", 10_000, 40_000, 600.0)
    lines = said.splitlines()
    assert lines[0] == f"{tmp_path}: sweep, running; 10,000 of 40,000 chips, 25 %"
    assert lines[1] == "running for 2 min, time left: 10 min"
    assert "running: 20 more" in lines
    assert "failed: unprotected, V = 0.78, chip 3: each worker that ran it died" in lines
    assert sum("node0" in line for line in lines) == 4
    assert max(map(len, lines[1:])) <= 80
    assert as_json["workers"] == workers
    assert as_json["seconds_left"] == 600.0


@pytest.mark.parametrize(
    ("name", "configuration", "total"),
    [
        ("vulnerability", {"parts": [["layer", "a"]] * 7, "chips": [1, 2, 3]}, 21),
        ("sweep", {"points": [{}] * 2, "chips": [1, 2], "generator": {"name": "g"}}, 8),
        ("sweep", {"points": [{}] * 2, "chips": [1, 2], "precision": 0.01}, None),
        ("sweep", "odd", None),
    ],
)
def test_how_many_chips_a_study_has(tmp_path, name, configuration, total):
    (tmp_path / f"{name}.json").write_text(json.dumps({"configuration": configuration}))
    found = read_status(tmp_path)
    assert (found.kind, found.state, found.done, found.total or None) == (name, "stopped", 0, total)


def test_a_reproduction(tmp_path):
    (tmp_path / "reproduce.json").write_text(json.dumps({"configuration": {}}))
    (tmp_path / "base-DigitsNet-digits-modern.safetensors").write_bytes(b"")
    told = {"done": 3, "done_before": 1, "total": 7, "seconds": 20.0, "unit": "steps", "running": ["train a"]}
    (tmp_path / "status.json").write_text(json.dumps(told))
    with FileLock(tmp_path / ".lock"):
        found = read_status(tmp_path)
    assert (found.kind, found.state, found.done, found.total, found.seconds_left) == (
        "reproduce",
        "running",
        3,
        7,
        40.0,
    )
    assert found.running == ("train a",)


@pytest.mark.parametrize("content", [None, "{", "[]", '{"done": "x"}'])
def test_other_directories_are_one_line(tmp_path, content):
    if content is not None:
        (tmp_path / "sweep.json").write_text("{}")
        (tmp_path / "status.json").write_text(content)
    with pytest.raises(FaultsimError) as error:
        read_status(tmp_path)
    assert "\n" not in str(error.value)
