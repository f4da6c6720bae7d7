"""Runs side by side on this machine, each in its own process (`--jobs`), so that one that dies takes none with it."""

import codecs
import contextlib
import os
import pickle
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO

from common.experiments import ROOT
from common.grid.clock import Lines
from common.grid.jobs import Job
from common.grid.worker import GRACE


class Stream:
    """A child's output, read without blocking; whole lines are passed on."""

    def __init__(self, file: IO[bytes], lines: Lines):
        self.file, self.lines = file, lines
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        os.set_blocking(file.fileno(), False)

    def read(self) -> bool:
        """Passes on the available output; False at the end, or if there is none."""
        try:
            data = os.read(self.file.fileno(), 65536)
        except BlockingIOError:
            return False
        self.lines.write(self.decoder.decode(data))
        self.lines.flush()
        return bool(data)


@dataclass
class Child:
    """A run's process."""

    job: Job
    process: subprocess.Popen
    started: float
    streams: list[Stream]
    outcome: int  # file descriptor on which the process reports what went wrong

    def error(self) -> str:
        """What went wrong, once the process has ended: its own report, or what ended it."""
        with open(self.outcome, "rb", buffering=0) as file:
            said = (file.read() or b"").decode(errors="replace")
        status = self.process.returncode
        if status < 0:
            return f"its process was killed by {signal.Signals(-status).name}; the same command goes on with it"
        return said or (f"its process ended with status {status}" if status else "")


class Processes:
    """Starts jobs in their own processes and waits for them to end. Closing it ends those still running."""

    def __init__(self, at_once: int):
        self.at_once = at_once
        self.children: list[Child] = []
        self.selector = selectors.DefaultSelector()

    def busy(self) -> bool:
        """Is there a job to wait for?"""
        return bool(self.children)

    def free(self) -> bool:
        """May another job start?"""
        return len(self.children) < self.at_once

    def start(self, job: Job, head: Callable[[], str]) -> None:
        """Starts a job; its lines are shown prefixed with `head()`."""
        outcome, their_end = os.pipe()
        os.set_blocking(outcome, False)
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        process = subprocess.Popen(
            [sys.executable, "-m", "common.grid.worker", str(their_end)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            pass_fds=[their_end],
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C reaches only the grid, which ends them all
        )
        os.close(their_end)
        streams = [
            Stream(process.stdout, Lines(head, sys.stdout)),
            Stream(process.stderr, Lines(lambda: f"{job.name}:", sys.stderr)),
        ]
        self.children.append(Child(job, process, time.perf_counter(), streams, outcome))
        for stream in streams:
            self.selector.register(stream.file, selectors.EVENT_READ, stream)
        with contextlib.suppress(BrokenPipeError):  # it has died already; `next` will notice
            process.stdin.write(pickle.dumps(job))

    def next(self) -> tuple[Job, str, float]:
        """Waits until a job ends, showing lines meanwhile; returns it, what went wrong or "", and its seconds."""
        while True:
            for key, _ in self.selector.select(timeout=0.2):
                if not key.data.read():
                    self.selector.unregister(key.fileobj)
            for child in self.children:
                if child.process.poll() is not None:
                    self._forget(child)
                    return child.job, child.error(), time.perf_counter() - child.started

    def close(self) -> None:
        """Ends the running jobs, which see their stdin close."""
        for child in self.children:
            child.process.stdin.close()
        deadline = time.monotonic() + GRACE
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                for child in self.children:
                    child.process.wait(max(0.0, deadline - time.monotonic()))
        finally:  # also on a second Ctrl-C
            for child in self.children:
                if child.process.poll() is None:
                    os.killpg(child.process.pid, signal.SIGKILL)
                    child.process.wait()
            self.selector.close()

    def _forget(self, child: Child) -> None:
        for stream in child.streams:
            while stream.read():
                pass
            stream.lines.end()
            if stream.file in self.selector.get_map():
                self.selector.unregister(stream.file)
            stream.file.close()
        child.process.stdin.close()
        self.children.remove(child)
