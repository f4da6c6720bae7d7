"""Parallel runs with Ray, on this machine or many. Ray is an extra: `pip install ray`."""

import os
import time
from collections.abc import Callable

from common.errors import InputError
from common.experiments import ROOT
from common.grid.jobs import Job
from common.grid.worker import execute

RETRIES = 3  # a task whose worker died restarts, and its run resumes after its last finished epoch


class Cluster:
    """Starts jobs as Ray tasks and waits for them to end. Workers see this repository and the run folders at the same
    paths (shared storage). Close it to leave the cluster.

    Args:
        address: `local` starts Ray here, `auto` joins an existing cluster.
        share: the resources of each job: num_cpus, num_gpus, memory in bytes.
    Raises InputError without Ray, without a cluster to join, or when a job asks for more than the cluster has.
    """

    def __init__(self, address: str, share: dict):
        try:
            import ray
        except ImportError:
            raise InputError("--ray: Ray is not installed; pip install ray, or use --jobs") from None
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        options = {
            "log_to_driver": False,
            "runtime_env": {"env_vars": {"PYTHONPATH": path}},
            "logging_level": "warning",
        }
        try:
            ray.init(**options, **({"address": "auto"} if address == "auto" else {"include_dashboard": False}))
        except ConnectionError as error:
            raise InputError(f"--ray auto: no Ray cluster to join ({error}); start one, or use --ray local") from None
        self.ray, self.pending = ray, {}
        try:
            self.at_once = _at_once(ray.cluster_resources(), share)
        except InputError:
            self.close()
            raise
        self.task = ray.remote(max_retries=RETRIES, **share)(_timed)

    def busy(self) -> bool:
        """Is there a job to wait for?"""
        return bool(self.pending)

    def free(self) -> bool:
        """May another job start? Always: the cluster, which may grow, has its own queue."""
        return True

    def start(self, job: Job, head: Callable[[], str]) -> None:
        """Submits a job to the cluster, which starts it when there is room; its output is only in its log.txt."""
        self.pending[self.task.remote(job)] = job

    def next(self) -> tuple[Job, str, float]:
        """Waits until a job ends; returns it, its error or an empty string, and its seconds."""
        (ready,), _ = self.ray.wait(list(self.pending), num_returns=1)
        job = self.pending.pop(ready)
        try:
            return job, *self.ray.get(ready)
        except self.ray.exceptions.RayError as error:  # its worker died too often
            return job, f"{type(error).__name__} after {RETRIES} retries", 0.0

    def close(self) -> None:
        """Leaves the cluster, which ends its unfinished jobs."""
        self.ray.shutdown()


def _timed(job: Job) -> tuple[str, float]:
    started = time.perf_counter()
    return execute(job), time.perf_counter() - started


def _at_once(there: dict, share: dict) -> int:
    """How many jobs the cluster has room for. Raises InputError if there is none even for one."""
    room = []
    for name, flag, key in (("CPU", "--threads", "num_cpus"), ("GPU", "--gpus", "num_gpus"),
                            ("memory", "--memory_gb", "memory")):  # fmt: skip
        if share[key] > there.get(name, 0):
            raise InputError(
                f"{flag}: a run asks for {share[key]:g} of {name}, the cluster has {there.get(name, 0):g}; ask for less"
            )
        room += [int(there[name] // share[key])] if share[key] else []
    return min(room, default=1)
