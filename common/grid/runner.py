"""Any part of the grid by one command: models x data sets x methods x networks x samplers x seeds, then the report.

    python -m common.grid --models AlexNet --datasets CIFAR10 --methods Random KD EnCoDe --seeds 3 \\
        --percents 10 20 30 40 50 60 100 --train_epochs 24 --step_size 20 --batch_size 128

Flags that are not the grid's own go to every main.py that has them. A run that is done is skipped, one that was cut off
goes on, one that fails becomes a row of the summary. --dry_run lists the runs and estimates their time. --ray local or
--ray auto runs them side by side on this machine or on a Ray cluster.
"""

import argparse
import contextlib
import sys
import time
import traceback
from pathlib import Path

from common import data, flags, machine, report
from common.errors import InputError
from common.experiments import METHODS, ROOT, available, script
from common.grid import cluster, plan
from common.grid.clock import Clock, Lines
from common.grid.jobs import Job, jobs


def execute(job: Job) -> str:
    """Runs the job's main.py in this process; returns what went wrong in one line, or nothing."""
    try:
        args = job.args()
        machine.prepare(args)
        script(job.model, job.dataset, job.method).main(args)
    except (InputError, OSError) as error:
        return " ".join(str(error).split())
    except Exception as error:  # a fault in one run must not end the others
        traceback.print_exc(file=sys.stderr)
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    return ""


def one_after_the_other(waiting: list[Job], total: int) -> dict[str, str]:
    """Runs the jobs here; returns what went wrong by name."""
    failed, clock = {}, Clock(waiting)
    for number, job in enumerate(waiting, total - len(waiting) + 1):
        started = time.perf_counter()

        def head(number: int = number, job: Job = job, started: float = started) -> str:
            clock.working(job, time.perf_counter() - started)
            return f"[{number}/{total}, {clock}] {job.name}:"

        with contextlib.redirect_stdout(Lines(head)):
            error = execute(job)
        clock.ended(job, time.perf_counter() - started, error)
        if error:
            failed[job.name] = error
            print(f"[{number}/{total}] {job.name} failed: {error}", flush=True)
    return failed


def side_by_side(waiting: list[Job], total: int, args: argparse.Namespace) -> dict[str, str]:
    """Runs the jobs as Ray tasks; returns what went wrong by name."""
    failed, clock, done = {}, Clock(waiting), total - len(waiting)
    share = {"num_cpus": args.threads, "num_gpus": args.gpus, "memory": int(args.memory_gb * 2**30)}
    for job, error, seconds in cluster.run(execute, waiting, args.ray, share):
        done += 1
        clock.ended(job, seconds, error)
        if error:
            failed[job.name] = error
        print(f"[{done}/{total}, {clock}] {job.name} {f'failed: {error}' if error else 'done'}", flush=True)
    return failed


def show(found: list[Job]) -> None:
    """The runs with their state and estimated time; runs of one configuration are timed once."""
    images, seconds, total = None, {}, 0.0
    for job in found:
        done = job.rounds_done()
        if done < job.rounds and job.expt not in seconds:
            args = job.args()
            machine.prepare(args)
            key = args.dataset, args.image_size, args.num_images
            if images is None or images[0] != key:
                images = key, data.load(args)
            seconds[job.expt] = plan.seconds_a_round(args, images[1])
        left = (job.rounds - done) * seconds.get(job.expt, 0.0)
        total += left
        state = "done" if done == job.rounds else f"{done} of {job.rounds} rounds, about {plan.duration(left)}"
        print(f"{job.name:45} {state}")
    print(
        f"{len(found)} runs, about {plan.duration(total)} one after the other, without missing teachers and evaluation"
    )
    if images is not None and images[1].device.type == "cuda":
        print(f"by memory, {plan.runs_that_fit(images[1].device)} such runs fit the GPU at once: --ray local --gpus")


def parse(argv: list[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """The grid's own flags, and the words for the scripts."""
    models, datasets, _ = (sorted(set(part)) for part in zip(*available(), strict=True))
    parser = flags.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    flag = parser.add_argument
    flag("--models", nargs="+", choices=models, default=["AlexNet"])
    flag("--datasets", nargs="+", choices=datasets, default=["CIFAR10"])
    flag("--methods", nargs="+", choices=METHODS, default=["Random", "KD", "EnCoDe"])
    flag("--networks", nargs="+", choices=["student", "teacher"], default=["student"], help="of Single and Random")
    flag("--samplers", nargs="+", choices=flags.OFFERED["EnCoDe"], help="of EnCoDe; its own when left out")
    flag("--seeds", type=flags.COUNT, default=1, help="how many")
    flag("--first_seed", type=flags.COUNT0, default=2023)
    flag("--percents", nargs="+", help="label counts in percent of num_images; 100 is the whole pool")
    flag("--tag", default="", help="added to the runs' names, to tell them from others with other flags")
    flag("--save_path", default=str(ROOT / "runs"))
    flag("--output", default="", help="the report's folder; empty: <save_path>/report")
    flag("--threads", type=flags.COUNT0, default=0, help="of each run; 0: all cores, or 1 with --ray")
    flag("--ray", choices=["local", "auto"], help="a Ray cluster on this machine, or the one that is there")
    flag("--gpus", type=float, default=0.0, help="with --ray: a run's share of a GPU, 0.25 puts four on one")
    flag("--memory_gb", type=float, default=2.5, help="with --ray: memory a run is given")
    flag("--dry_run", action="store_true", help="list the runs with their estimated time, and stop")
    args, passed = parser.parse_known_args(argv)
    args.save_path = str(Path(args.save_path).expanduser().resolve())
    if args.ray and not args.threads:
        args.threads = 1
    return args, passed


def main(argv: list[str] | None = None) -> None:
    args, passed = parse(argv)
    found = jobs(args, passed)
    if args.dry_run:
        return show(found)
    waiting = [job for job in found if job.rounds_done() < job.rounds]
    print(f"{len(found)} runs, {len(found) - len(waiting)} done before", flush=True)
    run_all = one_after_the_other if args.ray is None else lambda *jobs: side_by_side(*jobs, args)
    failed = run_all(waiting, len(found)) if waiting else {}
    finished = [str(job.folder) for job in found if job.rounds_done()]
    if finished:
        report.main([*finished, "--output", args.output or str(Path(args.save_path) / "report")])
    for name, error in failed.items():
        print(f"failed {name}: {error}", file=sys.stderr)
    if failed:
        raise InputError(f"{len(failed)} of {len(found)} runs failed; the same command runs these again")
