"""Estimates a grid's time left, and prefixes a run's output with it."""

import contextlib
import io
import os
from collections.abc import Callable, Iterable
from statistics import fmean
from typing import TextIO

from common import plan
from common.grid.jobs import Job


class Clock:
    """Estimates the grid's time left from the rounds run so far.

    Args:
        waiting: the jobs still to do.
        at_once: how many of them run in parallel.
    """

    def __init__(self, waiting: Iterable[Job], at_once: int = 1):
        self.at_once = at_once
        self.before = {job: job.rounds_done() for job in waiting}
        self.left = {job: job.rounds - done for job, done in self.before.items()}
        self.pace: dict[Job, float] = {}  # seconds per round
        self.began: dict[Job, float] = {}  # when the current round began, in seconds since its job started
        self.into: dict[Job, float] = {}  # seconds that round has taken so far

    def working(self, job: Job, seconds: float) -> None:
        """Notes that `job` has been running for `seconds`."""
        left = job.rounds - job.rows()
        if left < self.left[job]:  # a round has ended since the last call
            self.left[job], self.began[job] = left, seconds
            self.pace[job] = seconds / (job.rounds - left - self.before[job])
        self.into[job] = seconds - self.began.get(job, 0.0)

    def ended(self, job: Job, seconds: float, error: str) -> None:
        """Notes that `job` has ended after `seconds`."""
        if not error:
            self.working(job, seconds)
        self.left.pop(job)
        self.into.pop(job, None)

    def __str__(self) -> str:
        if all(job.teacher for job in self.pace):
            return "time left unknown yet"
        left = 0.0
        for job, rounds in self.left.items():
            alike = [seconds for other, seconds in self.pace.items() if other.expt == job.expt]  # except for the seed
            alike = alike or [s for other, s in self.pace.items() if bool(other.teacher) == bool(job.teacher)]
            pace = fmean(alike) if alike else 0.0
            left += rounds * pace - min(self.into.get(job, 0.0), pace, rounds * pace)
        return f"about {plan.duration(left / max(1, min(self.at_once, len(self.left))))} left"


class Lines(io.TextIOBase):
    """Passes a run's lines on to `target`, each after `head()`; of a progress bar, only its last state."""

    def __init__(self, head: Callable[[], str], target: TextIO):
        self.head, self.target, self.rest = head, target, ""

    def write(self, text: str) -> int:
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            self._pass_on(line)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self.target.flush()

    def end(self) -> None:
        """Passes on a last line that has no newline."""
        self._pass_on(self.rest)
        self.rest = ""
        self.flush()

    def _pass_on(self, line: str) -> None:
        if line := line.rpartition("\r")[2].rstrip():
            try:
                self.target.write(f"{self.head()} {line}\n")
            except (OSError, ValueError):  # the reader is gone: the run continues silently
                self.target = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - open until the process ends
