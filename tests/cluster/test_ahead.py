"""Are the evaluations that workers compute ahead those of their chips, whatever order they end in and whoever fails?"""

import contextlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faultsim import Evaluation, FaultsimError
from faultsim.cluster.ahead import LEAST_SECONDS, Ahead, Plan
from faultsim.cluster.files import JobFiles
from faultsim.cluster.jobs import Done
from faultsim.cluster.journal import Journal
from faultsim.cluster.study import pack_evaluation, unpack_evaluation
from faultsim.metrics.metric import ACCURACY, METRICS

IMAGES = 1000


def right(case: int, chip: int) -> int:
    return (case * 7919 + chip * 104729) % (IMAGES + 1)


def result(case: int, first: int, end: int) -> Evaluation:
    return Evaluation(tuple(right(case, chip) for chip in range(first, end)), IMAGES)


class Shuffled:
    """Workers that end in a random order; each job fails with a probability."""

    def __init__(self, seed: int, failing: float = 0.0) -> None:
        self.random, self.failing = random.Random(seed), failing
        self.members, self.present, self.ran = {}, {"a", "b"}, []

    def run(self, next_job, files, tick):
        flying = []
        while True:
            while len(flying) < 6 and (job := next_job()) is not None:
                flying.append(job)
            if not flying:
                return
            job = flying.pop(self.random.randrange(len(flying)))
            case, first, end = (job.arguments[key] for key in ("case", "first", "end"))
            self.ran.append((case, first, end))
            if self.random.random() < self.failing:
                yield Done(job, None, "", 0.0, "each worker that ran it died")
            else:
                # jobs of all sizes
                yield Done(
                    job, pack_evaluation(result(case, first, end)), "a", self.random.choice([0.001, 0.1, 3.0])
                )


class Timed:
    """Workers that need `chip` seconds a chip. Each has three jobs at most, in the order in which they were given."""

    members: dict = {}  # noqa: RUF012

    def __init__(self, count: int, chip: float) -> None:
        self.present, self.chip, self.free = set(range(count)), chip, [0.0] * count

    def run(self, next_job, files, tick):
        flying, now = [], 0.0
        while True:
            while len(flying) < 3 * len(self.free) and (job := next_job()) is not None:
                case, first, end = (job.arguments[key] for key in ("case", "first", "end"))
                queues = [sum(one[1] == worker for one in flying) for worker in self.present]
                worker = queues.index(min(queues))
                begun = max(self.free[worker], now)
                self.free[worker] = begun + (end - first) * self.chip
                flying.append(
                    (self.free[worker], worker, job, result(case, first, end), (end - first) * self.chip)
                )
            if not flying:
                return
            now, worker, job, found, seconds = flying.pop(flying.index(min(flying, key=lambda one: one[0])))
            yield Done(job, pack_evaluation(found), str(worker), seconds)


def make_plan(variants: int, points: int, looks: tuple[int, ...], stop) -> Plan:
    count = variants * points
    groups = tuple(tuple(range(i, i + variants)) for i in range(0, count, variants))
    return Plan(tuple(f"case {i}" for i in range(count)), groups, (looks,) * points, stop, ACCURACY)


def stop_at(group: int, found) -> bool:
    """Decides from the chips alone, at another look for each group."""
    assert len({one.chips for one in found}) == 1
    return sum(sum(one.correct) for one in found) % (group + 2) == 0


def collect(plan: Plan, workers, files, journal=None, known=None) -> list[Evaluation]:
    """What a sweep does: all looks of a point, then the next point."""
    ahead = Ahead(workers, plan, "study", files, known or {}, journal)
    rows = []
    for number, (group, looks) in enumerate(zip(plan.groups, plan.looks, strict=True)):
        for end in looks:
            found = [ahead.evaluate(case, 0, end) for case in group]
            if plan.enough(number, found):
                break
        rows += found
    assert ahead.done == ahead.total == sum(one.chips for one in rows)
    return rows


