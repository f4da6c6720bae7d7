"""Runs jobs in an order that gives each the teacher it needs: here, in processes, or on a cluster."""

import contextlib
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

from common import console
from common.grid.clock import Clock, Lines
from common.grid.jobs import Job
from common.grid.worker import WAITS, execute


class Workers(Protocol):
    """What runs the jobs: `Here`, `processes.Processes` or `cluster.Cluster`."""

    at_once: int

    def busy(self) -> bool: ...
    def free(self) -> bool: ...
    def start(self, job: Job, head: Callable[[], str]) -> None: ...
    def next(self) -> tuple[Job, str, float]: ...
    def close(self) -> None: ...


class Here:
    """One job after another, in this process."""

    at_once = 1

    def __init__(self):
        self.ended: list[tuple[Job, str, float]] = []

    def busy(self) -> bool:
        return bool(self.ended)

    def free(self) -> bool:
        return not self.ended

    def start(self, job: Job, head: Callable[[], str]) -> None:
        """Runs the job; each line of its output is shown after `head()`."""
        started, lines = time.perf_counter(), Lines(head, sys.stdout)
        with contextlib.redirect_stdout(lines):
            error = execute(job)
        lines.end()
        self.ended.append((job, error, time.perf_counter() - started))

    def next(self) -> tuple[Job, str, float]:
        """The job that was run, its error or an empty string, and its seconds."""
        return self.ended.pop()

    def close(self) -> None:
        pass


def off(waiting: list[Job], total: int, workers: Workers) -> dict[str, str]:
    """Runs the jobs, each after those it waits for; returns by name what went wrong, or what a run waits for (WAITS).

    Args:
        waiting: the jobs still to do.
        total: how many the whole grid has.
    """
    queue, unfinished = list(waiting), {job.name for job in waiting}
    failed, started, clock = {}, {}, Clock(waiting, workers.at_once)

    def head(job: Job) -> str:
        clock.working(job, time.perf_counter() - started[job])
        number = total - len(unfinished) + (workers.at_once == 1)  # the current run's, or how many have ended
        return f"[{number}/{total}, {clock}] {job.name}:"

    def end(job: Job, error: str, seconds: float) -> None:
        unfinished.remove(job.name)
        clock.ended(job, seconds, error)
        if error:
            failed[job.name] = error
        said = error if error.startswith(WAITS) else f"failed: {error}" if error else "done"
        console.say(f"[{total - len(unfinished)}/{total}, {clock}] {job.name} {said}")

    while unfinished:
        for job in [job for job in queue if unfinished.isdisjoint(job.after)]:
            lost = [name for name in job.needs if name in failed]
            if lost:
                queue.remove(job)
                makes = f"{lost[0]}, which makes its teacher"
                end(job, f"{WAITS}{makes}" if failed[lost[0]].startswith(WAITS) else f"{makes}, failed", 0.0)
            elif workers.free():
                queue.remove(job)
                started[job] = time.perf_counter()
                workers.start(job, partial(head, job))
        if workers.busy():
            end(*workers.next())
    return failed
