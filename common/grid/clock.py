"""How long the rest of a grid takes, and a run's lines with that in front."""

import io
import sys
from collections.abc import Callable, Iterable

from common.grid import plan
from common.grid.jobs import Job


class Clock:
    """How long the rest of the grid takes, from the rounds that were run so far."""

    def __init__(self, waiting: Iterable[Job]):
        self.before = {job: job.rounds_done() for job in waiting}
        self.left = {job: job.rounds - done for job, done in self.before.items()}
        self.pace: dict[Job, float] = {}  # seconds a round
        self.began = self.into = 0.0  # when the round now at work began, and its seconds so far

    def working(self, job: Job, seconds: float) -> None:
        """`job` has been at work for so long."""
        left = job.rounds - job.rows()
        if left < self.left[job]:  # a round has ended since
            self.left[job], self.began = left, seconds
            self.pace[job] = seconds / (job.rounds - left - self.before[job])
        self.into = seconds - self.began

    def ended(self, job: Job, seconds: float, error: str) -> None:
        if not error:
            self.working(job, seconds)
        self.left.pop(job)
        self.began = self.into = 0.0

    def __str__(self) -> str:
        if not self.pace:
            return "time left unknown yet"
        usual = sum(self.pace.values()) / len(self.pace)
        alike: dict[str, list[float]] = {}  # runs that differ in the seed alone
        for job, seconds in self.pace.items():
            alike.setdefault(job.expt, []).append(seconds)
        each = {expt: sum(values) / len(values) for expt, values in alike.items()}
        left = sum(rounds * each.get(job.expt, usual) for job, rounds in self.left.items())
        return f"about {plan.duration(left - min(self.into, usual, left))} left"


class Lines(io.TextIOBase):
    """Passes a run's lines on, each behind where the grid stands."""

    def __init__(self, head: Callable[[], str]):
        self.head, self.target, self.rest = head, sys.stdout, ""

    def write(self, text: str) -> int:
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            self.target.write(f"{self.head()} {line}\n")
        return len(text)

    def flush(self) -> None:
        self.target.flush()