def expected(plan: Plan) -> list[Evaluation]:
    rows = []
    for number, (group, looks) in enumerate(zip(plan.groups, plan.looks, strict=True)):
        for end in looks:
            found = [result(case, 0, end) for case in group]
            if plan.enough(number, found):
                break
        rows += found
    return rows


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> JobFiles:
    return JobFiles(tmp_path_factory.mktemp("files"))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32),
    st.integers(1, 3),
    st.integers(1, 5),
    st.lists(st.integers(1, 40), min_size=1, max_size=4, unique=True).map(lambda xs: tuple(sorted(xs))),
)
def test_the_same_chips_in_any_order(files, seed, variants, points, looks):
    plan, workers = make_plan(variants, points, looks, stop_at), Shuffled(seed)
    assert collect(plan, workers, files) == expected(plan)
    chips = [(case, chip) for case, first, end in workers.ran for chip in range(first, end)]
    assert len(chips) == len(set(chips))  # nothing twice


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32))
def test_after_failures_the_same_command_goes_on_where_it_stopped(files, tmp_path_factory, seed):
    plan = make_plan(2, 3, (5, 12, 30), stop_at)
    path = tmp_path_factory.mktemp("run") / "jobs.jsonl"
    done: set[tuple[int, int]] = set()
    for attempt in range(60):
        workers, journal = Shuffled(seed + attempt, 0.3 if attempt < 3 else 0.0), Journal(path)
        found = None
        with contextlib.suppress(FaultsimError):
            found = collect(plan, workers, files, journal)
        journal.close()
        chips = {(case, chip) for case, first, end in workers.ran for chip in range(first, end)}
        assert not chips & done  # what is in the journal is not computed again
        kept = [entry for entry in Journal(path).read() if "correct" in entry]
        done |= {(entry["case"], chip) for entry in kept for chip in range(entry["first"], entry["end"])}
        if found is not None:
            assert found == expected(plan)
            return
    pytest.fail("it never ended")


def test_a_failed_job_leaves_all_others_done(files, tmp_path):
    plan, workers = make_plan(1, 8, (10,), lambda group, found: True), Shuffled(3, 0.2)
    ahead = Ahead(workers, plan, "study", files, {}, Journal(tmp_path / "jobs.jsonl"))
    with pytest.raises(FaultsimError, match=r"^case \d+, chip.* failed: each worker that ran it died"):
        [ahead.evaluate(case, 0, 10) for case in range(8)]
    lost = sum(1 for entry in Journal(tmp_path / "jobs.jsonl").read() if "failed" in entry)
    assert lost == len(ahead.failed) > 0
    ran = {(case, chip) for case, first, end in workers.ran for chip in range(first, end)}
    assert ran == {(case, chip) for case in range(8) for chip in range(10)}


@pytest.mark.parametrize("cut", range(0, 200, 13))
def test_a_journal_that_was_cut_off_counts_no_half_line(files, tmp_path, cut):
    plan, path = make_plan(1, 2, (8,), lambda group, found: True), tmp_path / "jobs.jsonl"
    journal = Journal(path)
    collect(plan, Shuffled(1), files, journal)
    journal.close()
    path.write_bytes(path.read_bytes()[:-cut] if cut else path.read_bytes())
    again = Journal(path)
    assert collect(plan, Shuffled(2), files, again) == expected(plan)
    again.close()
    assert collect(plan, Shuffled(4), files, Journal(path)) == expected(plan)


@pytest.mark.parametrize(
    "line",
    ['{"case": 0, "first": 0, "end": 3, "images": 1000, "correct": [1, 2]}', '{"case": 99, "first": 0, "end": 1}', "[]",
     '{"case": 0, "first": 0, "end": 1, "images": 1000, "correct": [1001]}', '{"case": 0, "first": -1, "end": 0}',
     '{"case": "0", "first": 0, "end": 1, "images": 1000, "correct": [5]}', "\x00",
     '{"case": 0, "first": 0, "end": 1,'],
)  # fmt: skip
def test_odd_lines_of_a_journal_are_computed_again(files, tmp_path, line):
    (tmp_path / "jobs.jsonl").write_text(line + "\n")
    plan = make_plan(1, 2, (8,), lambda group, found: True)
    assert collect(plan, Shuffled(1), files, Journal(tmp_path / "jobs.jsonl")) == expected(plan)


def test_scores_come_back_to_their_last_bit():
    metric = METRICS["cross_entropy"]
    found = Evaluation((), 7, metric, (0.1 + 0.2, float("nan"), float("inf"), -0.0), (0, 3, 0, 0))
    again = unpack_evaluation(pack_evaluation(found), metric)
    assert repr(again.scores) == repr(found.scores)
    assert (again.not_finite, again.images) == (found.not_finite, 7)


@pytest.mark.parametrize("count", [1, 2, 3, 16])
@pytest.mark.parametrize("chip", [0.003, 0.06, 0.5])
def test_workers_end_together(files, count, chip):
    chips = 400 * count
    plan, workers = make_plan(1, 1, (chips,), lambda group, found: True), Timed(count, chip)
    assert collect(plan, workers, files) == expected(plan)
    # a worker that ends first lacks at most the last jobs of another one
    assert max(workers.free) - min(workers.free) <= 2 * max(LEAST_SECONDS, chip) + 1e-9
