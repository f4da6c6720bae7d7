"""Runs side by side with Ray, on this machine or many. Ray is an extra: `pip install ray`."""

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

from common.errors import InputError
from common.experiments import ROOT

RETRIES = 3  # a task whose worker died starts again, and its run goes on from its last finished epoch


def run(work: Callable[[Any], str], items: list, address: str, share: dict) -> Iterator[tuple[Any, str, float]]:
    """(item, what went wrong or nothing, seconds) of each item as it ends, in whatever order.

    Args:
        work: called with an item in a worker process, which must see this repository and the run folders at the same
            paths (shared storage).
        address: `local` starts Ray here, `auto` joins the cluster that is there.
        share: what each item occupies: num_cpus, num_gpus, memory in bytes.
    """
    try:
        import ray
    except ImportError:
        raise InputError("--ray: Ray is not installed; pip install ray, or leave the flag out") from None
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    options = {"log_to_driver": False, "runtime_env": {"env_vars": {"PYTHONPATH": path}}, "logging_level": "warning"}
    try:
        ray.init(**options, **({"address": "auto"} if address == "auto" else {"include_dashboard": False}))
    except ConnectionError as error:
        raise InputError(f"--ray auto: no Ray cluster to join ({error}); start one, or use --ray local") from None
    try:
        _check(ray.cluster_resources(), share)
        task = ray.remote(max_retries=RETRIES, **share)(_timed)
        pending = {task.remote(work, item): item for item in items}
        while pending:
            (ready,), _ = ray.wait(list(pending), num_returns=1)
            item = pending.pop(ready)
            try:
                yield item, *ray.get(ready)
            except ray.exceptions.RayError as error:  # its worker died once too often
                yield item, f"{type(error).__name__} after {RETRIES} retries", 0.0
    finally:
        ray.shutdown()


def _timed(work: Callable[[Any], str], item) -> tuple[str, float]:
    started = time.perf_counter()
    return work(item), time.perf_counter() - started


def _check(there: dict, share: dict) -> None:
    for name, flag, key in (("CPU", "--threads", "num_cpus"), ("GPU", "--gpus", "num_gpus"),
                            ("memory", "--memory_gb", "memory")):  # fmt: skip
        if share[key] > there.get(name, 0):
            raise InputError(
                f"{flag}: a run asks for {share[key]:g} of {name}, the cluster has {there.get(name, 0):g}; ask for less"
            )
