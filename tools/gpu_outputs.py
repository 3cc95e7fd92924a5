"""What the outputs of a GPU check's parts say: results in words and numbers, or what is wrong in one line."""

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree


class Failed(Exception):
    """What is wrong with a part's output, in one line."""


@dataclass(frozen=True)
class Done:
    """A command that ended by itself."""

    status: int
    out: str
    err: str


def ended(done: Done) -> dict:
    """Nothing but the exit status."""
    require_success(done)
    return {"summary": "done"}


def require_success(done: Done) -> None:
    if done.status:
        raise Failed(": ".join([f"exit status {done.status}", *done.err.strip().splitlines()[-1:]]))


def junit_counts(report: Path) -> Callable[[Done], dict]:
    """Reads pytest's JUnit file."""

    def read(done: Done) -> dict:
        if not report.is_file():
            raise Failed(f"exit status {done.status}, and no test was run")
        cases = list(ElementTree.parse(report).getroot().iter("testcase"))
        bad = [
            f"{case.get('classname')}.{case.get('name')}"
            for case in cases
            if case.find("failure") is not None or case.find("error") is not None
        ]
        skips = [skip.get("message", "") for case in cases if (skip := case.find("skipped")) is not None]
        passed = len(cases) - len(bad) - len(skips)
        summary = f"{passed} passed, {len(bad)} failed, {len(skips)} skipped"
        if bad or done.status or not passed:
            raise Failed(f"{summary}; exit status {done.status}" + "".join(f"; {name}" for name in bad[:5]))
        return {
            "summary": summary,
            "passed": passed,
            "failed": len(bad),
            "skipped": len(skips),
            "skipped_because": dict(Counter(skips)),
        }

    return read


def sanitized(done: Done) -> dict:
    """Success is said twice: by the program, whose results were right, and by the tool, which found nothing."""
    if refusal := re.search(r"^=+ *(.*device not supported.*)$", done.out + done.err, re.M | re.I):
        raise Failed(f"compute-sanitizer says: {refusal[1]}")
    found = re.search(r"^=+ *((?:ERROR|RACECHECK) SUMMARY: .*)$", done.out + done.err, re.M)
    if found is None or not re.search(r"SUMMARY: 0 (errors|hazards)", found[1]) or done.status:
        raise Failed(f"exit status {done.status}, {found[1] if found else 'and no summary of the tool'}")
    right = re.search(r"^operators: .*: all equal to the reference$", done.out, re.M)
    if right is None:
        raise Failed("the tool reports nothing, but the program did not come to its end")
    return {"summary": f"{found[1]}; {right[0]}"}


def kernel_speed(done: Done) -> dict:
    """The summary shows what copies of weights are compared with."""
    require_success(done)
    report = json.loads(done.out)
    ratios: dict[str, list[str]] = {}
    for row in report["rows"]:
        if row["beside"] == "copy":
            ratios.setdefault(row["operation"], []).append(f"{row['ratio']:.2f}")
    words = "; ".join(f"{operation} {' '.join(values)}" for operation, values in ratios.items())
    return {"summary": f"speed beside a copy: {words}", "report": report}


def format_speed(done: Done) -> dict:
    require_success(done)
    report = json.loads(done.out)
    rows = [row for row in report["rows"] if row["operation"] == "decode"]
    words = "; ".join(f"{row['format']} to {row['output']} {row['ratio']:.2f}" for row in rows)
    return {"summary": f"speed beside a copy: {words}", "report": report}


def eopm_speed(done: Done) -> dict:
    require_success(done)
    report = json.loads(done.out)
    words = (
        f"a step takes {report['eopm']:.4f} s, {report['over_parts']:.2f} x its parts; "
        f"naive takes {report['naive_over']:.1f} x as long"
    )
    return {"summary": words, "report": report}


def evaluation_speed(done: Done) -> dict:
    require_success(done)
    report = json.loads(done.out)
    words = (
        f"{report['chips']} chips x {report['images']:,} images of {report['model']} take "
        f"{report['evaluation']:.2f} s, {report['over_plain']:.2f} x the plain model"
    )
    return {"summary": words, "report": report}
