"""Evaluations that workers compute ahead of the coordinator, which asks for them in a fixed order.

A plan says which chips of which cases are needed: for each group of cases (the variants of an operating point) those up
to the next look, at which it is decided whether they are enough. What is decided depends on the chips before a look
only, so the results depend neither on the number of workers nor on the order in which they end.
"""

import heapq
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import FaultsimError, FaultsimWarning
from ..evaluation import Evaluation
from ..metrics.metric import Metric
from .files import JobFiles
from .jobs import Done, Job
from .journal import Journal
from .study import unpack_evaluation
from .workers import Workers

JOB_SECONDS = 2.0
"""How long a job is meant to take at most, where a chip takes less: what a worker's death costs."""
LEAST_SECONDS = 0.2
"""How long it is meant to take at least: against the engine's few milliseconds."""
PARTS = 4
"""A worker's share of the rest of the chips is divided into so many jobs at least, so that all end together."""

Value = tuple[int | float, int]
"""Of one chip: right answers or score, and answers that were not finite."""


@dataclass(frozen=True)
class Plan:
    """Which chips of which cases are needed."""

    names: tuple[str, ...]
    """Of the cases, in words."""
    groups: tuple[tuple[int, ...], ...]
    """Cases that see the same chips, in the order in which they are asked for."""
    looks: tuple[tuple[int, ...], ...]
    """Of each group: after how many chips it is decided whether they are enough; the last one is all chips."""
    enough: Callable[[int, Sequence[Evaluation]], bool]
    """Whether the evaluations of a group's cases are enough."""
    metric: Metric
    together: int = 1
    """Chips of the first job of each case, before it is known how long one takes."""


