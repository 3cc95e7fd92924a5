"""Does `make gpu-check` select what it has to, keep what it found whatever fails, and need only what a GPU machine has?

Everything but the GPU's own results: parts are real commands, and the programs that a check runs run here on the CPU.
"""

import importlib.util
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import forked

ROOT = Path(__file__).resolve().parents[2]
CHECK = ROOT / "tools" / "gpu_check.py"
# Packages of ours that a machine with a GPU, nvcc and torch may lack.
MISSING = "pooch requests scalesim matplotlib expecttest playwright starlette urllib3 uvicorn onnxruntime"


def module(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


gpu_check = module(CHECK)
Done, Part = gpu_check.Done, gpu_check.Part


def python(name: str, code: str, **more) -> Part:
    """A part that runs a line of Python."""
    values = {"limit": 60, "read": gpu_check.ended} | more
    return Part(name, (sys.executable, "-c", code), **values)


def performed(parts: list[Part], path: Path, report: dict | None = None) -> tuple[bool, dict]:
    """(whether all passed, what the file says)"""
    good = gpu_check.perform(parts, report or {}, path, names=[part.name for part in parts])
    return good, json.loads(path.read_text())


# -- parts ------------------------------------------------------------------------------------------------------


def test_parts_that_fail_or_hang_leave_the_results_of_the_others(tmp_path, capsys):
    parts = [
        python("good", "print(1)"),
        python("bad", "import sys; print('half a result'); sys.exit('no luck')"),
        python("slow", "import time; print('begun', flush=True); time.sleep(100)", limit=2),
        Part("absent", ("surely-no-such-program",), 5, gpu_check.ended),
        python("tool", "print()", absent="the tool is not here"),
        python("after", "print()", needs="bad"),
        python("last", "print('{\"a\": 1}')", read=lambda d: {"summary": "1", "report": json.loads(d.out)}),
    ]
    begin = time.monotonic()
    good, found = performed(parts, tmp_path / "check.json", {"device": "none", "commit": "abc"})
    assert time.monotonic() - begin < 60
    assert not good
    records = found["parts"]
    assert list(records) == [part.name for part in parts]
    said = {name: (record["outcome"], record["summary"]) for name, record in records.items()}
    assert said == {
        "good": ("passed", "done"),
        "bad": ("failed", "exit status 1: no luck"),
        "slow": ("failed", "stopped after its limit of 2 s"),
        "absent": ("failed", "cannot be run: No such file or directory"),
        "tool": ("not run", "the tool is not here"),
        "after": ("not run", "bad failed"),
        "last": ("passed", "1"),
    }
    assert records["bad"]["output"] == ["half a result", "no luck"]
    assert records["slow"]["output"] == ["begun"]
    assert (found["outcome"], found["device"]) == ("failed", "none")
    assert found["last"] == {"a": 1, "commit": "abc"}
    assert found["seconds"] == pytest.approx(sum(r.get("seconds", 0) for r in records.values()), abs=0.1)
    for name in ("good", "last"):
        assert set(records[name]) == {"outcome", "command", "limit_s", "date", "summary", "seconds"}
    assert len(capsys.readouterr().out.splitlines()) == len(parts)


def test_the_file_is_there_after_each_part(tmp_path):
    path = tmp_path / "check.json"
    look = f"import json; d = json.load(open({str(path)!r})); print(d['outcome'], *d['parts'])"
    says = {"read": lambda done: {"summary": done.out.strip()}}
    good, found = performed([python("one", "print()"), python("two", look, **says)], path)
    assert found["parts"]["two"]["summary"] == "incomplete one"
    assert (good, found["outcome"]) == (True, "passed")


def test_a_part_that_is_repeated_replaces_its_result_alone(tmp_path):
    path, names = tmp_path / "check.json", ["one", "two"]
    report = {
        "parts": {"one": {"outcome": "failed", "seconds": 1}, "two": {"outcome": "passed", "seconds": 2}}
    }
    assert gpu_check.perform([python("one", "print()")], report, path, names=names)
    found = json.loads(path.read_text())
    assert found["parts"]["two"] == {"outcome": "passed", "seconds": 2}
    assert (found["parts"]["one"]["outcome"], found["outcome"]) == ("passed", "passed")


@pytest.mark.parametrize("key", [None, *gpu_check.SAME])
def test_results_of_another_machine_or_commit_are_not_kept(tmp_path, key):
    path = tmp_path / "check.json"
    about = dict.fromkeys(gpu_check.SAME, "a")
    found = {"parts": {"one": {}}, "kernel": {"rows": []}}
    path.write_text(json.dumps({**about, "outcome": "passed", **found}))
    assert gpu_check.kept(path, about | ({key: "b"} if key else {})) == ({} if key else found)


def test_results_of_changed_sources_and_damaged_files_are_not_kept(tmp_path):
    path = tmp_path / "check.json"
    about = {**dict.fromkeys(gpu_check.SAME, "a"), "commit": "a-dirty"}
    path.write_text(json.dumps({**about, "parts": {"one": {}}}))
    assert gpu_check.kept(path, about) == {}
    for content in ("", "[]", '{"device": 1', "null"):
        path.write_text(content)
        assert gpu_check.kept(path, about | {"commit": "a"}) == {}
    assert gpu_check.kept(tmp_path / "none.json", about) == {}


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone(pid: int) -> bool:
    """Within ten seconds."""
    for _ in range(100):
        if not alive(pid):
            return True
        time.sleep(0.1)
    return False


GRANDCHILD = (
    "import subprocess, sys; p = subprocess.Popen(['sleep', '100']); print(p.pid, flush=True); p.wait()"
)


def test_a_part_that_is_stopped_takes_its_children_with_it(tmp_path):
    _, found = performed([python("slow", GRANDCHILD, limit=2)], tmp_path / "check.json")
    assert gone(int(found["parts"]["slow"]["output"][0]))


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_check_keeps_what_was_finished_and_leaves_no_process(tmp_path, how):
    path, pid = tmp_path / "check.json", tmp_path / "pid"
    code = f"""
import signal, sys
sys.path[:0] = [{str(CHECK.parent)!r}]
import gpu_check
gpu_check.signal_handlers()
slow = "import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(100)"
parts = [gpu_check.Part(name, (sys.executable, "-c", text), 100, gpu_check.ended)
         for name, text in (("quick", "print()"), ("slow", slow))]
gpu_check.perform(parts, {{}}, gpu_check.Path({str(path)!r}), names=["quick", "slow"])
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        while not (pid.is_file() and pid.read_text()):
            assert process.poll() is None, process.stderr.read().decode()
            time.sleep(0.05)
        process.send_signal(how)
        assert process.wait(30) != 0
    finally:
        process.kill()
        process.stderr.close()
    found = json.loads(path.read_text())
    assert (list(found["parts"]), found["outcome"]) == (["quick"], "incomplete")
    assert gone(int(pid.read_text()))


# -- what parts say ---------------------------------------------------------------------------------------------

RIGHT = "operators: 5 calls and 2 replays of graphs on cuda: all equal to the reference\n"
CLEAN = "========= COMPUTE-SANITIZER\n" + RIGHT + "========= ERROR SUMMARY: 0 errors\n"
NO_RACE = CLEAN.replace(
    "ERROR SUMMARY: 0 errors", "RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)"
)


@pytest.mark.parametrize("text", [CLEAN, NO_RACE])
def test_a_clean_report_of_the_sanitizer(text):
    assert "all equal to the reference" in gpu_check.sanitized(Done(0, text, ""))["summary"]


@pytest.mark.parametrize(
    ("status", "text", "complaint"),
    [
        (9, CLEAN.replace("0 errors", "1 error"), "ERROR SUMMARY: 1 error"),
        (0, CLEAN.replace("0 errors", "10 errors"), "ERROR SUMMARY: 10 errors"),
        (0, NO_RACE.replace("0 hazards", "2 hazards"), "RACECHECK SUMMARY: 2 hazards"),
        (1, CLEAN, "exit status 1"),
        (0, CLEAN.replace(RIGHT, ""), "did not come to its end"),
        (0, RIGHT, "no summary of the tool"),
        (
            0,
            CLEAN.replace(RIGHT, "========= Error: Device not supported. See\n" + RIGHT),
            "Device not supported",
        ),
    ],
)
def test_anything_else_that_the_sanitizer_says_is_a_failure(status, text, complaint):
    with pytest.raises(gpu_check.Failed, match=complaint):
        gpu_check.sanitized(Done(status, text, ""))


SOME_TESTS = """
import pytest
def test_good(): pass
def test_bad(): assert {bad}
@pytest.mark.skip(reason="one GPU only")
def test_skipped(): pass
"""


@pytest.mark.parametrize("bad", [False, True])
def test_counts_of_pytest(tmp_path, bad):
    (tmp_path / "test_some.py").write_text(SOME_TESTS.format(bad=not bad))
    report = tmp_path / "tests.xml"
    command = (sys.executable, "-m", "pytest", "-q", "-c", os.devnull, str(tmp_path), f"--junitxml={report}")
    record = gpu_check.run(Part("tests", command, 100, gpu_check.junit_counts(report)))
    if bad:
        assert record["outcome"] == "failed"
        assert record["summary"].startswith("1 passed, 1 failed, 1 skipped; exit status 1; ")
        assert "test_bad" in record["summary"]
    else:
        assert record["outcome"] == "passed"
        assert (record["passed"], record["failed"], record["skipped"]) == (2, 0, 1)
        assert list(record["skipped_because"].values()) == [1]
        assert "one GPU only" in next(iter(record["skipped_because"]))


def test_no_test_at_all_is_a_failure(tmp_path):
    with pytest.raises(gpu_check.Failed, match="no test was run"):
        gpu_check.junit_counts(tmp_path / "none.xml")(Done(2, "", ""))


# -- the machine ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> dict[str, str]:
    """An environment in which Python doesn't find what a GPU machine may lack."""
    folder = tmp_path_factory.mktemp("bare")
    (folder / "sitecustomize.py").write_text(
        f"import sys\nfrom importlib.machinery import PathFinder\nMISSING = {(MISSING + ' pytest_timeout').split()}\n"
        "class Bare(PathFinder):\n"
        "    @classmethod\n"
        "    def find_spec(cls, name, path=None, target=None):\n"
        "        return None if name.partition('.')[0] in MISSING else super().find_spec(name, path, target)\n"
        "sys.meta_path[sys.meta_path.index(PathFinder)] = Bare\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    code = "import importlib.util as u, sys; sys.exit(any(u.find_spec(name) for name in sys.argv[1:]))"
    subprocess.run([sys.executable, "-c", code, *MISSING.split()], env=environment, check=True)
    return environment


def run(*command: object, **settings) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=250,
        **settings,
    )


def test_without_a_gpu_it_refuses_in_one_line_and_writes_nothing(tmp_path):
    path = tmp_path / "check.json"

    def check(*options: object) -> forked.Done:
        program = f"import runpy; runpy.run_path({str(CHECK)!r}, run_name='__main__')"
        return forked.run(program, ["--out", path, *options], cwd=ROOT, env={"CUDA_VISIBLE_DEVICES": ""})

    assert check() == ("", "gpu-check: torch finds no GPU here\n", 2)
    assert list(tmp_path.iterdir()) == []
    path.write_text("{}")
    assert check("--parts", "kernel").status == 2
    assert path.read_text() == "{}"


def test_without_torch_it_refuses_in_one_line(tmp_path):
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\")\n")
    done = run(CHECK, "--out", tmp_path / "check.json", env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "gpu-check: torch cannot be used: ModuleNotFoundError: No module named 'torch'\n"
    assert not (tmp_path / "check.json").exists()


def test_where_nvcc_is_looked_for(tmp_path):
    for name in ("first", "second", "third/bin"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "nvcc").touch(0o755)
    named, on_path, home = str(tmp_path / "first/nvcc"), str(tmp_path / "second"), str(tmp_path / "third")
    assert gpu_check.find_nvcc({"CUDACXX": named, "PATH": on_path, "CUDA_HOME": home}) == named
    assert gpu_check.find_nvcc({"PATH": on_path, "CUDA_HOME": home}) == f"{on_path}/nvcc"
    assert gpu_check.find_nvcc({"PATH": home, "CUDA_HOME": home}) == f"{home}/bin/nvcc"


def test_the_parts(tmp_path):
    parts = gpu_check.parts("90-real", {"PATH": str(tmp_path)})
    assert tuple(part.name for part in parts) == gpu_check.NAMES
    shown = {part.name: part.shown for part in parts}
    assert shown["build"].startswith(
        "FAULTSIM_CUDA=ON CUDAARCHS=90-real python3 setup.py build_ext --inplace"
    )
    assert shown["tests"].startswith("FAULTSIM_REQUIRE_CUDA=1 python3 -m pytest")
    assert [part.name for part in parts if part.absent] == ["memcheck", "racecheck"]
    (tmp_path / "compute-sanitizer").touch(0o755)
    assert not any(part.absent for part in gpu_check.parts("90-real", {"PATH": str(tmp_path)}))
    for part in parts:
        for word in part.command:
            if word.endswith(".py"):
                assert (ROOT / word).is_file(), word


@pytest.mark.parametrize("name", ["kernel", "formats", "eopm", "evaluation"])
def test_the_benchmarks_have_the_options_they_are_given(name):
    import typer

    from faultsim.cli import app

    (part,) = (part for part in gpu_check.parts("90-real", {"PATH": ""}) if part.name == name)
    words = list(part.command[part.command.index("faultsim") + 1 :])
    command = typer.main.get_command(app)
    while words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


def test_every_gpu_test_is_in_the_files_that_are_run(bare, request):
    """And those can be collected without what a GPU machine may lack."""

    def collected(*words: str, **settings) -> list[str]:
        done = run("-m", "pytest", "-q", "--collect-only", "-m", "cuda", *words, **settings)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return sorted(line for line in done.stdout.splitlines() if "::" in line)

    options = request.config.option
    if options.keyword or options.markexpr or [*map(Path, request.config.args)] != [Path("tests")]:
        every = collected()
    else:  # this session has collected all tests
        every = sorted(item.nodeid for item in request.session.items if item.get_closest_marker("cuda"))
    assert len(every) > 200
    assert collected("-p", "no:timeout", *gpu_check.gpu_tests(), env=bare) == every


# What each benchmark is given on the CPU: something small.
SMALL = {
    "kernel": "--device cpu --weights 20000 --seconds 0.01 --json",
    "formats": "--device cpu --weights 20000 --seconds 0 --json",
    "eopm": "--device cpu --model DigitsNet --batch-size 4 --n-models 1 --rounds 1 --precision bfloat16 --json",
    "evaluation": "--device cpu --model DigitsNet --images 40 --chips 2 --rounds 1 --json",
}


@pytest.mark.parametrize("name", SMALL)
def test_the_benchmarks_run_on_a_bare_machine_and_their_report_is_read(bare, name, tmp_path):
    (part,) = (part for part in gpu_check.parts("90-real", {"PATH": ""}) if part.name == name)
    command = (sys.executable, "-m", "faultsim", "bench", name, *shlex.split(SMALL[name]))
    path = tmp_path / "check.json"
    small = Part(name, command, 200, part.read, bare)
    assert gpu_check.perform([small], {"commit": "abc"}, path, names=[name])
    found = json.loads(path.read_text())
    assert found[name]["benchmark"] == name
    assert found[name]["commit"] == "abc"
    assert found[name]["device"]
    assert re.search(r"\d\.\d", found["parts"][name]["summary"])


# -- the operators under a sanitizer ----------------------------------------------------------------------------

OPERATORS = ROOT / "tests" / "sanitize" / "operators.py"


def test_the_program_for_the_sanitizer_is_right_on_the_cpu(bare):
    """4 kinds, 7 places, 3 rates, 2 addresses; 5 operators, the two that dequantize to 3 dtypes with 2 axes.
    31 formats, 2 addresses, 3 dtypes, 2 operators."""
    done = run(OPERATORS, "--device", "cpu", env=bare)
    calls = 4 * 7 * 3 * 2 * (3 + 2 * 3 * 2) + 31 * 2 * 3 * 2
    assert (
        done.stdout
        == f"operators: {calls} calls and 0 replays of graphs on cpu: all equal to the reference\n"
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("wrong", ["failing", "states", "read"])
def test_the_program_for_the_sanitizer_sees_a_wrong_bit(monkeypatch, wrong):
    monkeypatch.syspath_prepend(str(OPERATORS.parent))
    operators = module(OPERATORS)
    right = operators.by_reference

    def by_reference(*args):
        found = dict(zip(("failing", "states", "read"), right(*args), strict=True))
        found[wrong].reshape(-1)[-1] ^= 64
        return tuple(found.values())

    place = operators.PLACES[0]
    assert operators.check("cpu", "stuck", place, 1e-2) == 2 * 15
    monkeypatch.setattr(operators, "by_reference", by_reference)
    with pytest.raises(SystemExit, match="wrong result"):
        operators.check("cpu", "stuck", place, 1e-2)