class Ahead:
    """Chips of cases that workers compute.

    Parameters
    ----------
    workers
        Who computes.
    plan
        What is needed.
    study, files
        Checksum of the study, and the files that it is among.
    known
        What was evaluated before, of the first chips of cases.
    journal
        Where to keep what arrives; None: nowhere.
    report
        Called about once a second, and after each job.
    """

    def __init__(
        self,
        workers: Workers,
        plan: Plan,
        study: str,
        files: JobFiles,
        known: Mapping[int, Evaluation],
        journal: Journal | None = None,
        report: Callable[["Ahead"], None] = lambda ahead: None,
    ) -> None:
        self.workers, self.plan = workers, plan
        self.failed: list[tuple[str, str]] = []
        """Names of the jobs that failed, and why."""
        self._study, self._files, self._journal = study, files, journal
        self.done = 0
        """Chips that are known, of all cases together."""
        self.total = sum(looks[0] * len(cases) for looks, cases in zip(plan.looks, plan.groups, strict=True))
        """Chips that are needed, of all cases together, as far as the looks so far tell."""
        self._group = {case: number for number, group in enumerate(plan.groups) for case in group}
        self._place = {case: place for group in plan.groups for place, case in enumerate(group)}
        self._values: list[list[Value | None]] = [
            [None] * plan.looks[self._group[case]][-1] for case in range(len(plan.names))
        ]
        self._whole = [0] * len(plan.names)  # chips before which all are known
        self._asked = [0] * len(plan.names)  # chips before which all are known or in flight
        self._stage: list[int | None] = [0] * len(plan.groups)  # the next look; None where no chip is needed
        self._ready = list(range(len(plan.groups)))  # a heap of groups with chips to compute
        self._images: int | None = None
        self._rates: dict[int, float] = {}  # seconds of a chip, by the place within the group
        self._given = 0  # chips of jobs that have not ended
        self._noted: set[str] = set()  # workers in the journal
        self._report = report
        for case, found in known.items():
            self._store(case, 0, found)
        for entry in journal.read() if journal else ():
            self._take_up(entry)
        for group in range(len(plan.groups)):
            self._decide(group)
        self._running: Generator[Done] = workers.run(self._next_job, files, lambda: report(self))

    def evaluate(
        self, case: int, first: int, end: int, report: Callable[[Evaluation], None] | None = None
    ) -> Evaluation:
        """Return the evaluation of a case on the chips from `first` to before `end`, and wait for it.

        Parameters
        ----------
        case
            Number of the case.
        first, end
            Places of the chips, which the plan needs.
        report
            Called with the evaluation of the chips so far, each time that there are more.

        Raises
        ------
        FaultsimError
            Where jobs failed; all others are done then.
        """
        told = first
        while True:
            whole = min(self._whole[case], end)
            if whole > told and report is not None:
                report(self._make(case, first, whole))
                told = whole
            if whole >= end:
                return self._make(case, first, end)
            done = next(self._running, None)
            if done is None:
                raise self._explain_failures()
            self._take_in(done)

    def close(self) -> None:
        """Let the cluster forget what is in flight."""
        self._running.close()

    def _explain_failures(self) -> FaultsimError:
        name, why = self.failed[0]
        more = f" and {len(self.failed) - 1} others" if len(self.failed) > 1 else ""
        return FaultsimError(f"{name}{more} failed: {why}. All others are done; the same command tries again")

    def _make(self, case: int, first: int, end: int) -> Evaluation:
        """Make the evaluation of chips that are known."""
        values = [value for value in self._values[case][first:end] if value is not None]
        numbers, wrong = tuple(value for value, _ in values), tuple(count for _, count in values)
        counted, not_finite = self.plan.metric.counts, wrong if any(wrong) else ()
        correct, scores = (numbers, ()) if counted else ((), numbers)
        return Evaluation(correct, self._images or 0, self.plan.metric, scores, not_finite)  # type: ignore[arg-type]

    def _store(self, case: int, first: int, found: Evaluation) -> None:
        if self._images not in (None, found.images):
            raise FaultsimError(
                f"workers evaluated {found.images} samples instead of {self._images}: is their data another?"
            )
        self._images = found.images
        numbers = found.correct if self.plan.metric.counts else found.scores
        wrong = found.not_finite or (0,) * found.chips
        values = self._values[case]
        for place, value in enumerate(zip(numbers, wrong, strict=True), first):
            self.done += values[place] is None
            values[place] = value
        while self._whole[case] < len(values) and values[self._whole[case]] is not None:
            self._whole[case] += 1
        self._asked[case] = max(self._asked[case], self._whole[case])

    def _limit(self, group: int) -> int:
        """Return how many chips of a group's cases are needed so far."""
        stage = self._stage[group]
        return 0 if stage is None else self.plan.looks[group][stage]

    def _decide(self, group: int) -> None:
        """Look at a group once all chips are there that the next look needs."""
        cases, looks = self.plan.groups[group], self.plan.looks[group]
        while (stage := self._stage[group]) is not None:
            end = looks[stage]
            if any(self._whole[case] < end for case in cases):
                return
            last = end == looks[-1]
            if last or self.plan.enough(group, [self._make(case, 0, end) for case in cases]):
                self._stage[group] = None
            else:
                self._stage[group] = stage + 1
                self.total += len(cases) * (looks[stage + 1] - end)
                if group not in self._ready:
                    heapq.heappush(self._ready, group)

    def _next_job(self) -> Job | None:
        """Return the next job, of the first group that needs one."""
        while self._ready:
            group = self._ready[0]
            limit = self._limit(group)
            for case in self.plan.groups[group]:
                values = self._values[case]
                first = self._asked[case]
                while first < limit and values[first] is not None:
                    first += 1
                if first < limit:
                    end, most = first + 1, first + self._size(case)
                    while end < min(limit, most) and values[end] is None:
                        end += 1
                    self._asked[case] = end
                    self._given += end - first
                    return self._make_job(case, first, end)
                self._asked[case] = first
            heapq.heappop(self._ready)
        return None

    def _size(self, case: int) -> int:
        """Return how many chips the next job of a case takes."""
        rate = self._rates.get(self._place[case])
        if rate is None:
            return self.plan.together
        left = max(0, self.total - self.done - self._given) * max(self._rates.values())
        seconds = min(JOB_SECONDS, max(LEAST_SECONDS, left / (PARTS * max(1, len(self.workers.present)))))
        return max(1, int(seconds / rate))

    def _make_job(self, case: int, first: int, end: int) -> Job:
        arguments = {
            "study": self._study,
            "folder": self._files.where,
            "case": case,
            "first": first,
            "end": end,
        }
        name = (
            f"{self.plan.names[case]}, {f'chips {first + 1} to {end}' if end > first + 1 else f'chip {end}'}"
        )
        return Job(name, "faultsim.cluster.study:evaluate_chips", arguments)

    def _take_in(self, done: Done) -> None:
        """Take in a job that ended."""
        case, first, end = (done.job.arguments[key] for key in ("case", "first", "end"))
        self._given -= end - first
        if done.failure is not None:
            self.failed.append((done.job.name, done.failure))
            self._note({"failed": done.job.name, "why": done.failure})
            return
        for line in done.result.pop("warnings", ()):
            warnings.warn(line, FaultsimWarning, stacklevel=4)
        if done.worker not in self._noted and (member := self.workers.members.get(done.worker)):
            self._noted.add(done.worker)
            who = {"host": member.host, "processor": member.processor}
            self._note({"worker": done.worker, "name": member.name, **who})
        about = {"case": case, "first": first, "end": end, "name": self.plan.names[case]}
        self._note({**about, **done.result, "worker": done.worker, "seconds": round(done.seconds, 4)})
        self._store(case, first, unpack_evaluation(done.result, self.plan.metric))
        place, rate = self._place[case], max(1e-6, done.seconds / (end - first))
        self._rates[place] = min(rate, self._rates.get(place, rate))  # the first one also opened the study
        self._decide(self._group[case])
        self._report(self)

    def _note(self, entry: dict[str, Any]) -> None:
        if self._journal is not None:
            self._journal.add(entry)

    def _take_up(self, entry: dict[str, Any]) -> None:
        """Take a job that was done in an earlier run; what does not fit the plan is computed again."""
        try:
            case, first, end = entry["case"], entry["first"], entry["end"]
            found = unpack_evaluation(entry, self.plan.metric)
            numbers = found.correct if self.plan.metric.counts else found.scores
            fits = case >= 0 and 0 <= first < end <= len(self._values[case]) and len(numbers) == end - first
            counted = not self.plan.metric.counts or all(0 <= count <= found.images for count in numbers)
        except (KeyError, IndexError, ValueError, TypeError):
            return
        if fits and counted and len(found.not_finite) in (0, end - first):
            self._store(case, first, found)
